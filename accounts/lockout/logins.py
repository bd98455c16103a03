"""Who fails to log in to the admin too often has to wait. django-axes counts, these are its callables (AXES_*)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import structlog
from axes.backends import AxesStandaloneBackend
from axes.handlers.cache import AxesCacheHandler
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from redis.exceptions import RedisError
from rest_framework.request import Request

from chatstore.http.throttling import FailureThrottle, network_of

log = structlog.get_logger("chatstore.lockout")


class Backend(AxesStandaloneBackend):
    """Comes before the one that compares passwords, and stops it for whoever has to wait."""

    def authenticate(self, request: HttpRequest | None, **credentials: Any) -> None:
        if request is not None:  # The test client's login() has none. What comes over HTTP always has.
            super().authenticate(request, **credentials)


@contextmanager
def the_cache_may_be_away() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        log.warning("the cache is away", error=type(error).__name__)


class Counter(AxesCacheHandler):
    """Counts in Django's cache. One that is away lets everybody try, as in `chatstore.http.throttling`."""

    def get_failures(self, request: HttpRequest, credentials: Mapping[str, Any] | None = None) -> int:
        with the_cache_may_be_away():
            return int(super().get_failures(request, credentials))
        return 0

    def user_login_failed(self, *args: Any, **kwargs: Any) -> None:
        with the_cache_may_be_away():
            super().user_login_failed(*args, **kwargs)

    def user_logged_in(self, *args: Any, **kwargs: Any) -> None:
        with the_cache_may_be_away():
            super().user_logged_in(*args, **kwargs)


def address_of(request: HttpRequest) -> str:
    """The client's address as the API's throttles know it (NUM_PROXIES); of IPv6 the network."""
    return network_of(FailureThrottle().get_ident(cast(Request, request)) or "")


def locked_out(
    request: HttpRequest, response: HttpResponse | None, credentials: Mapping[str, Any] | None
) -> HttpResponse:
    """The same page whether there is such a user or not."""
    wait = int(settings.AXES_COOLOFF_TIME.total_seconds())
    context = {"title": "Too many failed logins", "minutes": wait // 60}
    headers = {"Retry-After": str(wait), "Cache-Control": "no-store"}
    page = TemplateResponse(request, "admin/accounts/locked_out.html", context, status=429, headers=headers)
    return page.render()
