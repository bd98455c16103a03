from __future__ import annotations

from typing import Any

from corsheaders import middleware
from django.http import HttpRequest
from django.utils.cache import patch_vary_headers


class CorsMiddleware(middleware.CorsMiddleware):
    """For browsers. A request without `Origin` is nobody's that asks: its answer only says that others may differ,
    and its headers need not all be spelled out to find that there is none."""

    async_capable = False

    def __call__(self, request: HttpRequest) -> Any:
        if "HTTP_ORIGIN" in request.META or request.method == "OPTIONS":
            return super().__call__(request)
        response: Any = self.get_response(request)
        if self.is_enabled(request):
            patch_vary_headers(response, ("origin",))
        return response
