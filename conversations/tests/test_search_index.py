"""The command that makes the index of words, the check that misses it, and the plans on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from accounts.models import User
from conversations import search
from conversations.models import Message, Session
from conversations.search_index import INDEX, is_built
from conversations.seeding import volume
from conversations.tests import plans, search_index


def warnings() -> list[str]:
    return [found.msg for found in run_checks(tags=["chatstore"]) if found.id == "chatstore.W003"]


@pytest.fixture
def dropped_afterwards(transactional_db: None) -> Iterator[None]:
    yield
    call_command("searchindex", "--drop")


@pytest.mark.postgres
def test_the_command_makes_the_index_once_and_drops_it(dropped_afterwards: None, settings: Settings) -> None:
    search_index.switch_on(settings)
    assert "is not there" in warnings()[0]
    call_command("searchindex")
    call_command("searchindex")
    assert is_built()
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE oid = to_regclass(%s)", [INDEX])
        assert cursor.fetchone() == (["gin_pending_list_limit=256"],)
    assert warnings() == []
    call_command("migrate", verbosity=0)
    assert is_built()
    call_command("searchindex", "--drop")
    call_command("searchindex", "--drop")
    assert not is_built()


@pytest.mark.postgres
def test_what_is_left_of_a_cancelled_one_is_made_again(dropped_afterwards: None, settings: Settings) -> None:
    search_index.switch_on(settings)
    call_command("searchindex")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)", [INDEX])
    assert len(warnings()) == 1
    call_command("searchindex")
    assert is_built()


@pytest.mark.django_db
def test_sqlite_has_no_such_index(settings: Settings) -> None:
    assert warnings() == []
    if connection.vendor == "sqlite":
        search_index.switch_on(settings)
        assert warnings() == ["SEARCH_INDEX does nothing on SQLite."]
        with pytest.raises(CommandError):
            call_command("searchindex")


# Plans

MESSAGES = 200_000
MOST_ROWS = 12_000


@pytest.fixture(scope="module")
def busiest(django_db_setup: None, django_db_blocker: Any) -> Iterator[User]:
    """One of 50 people with 200,000 messages, one of whose says what nobody else does."""
    with django_db_blocker.unblock(), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE conversations_session CASCADE")
        volume.plant(volume.Volume(seed=7, users=50, sessions=4_000, messages=MESSAGES), lambda _: None)
        session = Session.objects.order_by("-pk")[100]
        Message.objects.filter(session=session, position=1).update(content="An unheard-of needle")
        search_index.make()
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        yield session.owner
        transaction.set_rollback(True)


def statements(owner: User) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        found = search.find(Message.objects.filter(deleted_at=None), of(owner), ["needle"], limit=21)
    assert len(found.keys) == 1
    return [query["sql"] for query in captured.captured_queries if plans.reads_big(query["sql"])]


def of(owner: User) -> Any:
    return Session.objects.owned_by(owner).live()


def read(owner: User) -> float:
    return max(plans.most_read(plans.plan_of(sql)) for sql in statements(owner))


@pytest.mark.postgres
@pytest.mark.parametrize("is_on", [False, True])
def test_a_search_reads_ones_own_alone(busiest: User, settings: Settings, is_on: bool) -> None:
    if is_on:
        search_index.switch_on(settings)
    assert all(plans.scanned(plans.plan_of(sql)) == set() for sql in statements(busiest))
    assert read(busiest) <= (100 if is_on else MOST_ROWS)


@pytest.mark.postgres
@pytest.mark.parametrize(("is_on", "index"), [(False, "message_position"), (True, INDEX)])
def test_each_index_is_needed(busiest: User, settings: Settings, is_on: bool, index: str) -> None:
    if is_on:
        search_index.switch_on(settings)
    asked = statements(busiest)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL statement_timeout = 0")
        if index == INDEX:
            cursor.execute(f"DROP INDEX {index}")
        else:
            cursor.execute(f"ALTER TABLE conversations_message DROP CONSTRAINT {index} CASCADE")
            cursor.execute("DROP INDEX message_version")
        most = max(plans.most_read(plans.plan_of(sql)) for sql in asked)
        transaction.set_rollback(True)
    assert most > (100 if is_on else MOST_ROWS)
