"""GET /api/usage/ is exact, whatever happens to the messages and however far they are counted."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta
from io import BytesIO
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts.models import User, Workspace
from conftest import Caller, caller, new_message, new_session
from conversations import erasure, retention, services, usage
from conversations.models import Message, Session, Usage, UsageMark, UsageState
from conversations.seeding import volume
from conversations.tests import turns
from conversations.tests.seeds import emptied
from conversations.tests.used import DAY, ago, asked, check, rollup, said, today
from conversations.transfer import reading, writing
from conversations.transfer.report import Report


@pytest.fixture
def history(alice: Caller, bob: Caller, session: Session) -> list[Message]:
    """What alice (twice) and bob said on most of the last ten days; nothing is rolled up."""
    places = (session, new_session(alice, agent="writer"), new_session(bob, session.workspace, agent="support"))
    messages = [
        said(place, ago(days), role=role, tokens=days + number)
        for days in (9, 8, 7, 5, 2, 1, 0)
        for number, place in enumerate(places[: 1 + days % 3])
        for role in ("user", "tool_call", "tool_call", "assistant")
    ]
    for message, status in zip(messages, ("failed", "interrupted") * 3, strict=False):
        Message.objects.filter(pk=message.pk).update(status=status)
    assert {message.session.owner_id for message in messages} == {alice.user.pk, bob.user.pk}
    return messages


# Exactness


def test_it_works(alice: Caller, session: Session) -> None:
    new_message(session, tokens=5)
    new_message(session, role="assistant", tokens=7)
    body = alice.get("/api/usage/").json()
    as_of = body.pop("as_of")
    assert as_of.endswith("Z")
    assert body == {
        "from": str(today().replace(day=1)),
        "to": str(today()),
        "group_by": "day",
        "messages": 2, "tokens": 12, "interrupted": 0, "failed": 0,
        "groups": [
            {"day": str(today()), "messages": 2, "tokens": 12, "interrupted": 0, "failed": 0, "sessions": 1}
        ],
    }  # fmt: skip


def test_nothing_was_used(alice: Caller) -> None:
    assert asked(alice, ago(5), today())["groups"] == []
    assert asked(alice, ago(5), today())["messages"] == 0


@pytest.mark.parametrize("is_rolled_up", [True, False])
def test_it_equals_a_count_over_the_rows(alice: Caller, history: list[Message], is_rolled_up: bool) -> None:
    if is_rolled_up:
        rollup()
    check(alice)
    check(alice, ago(8), ago(5))


def test_the_roll_up_is_read(alice: Caller, history: list[Message]) -> None:
    """The premise: what is counted is not counted again."""
    rollup()
    Usage.objects.filter(owner=alice.user, day=ago(7)).update(messages=1000)
    assert asked(alice, ago(7), ago(7))["messages"] > 1000


def test_an_agent_is_null_where_there_is_none(alice: Caller, session: Session) -> None:
    new_message(session)
    assert asked(alice, today(), today(), "agent")["groups"][0]["agent"] is None


def test_others_come_by_most_messages_then_by_name(alice: Caller) -> None:
    for agent, messages in (("b", 1), ("c", 2), ("a", 1), (None, 1)):
        place = new_session(alice, agent=agent)
        for _ in range(messages):
            new_message(place)
    found = asked(alice, today(), today(), "agent")["groups"]
    assert [group["agent"] for group in found] == ["c", None, "a", "b"]


def test_missed_days(alice: Caller, history: list[Message]) -> None:
    """However many: the dashboard stops at two."""
    rollup()
    UsageState.objects.update(rolled_through=ago(8))
    check(alice)


def test_marked_days_and_missed_days(alice: Caller, history: list[Message]) -> None:
    rollup()
    Usage.objects.filter(day__gt=ago(3)).delete()
    UsageState.objects.update(rolled_through=ago(3))
    Message.objects.filter(pk=history[0].pk).update(tokens=500)
    for _ in range(2):
        usage.mark([history[0].created_at])
    check(alice)
    check(alice, ago(9), ago(4))
    check(alice, ago(2), today())


def test_an_edit(alice: Caller, history: list[Message]) -> None:
    rollup()
    services.change_message(history[0], {"tokens": 999})
    check(alice)
    assert asked(alice, ago(9), ago(9))["tokens"] >= 999
    rollup()
    check(alice)


@pytest.mark.parametrize("is_rolled_up", [True, False])
def test_what_is_deleted_still_counts(alice: Caller, history: list[Message], is_rolled_up: bool) -> None:
    if is_rolled_up:
        rollup()
    before = asked(alice, ago(20), today(), "role")
    services.delete_message(history[0])
    services.trash_session(history[-1].session)
    assert asked(alice, ago(20), today(), "role") == before
    check(alice)


def test_a_purge(alice: Caller, history: list[Message]) -> None:
    rollup()
    services.trash_session(history[0].session)
    retention.purge(timezone.now() + DAY, lambda _: None)
    check(alice)
    rollup()
    check(alice)


def test_an_erasure_of_somebody_else(alice: Caller, bob: Caller, history: list[Message]) -> None:
    rollup()
    before = asked(alice, ago(20), today())
    User.objects.create_superuser("left")
    erasure.erase(bob.user, lambda _: None)
    assert UsageMark.objects.exists()
    assert asked(alice, ago(20), today()) == before
    check(alice)


def test_what_is_loaded_into_counted_days(alice: Caller, history: list[Message]) -> None:
    """Somebody's messages of half a year, after their days were counted."""
    said(history[0].session, datetime(2025, 1, 1, tzinfo=UTC))
    rollup()
    volume.plant(volume.Volume(seed=3, users=2, sessions=20, messages=400), lambda _: None)
    busy = Session.objects.exclude(owner__in=[message.session.owner_id for message in history])[0].owner
    everything = date(2025, 1, 1), date(2025, 12, 31)
    check(token_of(busy), *everything)
    rollup()
    check(token_of(busy), *everything)


