"""How the admin writes times (FORMAT_MODULE_PATH): to the second, as logs have them."""

from __future__ import annotations

DATETIME_FORMAT = "Y-m-d H:i:s"
DATE_FORMAT = "Y-m-d"
