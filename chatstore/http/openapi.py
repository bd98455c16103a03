"""The OpenAPI document, beyond what drf-spectacular reads from the views."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from csp.constants import SELF, UNSAFE_INLINE
from csp.decorators import csp_replace
from django.conf import settings
from django.contrib.staticfiles import finders
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe
from drf_spectacular.contrib.django_filters import DjangoFilterExtension
from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction, OpenApiParameter
from drf_spectacular.views import (
    SpectacularJSONAPIView,
    SpectacularRedocView,
    SpectacularSwaggerSplitView,
)

from chatstore.ids import ROW_ID, UUID_TEXT

SESSION_REF = {"type": "string", "pattern": f"^({ROW_ID.pattern}|{UUID_TEXT.pattern})$"}

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    OpenApiParameter.HEADER,
    description="1 to 255 printable ASCII characters. The same key with the same body gives the same row "
    "again, with `Idempotency-Replayed: true`, however often it is sent.",
)

# Swagger UI and ReDoc style themselves from script; ReDoc searches in a worker.
PAGES_OF_DOCS = {"style-src": [SELF, UNSAFE_INLINE], "worker-src": [SELF, "blob:"]}


class OpenAPIView(SpectacularJSONAPIView):
    """One document: `?version=` chooses nothing, and does not get into a header."""

    api_version = settings.ENVIRONMENT.api_version

    def _get_filename(self, request: Any, version: str) -> str:
        return "openapi.json"


@method_decorator(csp_replace(PAGES_OF_DOCS), name="dispatch")
class SwaggerView(SpectacularSwaggerSplitView):
    """Swagger UI from our own static files."""


@method_decorator(csp_replace(PAGES_OF_DOCS), name="dispatch")
class RedocView(SpectacularRedocView):
    """ReDoc from our own static files; the template leaves out the fonts of others."""

    template_name = "redoc.html"

    @staticmethod
    def _redoc_standalone() -> str:
        return reverse("redoc-script")


@cache
def redoc_script_text() -> str:
    """ReDoc as its package has it, but for the logo that it would fetch from its makers' server."""
    path = finders.find("drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js")
    return Path(str(path)).read_text().replace("https://cdn.redoc.ly/redoc/logo-mini.svg", "data:,")


@require_safe
def redoc_script(request: HttpRequest) -> HttpResponse:
    return HttpResponse(redoc_script_text(), content_type="text/javascript")


BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API token (`cst_...`), made in the admin, by `manage.py createtoken`, "
    "or at `/api/me/tokens/`; an OIDC access token; a session of better-auth, raw or signed; or a "
    "service token (`css_...`), with the user it acts for in `X-On-Behalf-Of`, by public id or as "
    "`issuer|subject`. An installation chooses which.",
}


class BearerToken(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "accounts.authentication.bearer.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return BEARER


class EventCookie(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "accounts.authentication.event_cookie.EventCookieAuthentication"
    name = "event_cookie"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        description = "From `POST /auth/session`; opens the GETs of event streams and nothing else."
        return {"type": "apiKey", "in": "cookie", "name": "chatstore_events", "description": description}


class StrictFilters(DjangoFilterExtension):  # type: ignore[no-untyped-call]
    """What a filter takes is told by the `schema` of its class."""

    target_class = "chatstore.http.parameters.StrictFilterBackend"
    priority = 1

    def resolve_filter_field(
        self, auto_schema: AutoSchema, model: Any, filterset: Any, name: str, field: Any
    ) -> list[dict[str, Any]]:
        resolve: Any = super().resolve_filter_field
        found: list[dict[str, Any]] = resolve(auto_schema, model, filterset, name, field)
        for parameter in found:
            parameter["schema"] |= getattr(field, "schema", {})
        return found


class StrictText(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """What a text must be beyond its length is told by the `schema` of its field's class."""

    target_class = "chatstore.http.fields.StrictCharField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Direction) -> dict[str, Any]:
        mapped = auto_schema._map_serializer_field(self.target, direction, bypass_extensions=True)
        if isinstance(mapped.get("type"), list):
            mapped["type"] = "string"  # That it may be null is added to what is returned.
        return {**mapped, **getattr(self.target, "schema", {})}


class StrictBody(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """A body has no fields but these, and lists of a bounded length."""

    target_class = "chatstore.http.fields.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Direction) -> dict[str, Any]:
        mapped: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        if direction == "request":
            mapped["additionalProperties"] = False
            fields: dict[str, Any] = self.target.fields
            for name, field in fields.items():
                if getattr(field, "many", False) and name in mapped["properties"]:
                    mapped["properties"][name] |= {"minItems": 1, "maxItems": field.max_length}
        return mapped


def event_stream(*types: str) -> dict[str, Any]:
    """The schema of one server-sent event whose data is JSON of one of these types."""
    data = {"type": "object", "required": ["type"], "properties": {"type": {"enum": [*types]}}}
    return {
        "type": "object",
        "description": "One event of the stream.",
        "required": ["data"],
        "properties": {
            "id": {"type": "string"},
            "event": {"type": "string"},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
        },
    }


PROBLEM = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence a person can read."},
        "code": {"type": "string", "description": "Stable, in snake case: for programs."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "With 422: each fault and its place.",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        },
    },
}

MEANINGS = {
    "400": "A rule says no.",
    "401": "The bearer token is missing, malformed, unknown, revoked or expired.",
    "403": "It exists, and you may not.",
    "404": "It does not exist, or is deleted.",
    "409": "Its state does not allow this now.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "422": "Something sent is missing, malformed or unknown; `errors` names it.",
    "429": "Too many requests; `Retry-After` says when to come back.",
    "502": "The assistant failed.",
    "503": "The database is away or too busy; `Retry-After` says when to try again.",
}


NEXT_PAGE = {
    "description": '`<...>; rel="next"` (RFC 8288) where there is a next page.',
    "schema": {"type": "string"},
}


# What a client can count on in the answers of these statuses.
HEADERS = {
    "401": {"WWW-Authenticate": {"required": True, "schema": {"type": "string", "pattern": "^Bearer"}}},
    "429": {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
    "503": {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
}
# Those to which a business rule may say no.
RULED = ("sessions_create", "sessions_restore", "me_tokens_create", "chat", "chat_stream")


def problems_of(method: str, operation: dict[str, Any]) -> set[str]:
    """The statuses that an operation may answer besides its own."""
    statuses = {"401", "403", "404", "422", "429", "503"}
    if method in ("post", "patch"):
        statuses |= {"413", "415"}
    if method in ("post", "patch", "delete"):
        statuses.add("409")
    if operation["operationId"] in RULED:
        statuses.add("400")
    if operation["operationId"] == "chat":
        statuses.add("502")
    return statuses


def add_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """drf-spectacular postprocessing hook: every operation names its errors, a list its `Link`, a read its 304."""
    result["components"]["schemas"]["Problem"] = PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for operations in result["paths"].values():
        for method, operation in operations.items():
            responses = operation["responses"]
            for status in sorted(problems_of(method, operation)):
                responses[status] = {"description": MEANINGS[status], "content": content}
                if status in HEADERS:
                    responses[status]["headers"] = HEADERS[status]
            if method == "get":
                responses["304"] = {"description": "Has not changed since the `ETag` sent as `If-None-Match`."}
            if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ())):
                responses.get("200", responses.get("201"))["headers"] = {"Link": NEXT_PAGE}
    return result
