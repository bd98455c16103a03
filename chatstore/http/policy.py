"""The Content-Security-Policy, of what a browser shows."""

from __future__ import annotations

from csp.middleware import CSPMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase


class PagePolicyMiddleware(CSPMiddleware):
    """django-csp's, but for the API: nothing runs in JSON, and to write a policy takes as long as a query.
    (Its own EXCLUDE_URL_PREFIXES leave the header out, after the policy is written.)"""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        return response if request.path_info.startswith("/api/") else super().process_response(request, response)
