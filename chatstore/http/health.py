"""Is the service up, and can it reach its database? (contract 7)"""

from __future__ import annotations

from django.conf import settings
from django.db import Error, connection
from django.http import HttpRequest, HttpResponsePermanentRedirect, JsonResponse
from django.middleware.common import CommonMiddleware
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from chatstore.http.problems import RETRY_AFTER_SECONDS


class HostCheckMiddleware(CommonMiddleware):
    """Django's CommonMiddleware, but whoever asks for our health may call us by any name: a supervisor knows
    only an address, and ALLOWED_HOSTS does not hold it."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info.startswith("/health") else super().process_request(request)


def database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        return False
    return True


@require_safe
@never_cache
def health(request: HttpRequest) -> JsonResponse:
    """200 while the database answers, 503 otherwise. Tells no error text."""
    connected = database_answers()
    body = {
        "status": "healthy" if connected else "unhealthy",
        "service": settings.ENVIRONMENT.service_name,
        "env": settings.ENVIRONMENT.env,
        "debug": settings.DEBUG,
        "database": "connected" if connected else "unavailable",
    }
    if connected:
        return JsonResponse(body)
    return JsonResponse(body, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


@require_safe
@never_cache
def live(request: HttpRequest) -> JsonResponse:
    """200 while this process answers at all; asks no database."""
    return JsonResponse({"status": "alive"})
