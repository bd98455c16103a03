"""What PostgreSQL reads for the lists of sessions and messages: a range of an index, never the table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from django.db import connection, transaction
from django.test import Client

from accounts.models import User, Workspace
from conversations.models import Message, Session
from conversations.staff import filters
from conversations.tests import plans
from conversations.tests.colleagues import holding
from conversations.tests.tour import MESSAGES, SESSIONS

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]

START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS, A_DAY, LONG = 40, 2500, 4000
NEWEST = 500
# Some pages more than the day: the index knows ranges of 32.
OF_A_DAY = 8000
SAY = f"""
INSERT INTO conversations_message
    (session_id, position, role, content, tool_name, trace_id, tokens, status, version, created_at, updated_at,
     deleted_at, idempotency_index)
SELECT keys[1 + n %% cardinality(keys)], 1 + n / cardinality(keys),
    CASE n %% 3 WHEN 0 THEN 'user' ELSE 'tool_call' END, repeat('x', 80),
    CASE n %% 3 WHEN 0 THEN NULL ELSE 'grep' END, 'trace-' || n / 10, 1,
    CASE WHEN n %% 997 = 0 THEN 'failed' ELSE 'complete' END, 1 + n / cardinality(keys), said, said,
    CASE WHEN n %% 499 = 0 THEN said END, 0
FROM (SELECT n, %s::timestamptz + n * interval '1 day' / {A_DAY} AS said, %s::bigint[] AS keys
    FROM generate_series(0, %s - 1) AS n) AS said
"""


class World(NamedTuple):
    """100,000 messages in 40 days, one session of 4,000 among them, and 4,000 sessions in two workspaces."""

    names: dict[str, Any]


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with django_db_blocker.unblock(), transaction.atomic():
        with connection.cursor() as cursor:
            # New files: earlier tests left room all over the old ones, where nothing would stand in order.
            cursor.execute("TRUNCATE conversations_session CASCADE")
        yield World(made())
        transaction.set_rollback(True)


def made() -> dict[str, Any]:
    rare, frequent = User.objects.create_user("rare"), User.objects.create_user("frequent")
    crowded, small = Workspace.objects.create(name="Crowded"), Workspace.objects.create(name="Small")
    sessions = Session.objects.bulk_create(
        Session(
            owner=owner, owner_public_id=owner.public_id, workspace=crowded if n % 10 else small,
            agent="support" if n % 2 else "analyst", last_activity=at, created_at=at, updated_at=at,
            deleted_at=at if n % 50 == 7 else None, last_position=LONG if n == 0 else 100,
        )
        for n in range(4000)
        for owner, at in [(frequent if n % 4 else rare, START + timedelta(days=DAYS) * n / 4000)]
    )  # fmt: skip
    keys = [session.pk for session in sessions]
    total = DAYS * A_DAY
    with connection.cursor() as cursor:
        cursor.execute(SAY, [START, keys[1:], total - LONG])
        cursor.execute(SAY, [START + timedelta(days=(total - LONG) / A_DAY), keys[:1], LONG])
        cursor.execute("SELECT brin_summarize_new_values('message_time')")
        # Of a table this small the planner may read all; what is asked is which index serves, and how far.
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("ANALYZE conversations_session, conversations_message, accounts_user")
    return {
        "crowded": crowded.public_id,
        "small": small.public_id,
        "long": keys[0],
        "session": keys[17],
        "uuid": sessions[17].session_id,
        "owner": rare.public_id,
        "day": (START + timedelta(days=20)).date(),
        "last": (START + timedelta(days=DAYS - 1)).date(),
    }


@pytest.fixture
def viewer(world: World, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Staff who may view sessions and messages. As many are looked at as fits this size: the newest 500."""
    monkeypatch.setattr(filters, "NEWEST", NEWEST)
    monkeypatch.setattr("chatstore.bounded_admin.BOUND", 300)
    return holding("view_session", "view_message")


def reads(client: Client, path: str) -> list[dict[str, Any]]:
    """The plans of what a page asks of sessions and messages."""
    page = plans.asked(client, path)
    assert page.queries <= 12
    assert page.big
    return [plans.plan_of(sql) for sql in page.big]


