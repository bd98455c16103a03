from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.http import ConditionalGetMiddleware as DjangoConditionalGetMiddleware
from django.utils.cache import set_response_etag


class ConditionalGetMiddleware(DjangoConditionalGetMiddleware):
    """`ETag` and `If-None-Match` (contract 1), by a hash of the body, and by whether there is a next page.

    A page that was the last one keeps its body when a row follows it; a client must then see the `Link`.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if response.has_header("Link") and self.needs_etag(response):
            set_response_etag(response)
            response["ETag"] = f'{response["ETag"][:-1]}-next"'
        return super().process_response(request, response)
