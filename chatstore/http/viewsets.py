"""What every viewset of the API does before and after its own work (contract 1, order of checks)."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework.exceptions import AuthenticationFailed, MethodNotAllowed, NotAuthenticated, Throttled
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from chatstore.http.bodies import check_body
from chatstore.http.pagination import PAGE_PARAMETERS
from chatstore.http.parameters import StrictFilterBackend, check_query
from chatstore.http.throttling import FailureThrottle


class StrictViewSet(GenericViewSet[Any]):
    """401, then 405, then 413 and 415; the view looks its objects up (404, 403) and then calls `check_query`
    and validates the body (422)."""

    http_method_names = ["get", "head", "post", "patch", "delete"]
    lookup_url_kwarg = "ref"
    lookup_value_regex = "[^/]+"
    filter_backends = (StrictFilterBackend,)
    # Parameters that name an object and are looked up by the view itself.
    object_parameters: tuple[str, ...] = ()

    def perform_authentication(self, request: Request) -> None:
        """401 for a bad token; 429 where too many came from its address."""
        try:
            super().perform_authentication(request)
        except AuthenticationFailed:
            throttle = FailureThrottle()
            if not throttle.allow_request(request, self):
                raise Throttled(throttle.wait()) from None
            raise

    def check_permissions(self, request: Request) -> None:
        """Who is calling comes first, what they may do last."""
        if request.user is None:
            raise NotAuthenticated
        if self.action in (None, "metadata"):
            raise MethodNotAllowed(request.method or "")
        if request.method in ("POST", "PATCH"):
            check_body(request, self.body_limit())
        super().check_permissions(request)

    def body_limit(self) -> int:
        """The largest body of this route, in bytes."""
        return int(settings.MAX_BODY_BYTES)

    def check_query(self) -> None:
        """422 for a query parameter that this route does not take."""
        known = set() if self.detail else set(self.object_parameters)
        if self.action == "list":
            filterset = getattr(self, "filterset_class", None)
            known |= {*PAGE_PARAMETERS, *(filterset.base_filters if filterset else ())}
        check_query(self.request.query_params, known)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Response:
        """People's conversations: a shared cache keeps nothing, a browser asks each time (with its ETag)."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "private, no-cache")
        return response