def most_read(client: Client, path: str) -> float:
    """The most rows of a table that one query of the page reads; without end where it scans the table."""
    found = reads(client, path)
    return math.inf if any(map(plans.scanned, found)) else max(map(plans.most_read, found))


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?p=2",
        "?deleted=yes",
        "?workspace={crowded}",
        "?workspace={crowded}&agent=nobody",
        "?workspace={crowded}&agent=support",
        "?workspace={crowded}&deleted=yes",
        "?workspace={crowded}&deleted=no",
        "?workspace={crowded}&day={day}",
        "?workspace={crowded}&day={day}&agent=nobody",
        "?q=frequent",
        "?q=frequent&agent=nobody",
        "?q=frequent&day={day}",
        "?q=frequent&deleted=yes",
        "?q=rare&workspace={crowded}",
        "?q={uuid}&workspace={crowded}&deleted=yes",
    ],
)
def test_a_list_of_sessions_reads_no_more_than_the_newest(viewer: Client, world: World, query: str) -> None:
    assert most_read(viewer, SESSIONS + query.format(**world.names)) <= NEWEST + 1


@pytest.mark.parametrize(
    ("query", "most"),
    [
        ("", 301),
        ("?p=2", 301),
        ("?session={session}", 301),
        ("?session={long}", 301),
        ("?session={long}&role=system", NEWEST),
        ("?session={long}&tool=nothing", NEWEST),
        ("?session={long}&status=interrupted", NEWEST),
        ("?session={long}&deleted=yes", NEWEST),
        ("?session={long}&day={last}", NEWEST),
        ("?session={long}&day={day}&agent=nobody", NEWEST),
        ("?q=trace-17", 301),
        ("?q=trace-17&role=system", 301),
        ("?q=trace-17&day={day}&workspace={crowded}", 301),
        ("?q={uuid}&agent=nobody", 301),
        ("?day=2024-01-01", 0),
        ("?day={day}", OF_A_DAY),
        ("?day={day}&role=system", OF_A_DAY),
        ("?day={day}&tool=nothing", OF_A_DAY),
        ("?day={day}&status=failed", OF_A_DAY),
        ("?day={day}&deleted=yes", OF_A_DAY),
        ("?day={day}&workspace={crowded}", OF_A_DAY),
        ("?day={day}&agent=nobody", OF_A_DAY),
        ("?day={day}&agent=support&workspace={crowded}&tool=grep&status=failed&deleted=no", OF_A_DAY),
        ("?day={last}&tool=nothing", OF_A_DAY),
    ],
)
def test_a_list_of_messages_reads_a_session_or_a_day(viewer: Client, world: World, query: str, most: int) -> None:
    assert most_read(viewer, MESSAGES + query.format(**world.names)) <= most


@pytest.mark.parametrize("query", ["?day={day}", "?day={day}&tool=nothing", "?day={day}&agent=nobody"])
def test_a_day_is_read_by_its_index(viewer: Client, world: World, query: str) -> None:
    for plan in reads(viewer, MESSAGES + query.format(**world.names)):
        assert "message_time" in {node.get("Index Name") for node in plans.nodes(plan)}


def test_a_workspace_within_a_search_reads_what_the_search_found(viewer: Client, world: World) -> None:
    """The newest are those of the owner; of the workspace there may be any number among them."""
    for plan in reads(viewer, f"{SESSIONS}?q=frequent&workspace={world.names['small']}"):
        assert "session_of_owner" in {node.get("Index Name") for node in plans.nodes(plan)}


@pytest.mark.parametrize(
    ("index", "path"),
    [
        ("message_time", f"{MESSAGES}?day={{day}}&tool=nothing"),
        ("session_of_workspace", f"{SESSIONS}?workspace={{crowded}}&agent=nobody"),
        ("session_of_owner", f"{SESSIONS}?q=frequent&agent=nobody"),
        ("session_trash", f"{SESSIONS}?deleted=yes"),
    ],
)
def test_without_its_index_a_list_reads_too_much(viewer: Client, world: World, index: str, path: str) -> None:
    """So that the tests above can fail."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {index}")
    most = OF_A_DAY if index == "message_time" else NEWEST + 1
    assert most_read(viewer, path.format(**world.names)) > most


def test_the_rows_are_there(world: World) -> None:
    assert Message.objects.count() == DAYS * A_DAY
    assert Message.objects.filter(session=world.names["long"]).count() == LONG
