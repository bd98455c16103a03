"""What was used: the roll-up and what tops it up, against a count over the rows themselves."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone

from accounts.models import User, Workspace
from conftest import Caller, new_message, new_session
from conversations import erasure, retention, services, usage
from conversations.chat import records
from conversations.models import Message, Session, Turn, Usage, UsageMark, UsageState
from conversations.seeding import volume
from conversations.tests import turns
from conversations.usage import Counts, Report

DAY = timedelta(days=1)
NOON = time(12, tzinfo=UTC)


def today() -> date:
    return timezone.now().astimezone(UTC).date()


def said(session: Session, at: datetime | date, role: str = "user", **fields: Any) -> Message:
    """A message of that moment, or of noon of that day, as it was appended then."""
    moment = at if isinstance(at, datetime) else datetime.combine(at, NOON)
    message = new_message(session, role=role, **fields)
    Message.objects.filter(pk=message.pk).update(created_at=moment)
    message.created_at = moment
    return message


def rollup() -> str:
    out = StringIO()
    call_command("rollup", stdout=out, verbosity=0)
    return out.getvalue()


def of(first: date, last: date | None = None, **narrowed: Any) -> Report:
    return usage.report(first, last or first, **narrowed)


def over_the_rows(first: date, last: date) -> list[Counts]:
    """The same, message by message."""
    found = []
    for n in range((last - first).days + 1):
        day = first + DAY * n
        rows = [m for m in Message.objects.select_related("session")
                if m.created_at.astimezone(UTC).date() == day]  # fmt: skip
        found.append(
            Counts(
                day,
                messages=len(rows),
                tokens=sum(m.tokens for m in rows),
                sessions=len({m.session_id for m in rows}),
                users=len({m.session.owner_id for m in rows}),
                interrupted=sum(m.status == "interrupted" for m in rows),
                failed=sum(m.status == "failed" for m in rows),
            )
        )
    return found


@pytest.fixture
def history(alice: Caller, bob: Caller, session: Session) -> tuple[date, date]:
    """Messages of two people on most of the last ten days, none rolled up; the first and the last day."""
    own = new_session(alice, agent="writer")
    others = new_session(bob, agent="support")
    for ago in (9, 8, 7, 5, 2, 1, 0):
        day = today() - DAY * ago
        for each in (session, own, others)[: 1 + ago % 3]:
            said(each, day, tokens=ago)
            said(each, day, "tool_call", tool_name="search" if ago % 2 else "read_file")
            said(each, day, "assistant", tokens=10)
    failed = said(own, today() - DAY * 2, "assistant")
    Message.objects.filter(pk=failed.pk).update(status="failed")
    return today() - DAY * 9, today()


# Counting


def test_it_equals_a_count_over_the_rows(history: tuple[date, date]) -> None:
    assert rollup() == "9 days counted.\n"
    assert of(*history).days == over_the_rows(*history)
    assert sum(counts.messages for counts in of(*history).days) == Message.objects.count()


def test_it_equals_a_count_of_a_volume(db: None) -> None:
    volume.plant(volume.Volume(seed=3, users=5, sessions=40, messages=600), lambda _: None)
    rollup()
    times = Message.objects.order_by("created_at").values_list("created_at", flat=True)
    first, last = times[0].date(), times[len(times) - 1].date()
    assert of(first, last).days == over_the_rows(first, last)
    tools = Counter(Message.objects.filter(role="tool_call").values_list("tool_name", flat=True))
    assert {share.name: share.messages for share in of(first, last).tools} == tools


def test_a_day_begins_and_ends_at_midnight_utc(session: Session) -> None:
    day = today() - DAY * 5
    midnight = datetime.combine(day, time(), UTC)
    for moment in (midnight - timedelta(microseconds=1), midnight, midnight + DAY - timedelta(microseconds=1)):
        said(session, moment)
    said(session, midnight + DAY)
    rollup()
    assert [counts.messages for counts in of(day - DAY, day + DAY).days] == [1, 2, 1]
    usage.mark([midnight])  # That day alone, whose ends are those of the count.
    rollup()
    assert [counts.messages for counts in of(day - DAY, day + DAY).days] == [1, 2, 1]


def test_a_session_counts_once_a_day_whatever_its_roles(session: Session) -> None:
    for role in ("user", "assistant", "tool_call"):
        said(session, today() - DAY, role)
        said(session, today(), role)
    assert [counts.sessions for counts in of(today() - DAY, today()).days] == [1, 1]
    rollup()
    assert [counts.sessions for counts in of(today() - DAY, today()).days] == [1, 1]


def test_the_busiest_come_first(alice: Caller, session: Session) -> None:
    busy = new_session(alice, agent="writer")
    for tool in ("a", "b", "b", "c", "c", "c"):
        said(busy, today() - DAY * 3, "tool_call", tool_name=tool, tokens=5)
    said(session, today() - DAY * 3)
    said(session, today() - DAY * 3, "tool", tool_name="c")
    rollup()
    report = of(today() - DAY * 3)
    assert [(share.name, share.messages, share.tokens) for share in report.tools] == [
        ("c", 3, 15), ("b", 2, 10), ("a", 1, 5),
    ]  # fmt: skip
    assert [(share.name, share.messages) for share in report.agents] == [("writer", 6), ("", 2)]
    personal = alice.user.personal_workspace()
    assert [(share.name, share.label) for share in report.workspaces] == [
        (str(personal.public_id), "Personal"), (str(session.workspace_id), "Shared"),
    ]  # fmt: skip


def test_no_more_than_ten_are_shown(session: Session) -> None:
    for number in range(12):
        for _ in range(12 - number):
            said(session, today(), "tool_call", tool_name=f"tool {number}")
    assert [share.name for share in of(today()).tools] == [f"tool {number}" for number in range(10)]


@pytest.mark.parametrize("is_rolled_up", [True, False])
def test_one_workspace_or_one_agent(
    alice: Caller, shared: Workspace, session: Session, is_rolled_up: bool
) -> None:
    day = today() - DAY
    writer = new_session(alice, agent="writer")
    said(session, day, tokens=1)
    said(writer, day, tokens=2)
    if is_rolled_up:
        rollup()
    assert of(day, workspace=shared).days[0].tokens == 1
    assert of(day, workspace=alice.user.personal_workspace()).days[0].tokens == 2
    assert of(day, agent="writer").days[0].tokens == 2
    assert of(day, agent="").days[0].tokens == 1
    assert of(day, agent="nobody").days == [Counts(day)]


@pytest.mark.parametrize("is_rolled_up", [True, False])
def test_what_was_busiest_in_one_workspace_or_with_one_agent(
    alice: Caller, bob: Caller, shared: Workspace, session: Session, is_rolled_up: bool
) -> None:
    day = today() - DAY
    for owner, agent in ((alice, "writer"), (bob, "support")):
        there = new_session(owner, workspace=shared, agent=agent)
        said(there, day)
        said(there, day, "tool_call", tool_name=f"of the {agent}")
    if is_rolled_up:
        rollup()
    in_it = of(day, workspace=shared)
    assert [share.name for share in in_it.agents] == ["support", "writer"]
    assert [share.name for share in in_it.tools] == ["of the support", "of the writer"]
    assert in_it.days[0][1:5] == (4, 0, 2, 2)
    assert in_it.workspaces == []
    with_it = of(day, agent="writer")
    assert [share.label for share in with_it.workspaces] == ["Shared"]
    assert [share.name for share in with_it.tools] == ["of the writer"]
    assert with_it.days[0][1:5] == (2, 0, 1, 1)


def test_of_a_day_the_busiest_are_kept(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a page reads no more for more names; the day as a whole has all of them."""
    monkeypatch.setattr(usage, "MOST_KEPT", 2)
    for number, calls in enumerate((1, 3, 2)):
        for _ in range(calls):
            said(session, today() - DAY, "tool_call", tool_name=f"tool {number}")
    for _ in range(2):
        report = of(today() - DAY)
        assert [share.name for share in report.tools] == ["tool 1", "tool 2"]
        assert report.days[0].messages == 6
        rollup()


