"""The assistant of tests for a server whose sends give up after a second and not after half a minute."""

from __future__ import annotations

from conversations.chat import sse
from conversations.tests.scripted import Scripted

sse.SEND_SECONDS = 1  # type: ignore[misc]

__all__ = ["Scripted"]
