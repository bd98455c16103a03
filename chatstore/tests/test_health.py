"""The service's own routes: health, and the pages of documentation (contract 7)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from django.test import Client
from pytest_django import Settings

from chatstore.tests.serving import fetch, free_port, serving
from conftest import Caller

HEALTHY = {
    "status": "healthy",
    "service": "chatstore",
    "env": "development",
    "debug": False,
    "database": "connected",
}


@pytest.mark.parametrize("path", ["/health", "/health/"])
def test_it_works(db: None, path: str) -> None:
    answer = Client().get(path)
    assert (answer.status_code, answer.json()) == (200, HEALTHY)
    assert "no-store" in answer.headers["Cache-Control"]


def test_the_service_has_a_name(db: None, settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"service_name": "archive", "env": "staging"})
    assert Client().get("/health").json() == HEALTHY | {"service": "archive", "env": "staging"}


@pytest.mark.parametrize("path", ["/health/live", "/health/live/"])
def test_being_alive_needs_no_database(path: str) -> None:
    """Without the `db` fixture any query is an error."""
    assert Client().get(path).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live"])
def test_head_is_answered(db: None, path: str) -> None:
    assert Client().head(path).status_code == 200


# While the database is away


@pytest.fixture(scope="module")
def without_database() -> Iterator[int]:
    with serving(f"postgresql://nobody:hunter2@127.0.0.1:{free_port()}/none") as port:
        yield port


def test_health_is_503(without_database: int) -> None:
    started = time.monotonic()
    answer, body = fetch(without_database, "GET", "/health")
    assert time.monotonic() - started < 2
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert json.loads(body) == HEALTHY | {"status": "unhealthy", "database": "unavailable"}


def test_it_is_alive(without_database: int) -> None:
    answer, _ = fetch(without_database, "GET", "/health/live")
    assert answer.status == 200


@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_the_api_answers_503_within_two_seconds(without_database: int, verb: str) -> None:
    started = time.monotonic()
    answer, body = fetch(without_database, verb, "/api/sessions/", Authorization="Bearer cst_" + "A" * 43)
    assert time.monotonic() - started < 2
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["code"] == "service_unavailable"
    assert b"hunter2" not in body


def test_without_a_token_it_is_401_all_the_same(without_database: int) -> None:
    answer, _ = fetch(without_database, "GET", "/api/sessions/")
    assert answer.status == 401


# Open to everybody


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/health", "/health/live"])
def test_no_token_is_needed(db: None, path: str) -> None:
    assert Client().get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
def test_no_page_loads_anything_from_elsewhere(db: None, path: str) -> None:
    page = Client().get(path).content.decode()
    loaded = re.findall(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']?([^"'\s>]+)""", page)
    assert loaded
    assert [source for source in loaded if source.startswith(("http:", "https:", "//"))] == []


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_what_a_page_loads_is_there(db: None, path: str) -> None:
    page = Client().get(path).content.decode()
    sources = re.findall(r"""<(?:script|link)\b[^>]*?(?:src|href)=["']?(/[^"'\s>]+)""", page)
    assert sources
    assert {source: status_of(source) for source in sources} == dict.fromkeys(sources, 200)


def status_of(path: str) -> int:
    with closing(Client().get(path)) as answer:
        return answer.status_code


def test_the_description_names_the_routes_as_they_are_written(db: None) -> None:
    paths = Client().get("/openapi.json").json()["paths"]
    assert {"/api/sessions/", "/api/messages/", "/api/me/", "/api/users/"} <= set(paths)


def test_a_caller_may_send_a_token_anyway(alice: Caller) -> None:
    assert alice.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live"])
def test_a_supervisor_knows_only_an_address(db: None, path: str) -> None:
    assert Client().get(path, headers={"Host": "10.0.0.7:8000"}).status_code == 200
    assert Client().get("/api/me", headers={"Host": "10.0.0.7:8000"}).status_code == 400


@pytest.mark.parametrize("query", ["version=%00", "version=a%0d%0ab", "lang=%00"])
def test_no_parameter_breaks_the_description(db: None, query: str) -> None:
    answer = Client().get(f"/openapi.json?{query}")
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == 'inline; filename="openapi.json"'