# What changes afterwards


@pytest.fixture
def closed(session: Session) -> Message:
    """A call of a tool three days ago, and its day is counted."""
    message = said(session, today() - DAY * 3, "tool_call", tool_name="search", tokens=7)
    rollup()
    assert of(message.created_at.date()).days[0].tokens == 7
    return message


def test_deleting_lowers_nothing(closed: Message) -> None:
    day = closed.created_at.date()
    services.delete_message(closed)
    assert rollup() == "0 days counted.\n"
    assert of(day).days[0][1:3] == (1, 7)
    assert [share.name for share in of(day).tools] == ["search"]
    services.trash_session(closed.session)
    usage.mark([closed.created_at])
    rollup()
    assert of(day).days[0][1:3] == (1, 7)


def test_deleting_today_lowers_nothing(session: Session) -> None:
    services.delete_message(said(session, today(), tokens=7))
    assert of(today()).days[0][1:3] == (1, 7)


@pytest.mark.parametrize(
    ("changes", "counted"),
    [({"tokens": 70}, (70, ["search"])), ({"tool_name": "find"}, (7, ["find"])), ({"tool_name": None}, (7, [""]))],
)
def test_an_edit_is_counted_again(closed: Message, changes: dict[str, Any], counted: Any) -> None:
    services.change_message(closed, changes)
    assert rollup() == "1 days counted.\n"
    report = of(closed.created_at.date())
    assert (report.days[0].tokens, [share.name for share in report.tools]) == counted
    assert rollup() == "0 days counted.\n"


