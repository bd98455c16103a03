from __future__ import annotations

from collections.abc import Iterable

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class AlwaysJSON(BaseContentNegotiation):
    """`Accept` is ignored (contract 1): a client that asks for HTML gets JSON, not a 406."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        """The JSON parser, for `application/json` in UTF-8 without a content coding; None makes a 415."""
        media_type, _, parameters = (request.content_type or "").partition(";")
        charset = parameters.strip().lower().replace('"', "").replace(" ", "")
        if media_type.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
            return None
        if request.META.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            return None
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type or "application/json"
