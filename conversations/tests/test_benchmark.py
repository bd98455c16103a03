"""What `make bench` compares must be comparable: the product and the peer give the same answers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.db import connection
from pytest_django.live_server_helper import LiveServer

from benchmarks import data, statements
from benchmarks.api import PEER, options_of, peer
from benchmarks.operations import Target, differences, effects, requests_of
from conversations.models import Message
from conversations.seeding import volume

LONG = 400

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def plan() -> dict[str, Any]:
    """As `make bench` makes it, on a small store."""
    volume.plant(volume.Volume(1, users=4, sessions=480, messages=2_400), lambda count: None)
    data.plant_long_sessions(LONG)
    return data.plan(LONG)


@pytest.fixture
def url() -> str:
    """Of the database that the tests are on."""
    connection.ensure_connection()
    found = connection.connection.info
    password = f":{quote(found.password)}" if found.password else ""
    where = urlencode({"host": found.host, "port": found.port})
    return f"postgresql://{quote(found.user)}{password}@/{found.dbname}?{where}"


@pytest.fixture
def targets(plan: dict[str, Any], url: str, live_server: LiveServer, tmp_path: Path) -> Iterator[list[Target]]:
    sql = tmp_path / "sql.json"
    sql.write_text(json.dumps(plan["sql"]))
    options = options_of([])
    with peer("peer", url, tmp_path, options) as orm, peer("peer, our SQL", url, tmp_path, options, sql) as ours:
        yield [Target("product", live_server.url, 0), orm, ours]


@pytest.mark.skipif(not PEER.exists(), reason="the peer is not installed: make bench installs it")
def test_the_peer_answers_as_the_product_does(plan: dict[str, Any], targets: list[Target]) -> None:
    for operation, requests in plan["requests"].items():
        asked = [requests_of(target, operation, requests) for target in targets[:2]]
        assert not list(differences(operation, [*asked, asked[1]], targets))
    first, second = plan["requests"]["append"][0], plan["requests"]["create"][-1]
    for target in targets:
        assert not list(effects(target, plan["requests"]["append"]))
        assert target.ask(first | {"token": second["token"]})[0] == HTTPStatus.FORBIDDEN
        assert target.ask(first | {"token": "cst_" + "x" * 43})[0] == HTTPStatus.UNAUTHORIZED
        assert target.ask(first | {"path": "/api/sessions/999999/messages/"})[0] == HTTPStatus.NOT_FOUND


def test_the_sql_that_was_seen_returns_what_the_product_returns(plan: dict[str, Any], url: str) -> None:
    """Its parameters by name, and each operation's last statement has the rows of a full page."""
    link = statements.Prepared(url)
    stored = Message.objects.count()
    try:
        rows = {
            operation: link.timed(seen, plan["requests"][operation][-1]["given"])[1]
            for operation, seen in plan["sql"].items()
        }
    finally:
        link.close()
    traced = rows.pop("trace")
    assert 3 <= traced <= 6
    assert rows == {"list": 51, "get": 1, "page": 101, "last page": 100, "append": 1, "create": 1}
    assert Message.objects.count() == stored


def test_two_requests_name_what_differs_between_them() -> None:
    known = [{"session": 1, "2.version": 5}, {"session": 2, "2.version": 7}]
    assert data.parameter_of((1, 2), known) == {"type": "int", "name": "session"}
    assert data.parameter_of((5, 7), known) == {"type": "int", "name": "2.version"}
    assert data.parameter_of(("user", "user"), known) == {"type": "str", "value": "user"}
    with pytest.raises(SystemExit):
        data.parameter_of((random.randint(100, 200), 300), known)
