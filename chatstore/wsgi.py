"""The WSGI application. It refuses to start where a system check of ours finds an error."""

from __future__ import annotations

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from chatstore.checks import refuse_errors
from chatstore.http.charsets import UTF8Requests
from chatstore.http.chunked import MeasuredBodies

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatstore.settings")

application = MeasuredBodies(UTF8Requests(get_wsgi_application()), limit=settings.MAX_BATCH_BODY_BYTES)
refuse_errors()
