"""How an answer becomes JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework import renderers
from rest_framework.utils.encoders import JSONEncoder

DEFAULT = JSONEncoder().default


class JSONRenderer(renderers.JSONRenderer):
    """DRF's, by orjson, which takes a fifth of the time for a page of messages. What orjson cannot write, an
    integer of more than 64 bits say, DRF's own writes."""

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        if data is None:
            return b""
        try:
            return orjson.dumps(data, DEFAULT)
        except TypeError:
            return super().render(data, accepted_media_type, renderer_context)
