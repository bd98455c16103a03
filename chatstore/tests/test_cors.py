"""Browsers of other origins (contract 1, CORS)."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django import Settings

from chatstore.checks import refuse_errors
from conftest import Caller

ORIGIN = "http://localhost:5173"
ALLOWED = [
    *("authorization", "content-type", "idempotency-key", "x-request-id", "x-on-behalf-of"),
    *("x-timezone", "last-event-id", "if-none-match"),
]
EXPOSED = ["Link", "X-Request-ID", "Idempotency-Replayed", "ETag", "Retry-After", "Search-Partial"]


def preflight(method: str = "POST", headers: str = "authorization", origin: str = ORIGIN) -> Any:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return Client().options("/api/sessions/", headers=asked)


def test_it_works(alice: Caller) -> None:
    answer = alice.get("/api/sessions/", Origin=ORIGIN)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)


def test_a_preflight_needs_no_token() -> None:
    answer = preflight()
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_header_is_allowed(name: str) -> None:
    allowed = preflight(headers=name).headers["Access-Control-Allow-Headers"]
    assert name in [header.strip().lower() for header in allowed.split(",")]


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_a_method_is_allowed(method: str) -> None:
    assert method in preflight(method).headers["Access-Control-Allow-Methods"].split(", ")


@pytest.mark.parametrize("name", EXPOSED)
def test_a_header_is_exposed(alice: Caller, name: str) -> None:
    exposed = alice.get("/api/sessions/", Origin=ORIGIN).headers["Access-Control-Expose-Headers"]
    assert name in exposed.split(", ")


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "https://localhost:5173", "http://localhost:5173.evil.example", "null", "*"],
)
def test_another_origin_is_not_allowed(alice: Caller, origin: str) -> None:
    assert "Access-Control-Allow-Origin" not in preflight(origin=origin).headers
    assert "Access-Control-Allow-Origin" not in alice.get("/api/sessions/", Origin=origin).headers


@pytest.mark.parametrize(("path", "status"), [("/api/sessions/1/", 404), ("/api/nonsense", 404), ("/health", 200)])
def test_errors_and_health_can_be_read_too(alice: Caller, path: str, status: int) -> None:
    answer = alice.get(path, Origin=ORIGIN)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, ORIGIN)


def test_a_401_can_be_read_too(nobody: Caller) -> None:
    assert nobody.get("/api/sessions/", Origin=ORIGIN).headers["Access-Control-Allow-Origin"] == ORIGIN


def test_caches_keep_origins_apart(alice: Caller) -> None:
    assert "origin" in alice.get("/api/sessions/").headers["Vary"].lower()


@pytest.mark.parametrize("path", ["/admin/login/", "/"])
def test_pages_for_people_are_not_shared(db: None, path: str) -> None:
    assert "Access-Control-Allow-Origin" not in Client().get(path, headers={"Origin": ORIGIN}).headers


def test_no_cookie_is_asked_for() -> None:
    assert "Access-Control-Allow-Credentials" not in preflight().headers


def test_a_wildcard_with_credentials_is_refused_at_start(settings: Settings) -> None:
    settings.CORS_ALLOW_ALL_ORIGINS = True
    refuse_errors()
    settings.CORS_ALLOW_CREDENTIALS = True
    with pytest.raises(ImproperlyConfigured, match="CORS"):
        refuse_errors()
