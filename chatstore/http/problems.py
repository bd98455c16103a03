"""Every error of the API is a problem document (RFC 9457), as contract section 1 lays it down."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any, Literal, cast

import structlog
from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, TooManyFieldsSent
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions

from chatstore.http.logs import described
from chatstore.http.requests import path_of, request_id_of
from chatstore.retries import KeyReused

Where = Literal["body", "query", "path", "header"]

log = structlog.get_logger("chatstore.problem")

RETRY_AFTER_SECONDS = 1
MAX_ERRORS_TOLD = 100


class Invalid(exceptions.ValidationError):
    """A 422: `errors` maps a field's name to its messages, `where` says which part of the request holds it."""

    status_code = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, where: Where, errors: Any, code: str = "validation_error") -> None:
        super().__init__(errors, code=code)
        self.where = where
        self.code = code


class Conflict(exceptions.APIException):
    """A 409: the object is in a state that does not allow this now."""

    status_code = HTTPStatus.CONFLICT
    default_detail = "The object's state does not allow this now."
    default_code = "conflict"


class Refused(exceptions.APIException):
    """A 400: a business rule says no."""

    status_code = HTTPStatus.BAD_REQUEST
    default_code = "refused"


class Unavailable(exceptions.APIException):
    """A 503: something that the answer needs is away for now."""

    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "service_unavailable"
    wait = RETRY_AFTER_SECONDS


def leaves(detail: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Walk DRF's nested error detail down to (path, ErrorDetail) pairs."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            # "" is NON_FIELD_ERRORS_KEY: the place of an object's own errors is the object itself.
            deeper = path if name == "" else (*path, name)
            yield from leaves(inner, deeper)
    elif isinstance(detail, Sequence) and not isinstance(detail, str):
        for index, inner in enumerate(detail):
            yield from leaves(inner, (*path, index) if isinstance(inner, Mapping | list) else path)
    else:
        yield path, detail


def field_errors(error: exceptions.ValidationError) -> list[dict[str, Any]]:
    """The `errors` of a 422: `loc`, `msg` and `type` of each, the first hundred."""
    where = getattr(error, "where", "body")
    return [
        {"loc": list(path), "msg": str(detail), "type": getattr(detail, "code", "invalid")}
        for path, detail in islice(leaves(error.detail, (where,)), MAX_ERRORS_TOLD)
    ]


def sentence(errors: list[dict[str, Any]]) -> str:
    """One readable line for a list of field errors."""
    first = errors[0]
    name = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{name}: {first['msg']}{more}"


def problem(
    request: HttpRequest,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> HttpResponse:
    """A problem document, with further `members` (RFC 9457 section 3.2). JSON in ASCII, so that no text a client
    sent can break the answer."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        "request_id": request_id_of(request),
        **(members or {}),
    }
    if errors is not None:
        body["errors"] = errors
    content = json.dumps(body, separators=(",", ":"))
    return HttpResponse(
        content, status=status, content_type="application/problem+json", headers=dict(headers or {})
    )


def unavailable(request: HttpRequest, error: BaseException) -> HttpResponse:
    """503: the database cannot be reached, or a statement or lock took longer than it may."""
    log.warning("database unavailable", error=described(error.__cause__ or error))
    detail = "The database is not available or too busy; try again."
    return problem(request, 503, "service_unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def exception_handler(error: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """DRF's EXCEPTION_HANDLER. None for what is a bug, which `server_error` answers."""
    request = context["request"]
    if isinstance(error, OperationalError | InterfaceError):
        return unavailable(request, error)
    if isinstance(error, IntegrityError):  # What a row stands on was deleted at the same moment.
        log.error("conflict", error=described(error.__cause__ or error))
        error = Conflict("Something this needs was changed or deleted at the same time.")
    elif isinstance(error, TooManyFieldsSent):
        error = Invalid("query", {"": ["Too many parameters."]})
    elif isinstance(error, UnreadablePostError):  # The client went away; nobody reads this.
        error = Refused("The body did not arrive.", code="incomplete_body")
    elif isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    elif isinstance(error, KeyReused):
        said = "This key was used before, for another request."
        error = Invalid("header", {"Idempotency-Key": [said]}, code="idempotency_key_reused")
    if isinstance(error, exceptions.ValidationError):
        errors = field_errors(error)
        return problem(request, 422, getattr(error, "code", "validation_error"), sentence(errors), errors=errors)
    if isinstance(error, exceptions.APIException):
        said = cast(exceptions.ErrorDetail, error.detail)
        headers, members = headers_of(error), getattr(error, "members", None)
        return problem(request, error.status_code, str(said.code), str(said), headers=headers, members=members)
    return None


def headers_of(error: exceptions.APIException) -> dict[str, str]:
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(math.ceil(wait))
    return headers


def is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith(("/api/", "/auth/")) or request.path_info == "/api"


@csrf_exempt
def api_not_found(request: HttpRequest) -> HttpResponse:
    """Every path from /api on that no route serves."""
    return problem(request, 404, "not_found", "There is no such path.")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_api(request):
        return problem(request, 400, "bad_request", "The request cannot be understood.")
    if isinstance(exception, RequestDataTooBig):
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 2**20
        return HttpResponse(f"More than {most} MB was sent.\n", status=413, content_type="text/plain")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Every refusal of a page is in the log, those of Django's own admin, too. The exception names the action."""
    user: Any = getattr(request, "user", None)  # The API has its own.
    if user and user.is_authenticated:
        log.warning(
            "refused",
            user=str(user.public_id),
            method=request.method,
            path=path_of(request),
            action=str(exception),
        )
    return defaults.permission_denied(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: what is the database's fault is 503, everything else is a bug."""
    error = sys.exc_info()[1]
    if isinstance(error, OperationalError | InterfaceError):
        return unavailable(request, error)
    if is_api(request):
        return problem(request, 500, "internal_error", "The server made an error; it has been logged.")
    return defaults.server_error(request)