def test_an_edit_of_the_words_counts_nothing_again(closed: Message) -> None:
    services.change_message(closed, {"content": "Other words", "metadata": {"a": 1}})
    assert not UsageMark.objects.exists()


def test_an_edit_of_today_leaves_no_mark(session: Session) -> None:
    services.change_message(said(session, today()), {"tokens": 3})
    assert not UsageMark.objects.exists()
    assert of(today()).days[0].tokens == 3


def test_what_a_purge_removes_was_never_there(closed: Message) -> None:
    services.trash_session(closed.session)
    retention.purge(timezone.now() + DAY, lambda _: None)
    rollup()
    assert of(closed.created_at.date()).days[0] == Counts(closed.created_at.date())


def test_a_purge_marks_today_too(session: Session) -> None:
    """It may last beyond midnight, and today be counted before it commits."""
    said(session, today())
    services.trash_session(session)
    retention.purge(timezone.now() + DAY, lambda _: None)
    assert list(UsageMark.objects.values_list("day", flat=True)) == [today()]


def test_what_an_erased_person_used_goes_with_them(alice: Caller, session: Session) -> None:
    said(session, today() - DAY * 3)
    rollup()
    assert Usage.objects.exists()
    User.objects.create_superuser("left")
    erasure.erase(alice.user, lambda _: None)
    assert not Usage.objects.exists()
    rollup()
    assert of(today() - DAY * 3).days[0].messages == 0


def test_what_is_loaded_for_a_counted_day_is_counted(closed: Message) -> None:
    volume.plant(volume.Volume(seed=3, users=2, sessions=5, messages=50), lambda _: None)
    rollup()
    days = {at.date() for at in Message.objects.exclude(pk=closed.pk).values_list("created_at", flat=True)}
    assert of(min(days), max(days)).days == over_the_rows(min(days), max(days))


def test_a_reply_that_ends_after_midnight_is_counted_again(session: Session) -> None:
    turn = turns.begin(session)
    row = turns.say(turn)
    Message.objects.filter(session=session).update(created_at=timezone.now() - DAY * 2)
    rollup()
    records.complete_row(turn, Message.objects.get(pk=row.pk), tokens=9, content="Well")
    rollup()
    assert of(today() - DAY * 2).days[0].tokens == 9


def test_a_lost_reply_of_a_counted_day_is_interrupted_there(session: Session) -> None:
    turns.say(turns.begin(session))
    Message.objects.filter(session=session).update(created_at=timezone.now() - DAY * 2)
    rollup()
    assert of(today() - DAY * 2).days[0].interrupted == 0
    Turn.objects.update(lease_until=timezone.now() - DAY)
    call_command("maintain", stdout=StringIO())
    assert of(today() - DAY * 2).days[0].interrupted == 1


# Which days


def test_missed_days_are_made_up_for(session: Session) -> None:
    for ago in (6, 5, 3):
        said(session, today() - DAY * ago)
    rollup()
    UsageState.objects.update(rolled_through=today() - DAY * 6)
    Usage.objects.filter(day__gt=today() - DAY * 6).delete()
    assert rollup() in {"4 days counted.\n", "5 days counted.\n"}  # 4 in the first minutes of a day.
    assert [counts.messages for counts in of(today() - DAY * 6, today()).days] == [1, 1, 0, 1, 0, 0, 0]


