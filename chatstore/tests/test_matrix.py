"""Who may do what: every route that Django resolves x method x thing x principal (contract 1, 2, 6).

The routes come from the resolver, not from the OpenAPI file, so that one that nobody documented is seen too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, path
from django.urls.resolvers import RegexPattern

from chatstore.tests import matrix_world
from chatstore.tests.matrix_cells import CELLS, GROUPS, Cell, answer_to, disagreements
from chatstore.tests.matrix_principals import PRINCIPALS
from chatstore.tests.matrix_table import MATRIX
from chatstore.tests.matrix_world import World, changed


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with django_db_blocker.unblock(), matrix_world.made() as made:
        yield made


@pytest.mark.parametrize("cells", GROUPS.values(), ids=GROUPS)
@pytest.mark.postgres
@pytest.mark.django_db
def test_the_matrix(world: World, cells: list[Cell]) -> None:
    assert disagreements(world, cells) == []


def test_there_are_as_many_cells_as_promised() -> None:
    assert len(PRINCIPALS) >= 14
    assert len(CELLS) >= 3000


def is_done_already(cell: Cell) -> bool:
    """Dora is deactivated, the token revoked, a live session needs no restoring; the cookie is no row."""
    restored = cell.route.name.endswith("restore") and cell.kind != "deleted"
    return restored or cell.kind in ("dora", "revoked") or cell.route.name == "auth/session"


ALLOWED_WRITES = [
    pytest.param(cell, id=str(cell).replace(" ", "-"))
    for cell in CELLS
    if cell.who in ("alice", "service-read-write", "sam") and cell.status < 300 and cell.method != "GET"
    if not is_done_already(cell)
]


@pytest.mark.parametrize("cell", ALLOWED_WRITES)
@pytest.mark.django_db
def test_an_allowed_write_is_seen_in_the_rows(world: World, cell: Cell) -> None:
    """The premise of the matrix: a write that went through would have been noticed."""
    assert answer_to(world, cell).status_code == cell.status
    assert changed(world) != []


def spelled(route: str) -> str:
    """A resolver's route as the contract spells it: ^sessions/(?P<ref>[^/]+)/?$ is sessions/{ref}."""
    return re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", route).replace("/?", "").replace("^", "").replace("$", "")


def routes(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    """Every route but the admin's."""
    for pattern in resolver.url_patterns:
        route = prefix + spelled(str(pattern.pattern))
        if isinstance(pattern, URLPattern):
            yield route
        elif pattern.app_name != "admin":
            yield from routes(pattern, route)


def listed() -> set[str]:
    return {route.name for route in MATRIX}


def unlisted(resolver: URLResolver) -> set[str]:
    return set(routes(resolver)) - listed()


def test_every_route_has_its_entry() -> None:
    assert set(routes(get_resolver())) == listed()


def secrets(request: HttpRequest) -> HttpResponse:
    return HttpResponse("everything")


@pytest.mark.parametrize("route", ["api/secrets", "debug/secrets", "secrets"])
def test_a_new_route_would_be_noticed(route: str) -> None:
    extended = URLResolver(RegexPattern(r"^/"), [path(route, secrets), *get_resolver().url_patterns])
    assert unlisted(get_resolver()) == set()
    assert unlisted(extended) == {route}


@pytest.mark.django_db
def test_the_walk_sees_what_the_client_reaches(world: World) -> None:
    """A guard on `routes`: it goes down into what the project includes, and finds more than the top."""
    assert "api/sessions/{ref}/restore" in set(routes(get_resolver()))
    assert Client().get("/api/sessions/1/restore/").status_code == 401
