"""How an answer becomes JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework import renderers
from rest_framework.utils.encoders import JSONEncoder

ENCODER = JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def json_bytes(value: Any) -> bytes:
    """JSON on one line, by orjson, which takes a twentieth of the time for a page of messages. What it cannot
    write, an integer of more than 64 bits say, DRF's encoder writes."""
    try:
        return orjson.dumps(value, ENCODER.default, orjson.OPT_UTC_Z)
    except TypeError:
        return ENCODER.encode(value).encode()


class JSONRenderer(renderers.JSONRenderer):
    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else json_bytes(data)
