"""No page of the staff tour scans sessions or messages: with 200,000 messages, and with each index dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from accounts.models import User
from conversations import services, usage
from conversations.models import Message, Session
from conversations.seeding import volume
from conversations.tests import plans, tour
from conversations.tests.plans import Asked

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]

MESSAGES, LONG, TODAY = 180_000, 20_000, 20
# What a list's pages are counted up to, and a day's messages in whole ranges of the index of times.
MOST_ROWS = 12_000
# Filters that no index serves look at what is left of one session, 50,000 messages at most.
LOOKED_AT = {"tool calls of a session": LONG, "failures of a session": LONG}
MOST_QUERIES = 12
INDEXES = [
    "message_trace",
    "message_span",
    "message_time",
    "message_position",
    "conversations_message_pkey",
    "conversations_session_pkey",
    "session_of_owner",
    "session_of_workspace",
    "session_trash",
    "conversations_session_session_id_key",
]


@pytest.fixture(scope="module")
def opened(django_db_setup: None, django_db_blocker: Any) -> Iterator[dict[str, Asked]]:
    """Each page of the tour, and what it asked."""
    with django_db_blocker.unblock(), transaction.atomic():
        with connection.cursor() as cursor:
            # New files: earlier tests left room all over the old ones, where nothing would stand in order.
            cursor.execute("TRUNCATE conversations_session CASCADE")
        volume.plant(volume.Volume(seed=7, users=1, sessions=1, messages=LONG), lambda _: None)
        volume.plant(volume.Volume(seed=7, users=500, sessions=8_000, messages=MESSAGES), lambda _: None)
        newest = Session.objects.order_by("-pk")[0]
        services.append(newest, [{"role": "user", "content": "Today"}] * TODAY)
        Session.objects.filter(pk__lt=newest.pk - 7_900).update(deleted_at=newest.created_at)
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # Else no constraint can be dropped.
            cursor.execute("SELECT brin_summarize_new_values('message_time')")
            cursor.execute("ANALYZE")
        usage.roll_up(usage.waiting())
        client = Client()
        client.force_login(User.objects.create_superuser("sam"))
        yield {name: plans.asked(client, path) for name, path in tour.pages().items()}
        transaction.set_rollback(True)


def faults(opened: dict[str, Asked]) -> dict[str, list[str]]:
    """By page, what its queries read too much of."""
    found: dict[str, list[str]] = {}
    for name, page in opened.items():
        for sql in page.big:
            plan = plans.plan_of(sql)
            if tables := plans.scanned(plan):
                found.setdefault(name, []).append(f"scans {sorted(tables)}")
            elif (rows := plans.most_read(plan)) > LOOKED_AT.get(name, MOST_ROWS):
                found.setdefault(name, []).append(f"reads {rows:,.0f} rows: {sql[:2000]}")
    return found


def test_no_page_reads_a_table(opened: dict[str, Asked]) -> None:
    assert faults(opened) == {}


def test_no_page_asks_more_than_twelve_times(opened: dict[str, Asked]) -> None:
    assert {name: page.queries for name, page in opened.items() if page.queries > MOST_QUERIES} == {}


def test_every_kind_of_page_reads_what_is_stored(opened: dict[str, Asked]) -> None:
    """A page that failed early would have asked nothing."""
    nothing = {name for name, page in opened.items() if not page.big}
    assert nothing == {"access log", "paste a sentence"}
    assert Message.objects.count() == MESSAGES + LONG + TODAY


@pytest.mark.parametrize("index", INDEXES)
def test_each_index_is_needed(opened: dict[str, Asked], index: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT conname, conrelid::regclass FROM pg_constraint WHERE conname = %s", [index])
        if constraint := cursor.fetchone():
            cursor.execute(f"ALTER TABLE {constraint[1]} DROP CONSTRAINT {index} CASCADE")
        else:
            cursor.execute(f"DROP INDEX {index}")
        broken = faults(opened)
        transaction.set_rollback(True)
    assert broken