def test_a_day_is_counted_once_it_is_over(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no sooner than ten minutes later: whoever writes in its last moment has committed by then."""
    midnight = datetime.combine(today(), time(), UTC)
    said(session, midnight - timedelta(seconds=1))
    monkeypatch.setattr("django.utils.timezone.now", lambda: midnight + timedelta(minutes=9))
    assert usage.waiting().days == []
    monkeypatch.setattr("django.utils.timezone.now", lambda: midnight + timedelta(minutes=11))
    assert usage.waiting().days == [today() - DAY]


def test_a_report_says_how_far_it_goes(session: Session) -> None:
    for ago in (40, 6, 1, 0):
        said(session, today() - DAY * ago)
    new = of(today() - DAY * 9, today())
    assert (new.rolled_through, new.uncounted_days, new.latest_day) == (None, 8, None)
    assert [counts.messages for counts in new.days] == [0] * 8 + [1, 1]
    assert new.as_of is not None
    assert timezone.now() - new.as_of < timedelta(seconds=5)
    rollup()
    counted = of(today() - DAY * 9, today())
    assert counted.uncounted_days == 0
    assert counted.latest_day == counted.rolled_through == today() - DAY
    assert [counts.messages for counts in counted.days] == [0, 0, 0, 1, 0, 0, 0, 0, 1, 1]
    past = of(today() - DAY * 45, today() - DAY * 30)
    assert past.as_of == UsageState.objects.get().rolled_at
    assert sum(counts.messages for counts in past.days) == 1


def test_there_is_nothing_to_count_at_first(db: None) -> None:
    assert of(today() - DAY * 6, today()).days == [Counts(today() - DAY * n) for n in range(6, -1, -1)]
    assert rollup() == "0 days counted.\n"
    assert of(today() - DAY * 6, today()).uncounted_days == 0


def test_days_are_counted_some_at_a_time() -> None:
    first = date(2025, 1, 1)
    days = [first + DAY * n for n in range(70)] + [date(2025, 6, 1), date(2025, 6, 3)]
    spans = list(usage.spans(days))
    assert [(last - first).days + 1 for first, last in spans] == [31, 31, 8, 1, 1]
    assert [first for first, _ in spans][-2:] == [date(2025, 6, 1), date(2025, 6, 3)]
    assert list(usage.spans([])) == []


def test_an_interrupted_roll_up_goes_on_where_it_was(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "DAYS_AT_ONCE", 2)
    for ago in range(1, 8):
        said(session, today() - DAY * ago)
    stopped = 0

    def stop(days: int) -> None:
        nonlocal stopped
        stopped += days
        if stopped >= 4:
            raise KeyboardInterrupt

    waiting = usage.waiting()
    with pytest.raises(KeyboardInterrupt):
        usage.roll_up(waiting, stop)
    assert usage.waiting().days == waiting.days[4:]
    rollup()
    assert [counts.messages for counts in of(today() - DAY * 7, today() - DAY).days] == [1] * 7


def test_a_report_costs_four_queries(history: tuple[date, date], django_assert_num_queries: Any) -> None:
    rollup()
    with django_assert_num_queries(4):
        of(*history)


# With others at work


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_change_that_commits_while_a_day_is_counted_is_not_lost(closed: Message) -> None:
    """Its mark is written before the count and seen after it."""
    with transaction.atomic():
        services.change_message(closed, {"tokens": 100})
        marking = turns.in_thread(lambda: usage.mark([closed.created_at]))
        marking.join(5)
        counting = turns.in_thread(rollup)
        counting.join(5)
        assert not counting.is_alive()
    assert of(closed.created_at.date()).days[0].tokens == 7
    rollup()
    assert of(closed.created_at.date()).days[0].tokens == 100


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_two_roll_ups_take_turns(closed: Message, settings: Any) -> None:
    """The second waits longer than statements of requests may, and counts nothing twice."""
    usage.mark([closed.created_at])
    with turns.locked_elsewhere(UsageState.objects.filter(pk=1)):
        second = turns.in_thread(rollup)
        second.join(settings.ENVIRONMENT.db_lock_timeout + 1)
        assert second.is_alive()
    second.join(5)
    rollup()
    assert Usage.objects.count() == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_an_erasure_and_a_roll_up_take_turns(closed: Message, settings: Any) -> None:
    """Else one of them fails of the other's rows. It waits longer than statements of requests may."""
    User.objects.create_superuser("left")
    usage.state_row()
    owner = closed.session.owner
    with turns.locked_elsewhere(UsageState.objects.filter(pk=1)):
        erasing = turns.in_thread(lambda: erasure.erase(owner, lambda _: None))
        erasing.join(settings.ENVIRONMENT.db_lock_timeout + 1)
        assert erasing.is_alive()
    erasing.join(5)
    assert not User.objects.filter(pk=owner.pk).exists()


@pytest.mark.postgres
def test_todays_messages_come_from_the_index_of_times(alice: Caller) -> None:
    volume.plant(volume.Volume(seed=5, users=20, sessions=500, messages=20_000), lambda _: None)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        cursor.execute("SELECT brin_summarize_new_values('message_time')")
    day = Message.objects.order_by("-pk").values_list("created_at", flat=True)[0].date()
    sql, parameters = usage.rows_of(day, day, day, None, None)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "message_time" in plan
    assert "Seq Scan on conversations_message" not in plan
