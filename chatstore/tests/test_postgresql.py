"""Our PostgreSQL backend: connections that have died, statements that are planned once."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import OperationalError, connection

from chatstore.postgresql.base import BoundCursor, BoundedConnection, PreparedCursor
from conftest import Caller
from conversations.api import queries
from conversations.models import Session

pytestmark = pytest.mark.postgres


def cursors_of(caller: Caller, path: str) -> list[type[Any]]:
    """What has sent the statements of a request, the token's first."""
    found: list[type[Any]] = []

    def watch(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        found.append(type(context["cursor"].cursor))
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(watch):
        assert caller.get(path).status_code == 200
    return found


@pytest.mark.django_db
def test_hot_statements_are_planned_once(alice: Caller, session: Session) -> None:
    assert cursors_of(alice, f"/api/sessions/{session.pk}/") == [PreparedCursor, PreparedCursor]
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        planned = [statement for (statement,) in cursor.fetchall()]
    first, *others = queries.BY_ID.compiled.sql.split("%s")
    hot = first + "".join(f"${number}{text}" for number, text in enumerate(others, start=1))
    assert f"{hot} LIMIT 1" in planned


@pytest.mark.django_db
def test_what_depends_on_its_values_is_not(alice: Caller) -> None:
    assert cursors_of(alice, "/api/sessions/") == [PreparedCursor, BoundCursor]
    token, filtered = cursors_of(alice, "/api/sessions/?title=e")
    assert token is PreparedCursor
    assert not issubclass(filtered, BoundCursor)


@pytest.mark.django_db
def test_behind_a_pooler_nothing_is(alice: Caller, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    assert cursors_of(alice, f"/api/sessions/{session.pk}/") == [BoundCursor, BoundCursor]


@pytest.mark.django_db(transaction=True)
def test_a_column_that_becomes_wider_meanwhile_is_no_error(alice: Caller) -> None:
    """A plan made before would give the old type, and PostgreSQL refuses it."""
    assert alice.get("/api/me/").status_code == 200
    try:
        for width in (300, 255):
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER TABLE accounts_user ALTER name TYPE varchar({width})")
            assert [alice.get("/api/me/").status_code for _ in range(2)] == [200, 200]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE accounts_user ALTER name TYPE varchar(255)")


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_has_died_in_the_pool_is_replaced(alice: Caller) -> None:
    assert alice.get("/api/me/").status_code == 200
    connection.close()  # Into the pool.
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        cursor.execute("SELECT pg_backend_pid()")
    connection.close()
    time.sleep(0.2)
    assert [alice.get("/api/me/").status_code for _ in range(8)] == [200] * 8


@pytest.mark.django_db(transaction=True)
def test_a_server_that_does_not_answer_is_given_up(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedConnection, "longest", 0.2)
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(5)")
    monkeypatch.undo()
    connection.close()
    assert alice.get("/api/me/").status_code == 200


def test_nobody_has_said_how_long() -> None:
    """Commands wait as long as it takes."""
    assert BoundedConnection.longest is None