@pytest.mark.django_db(transaction=True)
def test_an_import_into_counted_days(history: list[Message]) -> None:
    """Into a store that has counted those days without it, where only the people were."""
    with writing.snapshot():
        content = b"".join(writing.exported())
    emptied()
    assert Message.objects.count() == 0
    UsageMark.objects.all().delete()
    UsageState.objects.update_or_create(pk=1, defaults={"rolled_through": ago(1), "rolled_at": timezone.now()})
    file = reading.File(BytesIO(content), Report(lambda line: None))
    file.open()
    reading.load(file, lambda lines: None)
    assert Message.objects.count() == len(history)
    for _ in range(2):
        for owner in User.objects.filter(username__in=["alice", "bob"]):
            check(token_of(owner))
        rollup()


def token_of(user: User) -> Caller:
    other = caller(f"for {user.pk}-{timezone.now().timestamp()}")
    other.user.api_tokens.update(user=user)
    return Caller(user, other.token)


def test_a_day_begins_and_ends_at_midnight_utc(alice: Caller, session: Session) -> None:
    midnight = datetime.combine(ago(5), time(), UTC)
    for moment in (midnight - timedelta(microseconds=1), midnight, midnight + DAY - timedelta(microseconds=1)):
        said(session, moment)
    said(session, midnight + DAY)
    for _ in range(2):
        assert asked(alice, ago(5), ago(5))["messages"] == 2
        assert [group["messages"] for group in asked(alice, ago(6), ago(4))["groups"]] == [1, 2, 1]
        rollup()
    usage.mark([midnight])
    assert asked(alice, ago(5), ago(5))["messages"] == 2


def test_a_session_counts_once_a_day_whatever_its_roles(alice: Caller, session: Session) -> None:
    for days in (2, 0):
        for role in ("user", "assistant", "tool_call"):
            said(session, ago(days), role=role)
    for _ in range(2):
        assert [group["sessions"] for group in asked(alice, ago(2), today())["groups"]] == [1, 1]
        rollup()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_in_whatever_order(alice: Caller, bob: Caller, shared: Workspace, seed: int) -> None:
    dice = random.Random(seed)
    places = [
        new_session(owner, place, agent=agent)
        for owner in (alice, bob)
        for place in (shared, None)
        for agent in ("writer", None)
    ]
    for step in range(60):
        happens(dice, places)
        if step % 6 == 5:
            check(alice)
            check(bob, ago(dice.randrange(15, 30)), ago(dice.randrange(15)))


HAPPENS = {"say": 9, "edit": 4, "delete": 2, "mark": 2, "roll up": 2, "miss": 1, "trash": 1, "purge": 1}


def happens(dice: random.Random, places: list[Session]) -> None:
    """One of what changes usage, somewhere in the last twelve days."""
    what = dice.choices(list(HAPPENS), list(HAPPENS.values()))[0]
    messages = list(Message.objects.live().select_related("session").order_by("pk"))
    live = [place for place in places if Session.objects.live().filter(pk=place.pk).exists()]
    at = datetime.combine(ago(dice.randrange(12)), dice.choice((time.min, time.max)), UTC)
    if what == "say" and live:
        said(dice.choice(live), at, role=dice.choice(Message.Role.values), tokens=dice.randrange(9))
        usage.mark([at])
    elif what == "edit" and messages:
        services.change_message(dice.choice(messages), {"tokens": dice.randrange(99)})
    elif what == "delete" and messages:
        services.delete_message(dice.choice(messages))
    elif what == "mark":
        usage.mark([at])
    elif what == "roll up":
        rollup()
    elif what == "miss":
        UsageState.objects.filter(rolled_through__gt=at.date()).update(rolled_through=at.date())
        Usage.objects.filter(day__gt=at.date()).delete()
    elif what == "trash" and len(messages) > 20:
        services.trash_session(dice.choice(messages).session)
    elif what == "purge":
        retention.purge(timezone.now() + DAY, lambda _: None)


# With others at work


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_roll_up_that_commits_meanwhile_counts_nothing_twice(alice: Caller, session: Session) -> None:
    """Nor not at all: the answer waits in the middle of what it reads, until the roll-up has committed."""
    said(session, ago(2), tokens=7)
    found: list[dict[str, Any]] = []
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE conversations_message IN ACCESS EXCLUSIVE MODE")
        asking = turns.in_thread(lambda: found.append(alice.get(f"/api/usage/?from={ago(9)}").json()))
        asking.join(0.5)
        assert asking.is_alive()
        usage.roll_up(usage.waiting())
    asking.join(5)
    assert (found[0]["messages"], found[0]["tokens"]) == (1, 7)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_what_takes_too_long_is_503(alice: Caller) -> None:
    answers: list[Any] = []

    def ask() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 300")
            answers.append(alice.get("/api/usage/"))
            cursor.execute("RESET statement_timeout")

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE conversations_usagemark IN ACCESS EXCLUSIVE MODE")
        asking = turns.in_thread(ask)
        asking.join(10)
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "service_unavailable")
    assert answers[0]["Retry-After"] == "1"
