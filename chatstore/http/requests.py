"""Each request has an id, and leaves one line in the log."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.utils.encoding import escape_uri_path

from chatstore.http.logs import log_statement
from chatstore.ids import new_uuid, uuid_of

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

LONG_WORD = re.compile(r"[A-Za-z0-9_-]{32,}")

log = structlog.get_logger("chatstore.request")


def request_id_of(request: HttpRequest) -> str:
    """The id of this request, as in its `X-Request-ID` (contract 1)."""
    return str(request.META["chatstore.request_id"])


def masked(word: re.Match[str]) -> str:
    """A long word of a path: a session's UUID as it is; what may be a token, not."""
    return word[0] if uuid_of(word[0]) else "[...]"


def path_of(request: HttpRequest) -> str:
    """The path as the log tells it, without a query."""
    return LONG_WORD.sub(masked, escape_uri_path(request.path))


class RequestLogMiddleware:
    """Takes a sane `X-Request-ID` or makes one, returns it, and logs method, path, status and time.

    The query string is left out of the log: it can hold words that people searched for.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = given if SANE_REQUEST_ID.fullmatch(given) else str(new_uuid())
        request.META["chatstore.request_id"] = request_id
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id), statements_logged():
            response = self.get_response(request)
            log.info(
                "request",
                method=request.method,
                path=path_of(request),
                status=response.status_code,
                ms=round((time.perf_counter() - started) * 1000, 1),
            )
        structlog.contextvars.clear_contextvars()  # Who called, which authentication has told.
        response["X-Request-ID"] = request_id
        if request.method == "HEAD" and not response.streaming:
            response.content = b""  # Its length has been told; gunicorn warns of a body.
        return response


def statements_logged() -> contextlib.AbstractContextManager[None]:
    if settings.ENVIRONMENT.log_sql:
        return connection.execute_wrapper(log_statement)
    return contextlib.nullcontext()
