"""What each page of the staff tour and each route of the API reads, with 200,000 messages (PostgreSQL)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from django.db import connection, transaction
from django.test import Client

from accounts.models import User
from conversations import services, usage
from conversations.api import urls as api_urls
from conversations.chat import urls as chat_urls
from conversations.models import Message, Session
from conversations.seeding import volume
from conversations.tests import api_budgets, plans, tour
from conversations.tests.api_budgets import Budget
from conversations.tests.plans import Asked

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]

MESSAGES, LONG, TODAY = 180_000, 20_000, 20
# What a list's pages are counted up to, and a day's messages in whole ranges of the index of times.
MOST_ROWS = 12_000
# Filters that no index serves look at what is left of one session, 50,000 messages at most.
A_SESSION = LONG + api_budgets.ADDED
LOOKED_AT = {"tool calls of a session": A_SESSION, "failures of a session": A_SESSION}
MOST_QUERIES = 12


class World(NamedTuple):
    """What was asked, by page of the staff tour and by use of the API."""

    pages: dict[str, Asked]
    uses: dict[str, Asked]
    budgets: dict[str, Budget]


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with django_db_blocker.unblock(), transaction.atomic():
        plant()
        client = Client()
        client.force_login(User.objects.create_superuser("sam"))
        pages = {name: plans.asked(client, path) for name, path in tour.pages().items()}
        budgets = api_budgets.budgets()
        yield World(pages, {name: plans.asked_by(budget.ask) for name, budget in budgets.items()}, budgets)
        transaction.set_rollback(True)


def plant() -> None:
    with connection.cursor() as cursor:
        # New files: earlier tests left room all over the old ones, where nothing would stand in order.
        cursor.execute("TRUNCATE conversations_session CASCADE")
    volume.plant(volume.Volume(seed=7, users=1, sessions=1, messages=LONG), lambda _: None)
    volume.plant(volume.Volume(seed=7, users=500, sessions=8_000, messages=MESSAGES), lambda _: None)
    newest = Session.objects.order_by("-pk")[0]
    services.append(newest, [{"role": "user", "content": "Today"}] * TODAY)
    oldest = Session.objects.filter(pk__lt=newest.pk - 7_900, last_position__lt=LONG)
    oldest.update(deleted_at=newest.created_at)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # Else no constraint can be dropped.
        cursor.execute("SELECT brin_summarize_new_values('message_time')")
        cursor.execute("ANALYZE")
    usage.roll_up(usage.waiting())


def faults(world: World) -> dict[str, list[str]]:
    """By page and use, what its queries read too much of."""
    found = {name: list(faults_of(page, LOOKED_AT.get(name, MOST_ROWS))) for name, page in world.pages.items()}
    for name, budget in world.budgets.items():
        found[f"{budget.name}: {name}"] = list(faults_of(world.uses[name], budget.rows))
    return {name: said for name, said in found.items() if said}


def faults_of(asked: Asked, most: int) -> Iterator[str]:
    """A prepared statement is asked with its values, and once more without."""
    for sql in asked.big:
        yield from faults_in(plans.plan_of(sql), sql, most)
    for prepared in asked.prepared:
        yield from faults_in(plans.generic_plan_of(prepared), prepared.sql, most)


def faults_in(plan: dict[str, Any], sql: str, most: int) -> Iterator[str]:
    if tables := plans.scanned(plan):
        yield f"scans {sorted(tables)}: {sql[:2000]}"
    elif (rows := plans.most_read(plan)) > most:
        yield f"reads {rows:,.0f} rows, not {most:,}: {sql[:2000]}"


def test_nothing_reads_too_much(world: World) -> None:
    assert faults(world) == {}


def test_no_page_asks_more_than_twelve_times(world: World) -> None:
    assert {name: page.queries for name, page in world.pages.items() if page.queries > MOST_QUERIES} == {}


def test_each_use_asks_as_often_as_declared(world: World) -> None:
    declared = {f"{budget.name}: {name}": budget.queries for name, budget in world.budgets.items()}
    assert {f"{world.budgets[name].name}: {name}": asked.queries for name, asked in world.uses.items()} == declared


def test_every_kind_of_page_reads_what_is_stored(world: World) -> None:
    """A page that failed early would have asked nothing."""
    nothing = {name for name, asked in (world.pages | world.uses).items() if not asked.big}
    assert nothing == {"access log", "a new one", "a new one with a key", "me"}
    assert Message.objects.count() >= MESSAGES + LONG + TODAY


def test_every_route_has_a_budget(world: World) -> None:
    patterns: list[Any] = [*api_urls.urlpatterns, *chat_urls.urlpatterns]
    actions = [(method.upper(), route.name) for route in patterns for method in route.callback.actions]
    named = {f"{method} {route}" for method, route in actions if method != "HEAD"}
    assert named - {budget.name for budget in world.budgets.values()} == set()


def test_each_index_is_needed(world: World) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname FROM pg_indexes WHERE tablename = ANY(%s)", [list(plans.BIG)])
        indexes = [name for (name,) in cursor.fetchall()]
    assert len(indexes) > 10
    needed = {index: sorted(faults_without(world, index)) for index in indexes}
    assert {index for index, names in needed.items() if not names} == set()


def faults_without(world: World, index: str) -> dict[str, list[str]]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT conname, conrelid::regclass FROM pg_constraint WHERE conname = %s", [index])
        if constraint := cursor.fetchone():
            cursor.execute(f"ALTER TABLE {constraint[1]} DROP CONSTRAINT {index} CASCADE")
        else:
            cursor.execute(f"DROP INDEX {index}")
        broken = faults(world)
        transaction.set_rollback(True)
    return broken
