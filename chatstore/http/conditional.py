"""`ETag` and `If-None-Match` (contract 1)."""

from __future__ import annotations

import hashlib

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.http import ConditionalGetMiddleware as DjangoConditionalGetMiddleware
from django.utils.cache import set_response_etag


def tag_of(*state: object) -> str:
    """A strong `ETag` for what is the same as long as all of these are: their `repr` is compared."""
    return f'"{hashlib.blake2b(repr(state).encode(), digest_size=16).hexdigest()}"'


class ConditionalGetMiddleware(DjangoConditionalGetMiddleware):
    """By a hash of the body, and by whether there is a next page, where the view has given no `ETag` itself.

    A page that was the last one keeps its body when a row follows it; a client must then see the `Link`.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if response.has_header("Link") and not response.has_header("ETag") and self.needs_etag(response):
            set_response_etag(response)
            response["ETag"] = f'{response["ETag"][:-1]}-next"'
        return super().process_response(request, response)
