"""What a turn writes, and who may: one at a time, under a lease, with exact counters (design 3.1, 3.2, 3.6)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from chatstore.retries import Retry
from conftest import Caller, new_message, new_session, row
from conversations import retention, services
from conversations.chat import records
from conversations.models import Message, Session, Turn

HERE, THERE = "here:1:x", "there:2:y"


def begin(session: Session, worker: str = HERE, content: str = "Hello", retry: Retry | None = None) -> Turn:
    return records.begin(session, content, worker, retry).turn


def say(turn: Turn, text: str = "Well") -> Message:
    """A row of the reply, running."""
    return records.add_row(turn, role="assistant", content=text)


def mark(turn: Turn) -> Message:
    return records.add_row(turn, role="tool_call", content="Called search", tool_name="search")


def expire(turn: Turn) -> None:
    """Its worker has not been heard of for too long."""
    Turn.objects.filter(pk=turn.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def status(turn: Turn) -> str:
    return Turn.objects.get(pk=turn.pk).status


def running(turn: Turn, message: Message | None, text: str = "") -> records.Running:
    return records.Running(turn.pk, turn.session_id, message.pk if message else None, text)


def is_exact(session: Session) -> bool:
    """Whether positions have no gaps, counters equal a recount, and the version is the highest of a message."""
    session.refresh_from_db()
    found = list(Message.objects.filter(session=session).order_by("position"))
    assert [message.position for message in found] == [*range(1, session.last_position + 1)]
    assert session.message_count == len([message for message in found if not message.deleted_at])
    assert session.tokens == sum(message.tokens for message in found if not message.deleted_at)
    return session.version == max(message.version for message in found)


# A turn


def test_it_works(session: Session) -> None:
    turn = begin(session)
    tool = mark(turn)
    records.complete_row(turn, tool)
    reply = say(turn)
    records.complete_row(turn, reply, content="Well, well.", tokens=7)
    records.finish(turn, Turn.Status.COMPLETE, {}, "run-1")
    turn.refresh_from_db()
    assert (turn.status, turn.question, turn.answer, turn.trace_id) == ("complete", 1, 3, "run-1")
    assert turn.finished_at
    assert [message.content for message in Message.objects.order_by("position")] == [
        "Hello", "Called search", "Well, well.",
    ]  # fmt: skip
    assert is_exact(session)


def test_every_step_raises_the_version_by_one(session: Session) -> None:
    turn = begin(session)
    reply = say(turn)
    records.complete_row(turn, reply, content="Well.", tokens=7)
    records.finish(turn, Turn.Status.COMPLETE, {}, None)
    session.refresh_from_db()
    assert (session.version, session.tokens, session.message_count) == (4, 7, 2)


def test_an_end_that_closes_rows_is_one_change(session: Session) -> None:
    turn = begin(session)
    mark(turn)
    reply = say(turn)
    before = Session.objects.get(pk=session.pk).version
    records.finish(turn, Turn.Status.INTERRUPTED, {reply.pk: "Well, w"}, None)
    found = Message.objects.filter(position__gt=1).order_by("position").values_list("content", "status", "version")
    assert list(found) == [("Called search", "interrupted", before + 1), ("Well, w", "interrupted", before + 1)]
    assert is_exact(session)


@pytest.mark.parametrize(
    ("end", "left"), [("complete", "interrupted"), ("interrupted", "interrupted"), ("failed", "failed")]
)
def test_no_row_stays_open(session: Session, end: str, left: str) -> None:
    turn = begin(session)
    marker = mark(turn)
    records.finish(turn, end, {}, None)
    assert (row(Message, marker.pk)["status"], status(turn)) == (left, end)


@pytest.mark.parametrize("verb", ["patch", "delete"])
def test_a_row_that_is_being_written_is_left_alone_by_others(alice: Caller, session: Session, verb: str) -> None:
    reply = say(begin(session))
    body = ({"content": "Mine"},) if verb == "patch" else ()
    answer = getattr(alice, verb)(f"/api/messages/{reply.pk}/", *body)
    assert answer.status_code == 409
    assert row(Message, reply.pk)["content"] == "Well"


@pytest.mark.parametrize(("verb", "code"), [("patch", 200), ("delete", 204)])
def test_a_row_whose_writer_is_lost_is_not(alice: Caller, session: Session, verb: str, code: int) -> None:
    turn = begin(session)
    reply = say(turn)
    expire(turn)
    body = ({"content": "Mine"},) if verb == "patch" else ()
    assert getattr(alice, verb)(f"/api/messages/{reply.pk}/", *body).status_code == code
    assert (status(turn), is_exact(session)) == ("interrupted", True)


def test_others_may_append_while_a_turn_runs(session: Session) -> None:
    turn = begin(session)
    new_message(session, "Meanwhile")
    reply = say(turn)
    assert (reply.position, Turn.objects.get().answer) == (3, 3)
    assert is_exact(session)


# Running texts


def test_saving_a_running_text_moves_neither_version_nor_times(session: Session) -> None:
    turn = begin(session)
    reply = say(turn)
    before = row(Session, session.pk), row(Message, reply.pk)
    records.save_texts([running(turn, reply, "Well, well, \u20ac\U0001f642")])
    assert row(Session, session.pk) == before[0]
    assert row(Message, reply.pk) == {**before[1], "content": "Well, well, \u20ac\U0001f642"}


def test_the_texts_of_all_turns_are_saved_together(alice: Caller) -> None:
    turns = [begin(new_session(alice)) for _ in range(5)]
    replies = [say(turn) for turn in turns]
    silent = running(begin(new_session(alice)), None)
    texts = [running(turn, reply, f"{reply.pk}") for turn, reply in zip(turns, replies, strict=True)]
    records.save_texts([silent, *texts])
    assert [row(Message, reply.pk)["content"] for reply in replies] == [f"{reply.pk}" for reply in replies]


def test_a_text_that_is_complete_is_not_saved_over(session: Session) -> None:
    """The saver may be late."""
    turn = begin(session)
    reply = say(turn)
    records.complete_row(turn, reply, content="Well, well.")
    records.save_texts([running(turn, reply, "Well")])
    assert row(Message, reply.pk)["content"] == "Well, well."


# One at a time


def test_a_session_has_one_running_turn(session: Session) -> None:
    turn = begin(session)
    with pytest.raises(records.TurnRunning) as refused:
        begin(session, THERE)
    assert refused.value.turn.pk == turn.pk
    assert Message.objects.count() == 1


def test_the_database_says_so_too(session: Session) -> None:
    turn = begin(session)
    turn.pk, turn.question, turn.answer = None, 2, 2
    with pytest.raises(IntegrityError, match=r"turn_running_once|conversations_turn.session_id"):
        turn.save(force_insert=True)


BROKEN: dict[str, dict[str, Any]] = {
    "status": {"status": "lost"},
    "answer-before-question": {"question": 5, "answer": 4},
    "question-twice": {"question": 1},
}


@pytest.mark.parametrize("fields", BROKEN.values(), ids=BROKEN.keys())
def test_the_database_refuses_what_is_no_turn(session: Session, fields: dict[str, Any]) -> None:
    turn = begin(session)
    records.finish(turn, Turn.Status.COMPLETE, {}, None)
    values = {"status": "complete", "question": 2, "answer": 2, "worker": HERE, **fields}
    now = timezone.now()
    with pytest.raises(IntegrityError), transaction.atomic():
        Turn.objects.create(session=session, lease_until=now, started_at=now, **values)


def test_a_key_finds_its_turn_even_while_it_runs(session: Session) -> None:
    retry = Retry("k", "digest")
    first = records.begin(session, "Hello", HERE, retry)
    again = records.begin(session, "Hello", THERE, retry)
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.turn.pk, again.said.pk) == (first.turn.pk, first.said.pk)
    assert (Message.objects.count(), row(Session, session.pk)["version"]) == (1, 2)


# Leases


def test_a_lost_turn_makes_room_for_the_next(session: Session) -> None:
    lost = begin(session)
    reply = say(lost)
    expire(lost)
    turn = begin(session, THERE, "Still there?")
    assert (status(lost), status(turn)) == ("interrupted", "running")
    assert row(Message, reply.pk)["status"] == "interrupted"
    assert is_exact(session)


def test_a_renewed_lease_keeps_a_turn(session: Session) -> None:
    turn = begin(session)
    expire(turn)
    assert records.renew([running(turn, None)], HERE) == {turn.pk: False}
    assert Turn.objects.get().lease_until > timezone.now() + timedelta(seconds=5)
    assert records.settle() == 0


def test_nobody_renews_the_lease_of_another_worker(session: Session) -> None:
    turn = begin(session)
    expire(turn)
    assert records.renew([running(turn, None)], THERE) == {}
    assert records.settle() == 1


def test_whoever_renews_sees_that_somebody_asked_to_stop(session: Session) -> None:
    turn = begin(session)
    records.ask_to_stop(session)
    assert records.renew([running(turn, None)], HERE) == {turn.pk: True}


def test_every_write_renews_the_lease(session: Session) -> None:
    turn = begin(session)
    expire(turn)
    say(turn)
    assert Turn.objects.get().lease_until > timezone.now()


def test_to_ask_twice_keeps_the_first_time(session: Session) -> None:
    begin(session)
    asked = [records.ask_to_stop(session) and Turn.objects.get().stop_requested_at for _ in range(2)]
    assert asked[0]
    assert asked[0] == asked[1]


# A worker that is late


WRITES: dict[str, Callable[[Turn, Message], Any]] = {
    "adds": lambda turn, reply: say(turn),
    "completes": lambda turn, reply: records.complete_row(turn, reply, content="Late"),
    "finishes": lambda turn, reply: records.finish(turn, Turn.Status.COMPLETE, {reply.pk: "Late"}, "late"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_worker_whose_turn_was_settled_writes_nothing_more(session: Session, write: Any) -> None:
    turn = begin(session)
    reply = say(turn)
    expire(turn)
    records.settle()
    before = [row(Session, session.pk), row(Turn, turn.pk), *Message.objects.order_by("pk").values()]
    with pytest.raises(records.TurnLost), transaction.atomic():
        write(turn, reply)
    records.save_texts([running(turn, reply, "Late")])
    assert [row(Session, session.pk), row(Turn, turn.pk), *Message.objects.order_by("pk").values()] == before


def test_a_worker_whose_turn_was_settled_is_told_at_the_next_renewal(session: Session) -> None:
    turn = begin(session)
    expire(turn)
    begin(session, THERE)
    assert records.renew([running(turn, None)], HERE) == {}


# Settling


def test_settling_writes_down_what_was_lost(session: Session) -> None:
    turn = begin(session)
    marker, reply = mark(turn), say(turn)
    expire(turn)
    assert (records.settle(), records.settle()) == (1, 0)
    assert [row(Message, each.pk)["status"] for each in (marker, reply)] == ["interrupted"] * 2
    assert row(Message, reply.pk)["content"] == "Well"
    assert (status(turn), row(Turn, turn.pk)["finished_at"] is None) == ("interrupted", False)
    assert is_exact(session)


def test_settling_leaves_a_live_turn_alone(session: Session) -> None:
    turn = begin(session)
    reply = say(turn)
    assert records.settle() == 0
    assert (status(turn), row(Message, reply.pk)["status"]) == ("running", "streaming")


def test_a_lost_turn_of_a_deleted_session_is_settled_too(session: Session) -> None:
    turn = begin(session)
    expire(turn)
    services.trash_session(session)
    assert (records.settle(), status(turn)) == (1, "interrupted")


@contextmanager
def locked_elsewhere(session: Session) -> Iterator[None]:
    """Another connection holds the session's lock."""
    is_held, release = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                services.locked(session)
                is_held.set()
                release.wait(10)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert is_held.wait(10)
        try:
            yield
        finally:
            release.set()
            held.result()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_settling_passes_over_a_locked_session(alice: Caller) -> None:
    sessions = [new_session(alice) for _ in range(2)]
    turns = [begin(session) for session in sessions]
    for turn in turns:
        expire(turn)
    with locked_elsewhere(sessions[0]):
        assert records.settle() == 1
        assert [status(turn) for turn in turns] == ["running", "interrupted"]
    assert records.settle() == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_many_who_settle_at_once_settle_each_turn_once(alice: Caller) -> None:
    turns = [begin(new_session(alice)) for _ in range(40)]
    replies = [say(turn) for turn in turns]
    for turn in turns:
        expire(turn)

    def settle(_: int) -> int:
        try:
            return records.settle()
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(settle, range(8))) == 40
    assert {row(Message, reply.pk)["version"] for reply in replies} == {4}
    assert all(is_exact(turn.session) for turn in turns)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_many_who_begin_at_once_one_does(session: Session) -> None:
    def attempt(number: int) -> str:
        try:
            begin(session, f"w:{number}:x")
        except records.TurnRunning:
            return "refused"
        finally:
            connection.close()
        return "begun"

    with ThreadPoolExecutor(12) as pool:
        assert Counter(pool.map(attempt, range(24))) == {"begun": 1, "refused": 23}
    assert is_exact(session)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_turns_beside_appends_leave_exact_counters(session: Session) -> None:
    def turn_after_turn(number: int) -> int:
        try:
            turn = begin(session, f"w:{number}:x")
            for _ in range(5):
                records.complete_row(turn, say(turn), content="Well.", tokens=3)
            records.finish(turn, Turn.Status.COMPLETE, {}, None)
        except records.TurnRunning:
            new_message(session, tokens=1)
        finally:
            connection.close()
        return number

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(turn_after_turn, range(40)))) == 40
    assert is_exact(session)
    assert Turn.objects.filter(status="complete").count() == Turn.objects.count()
    assert session.message_count == 40 + 5 * Turn.objects.count()


# What is removed


@pytest.mark.parametrize("state", ["running", "complete"])
def test_a_purge_takes_the_turns_along(session: Session, state: str) -> None:
    turn = begin(session)
    if state == "complete":
        records.finish(turn, state, {}, None)
    services.trash_session(session)
    removed = retention.purge(timezone.now() + timedelta(minutes=1), lambda _: None)
    assert (str(removed), Turn.objects.count(), Session.objects.count()) == ("1 sessions with 1 messages", 0, 0)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_turn_whose_session_is_purged_ends(session: Session, write: Any) -> None:
    turn = begin(session)
    reply = say(turn)
    services.trash_session(session)
    retention.purge(timezone.now() + timedelta(minutes=1), lambda _: None)
    with pytest.raises(services.SessionGone):
        write(turn, reply)


def test_an_erased_user_leaves_no_turn(mallory: Caller, session: Session) -> None:
    begin(new_session(mallory))
    kept = begin(session)
    call_command("eraseuser", str(mallory.user.pk), "--no-input", stdout=StringIO())
    assert list(Turn.objects.all()) == [kept]


def test_a_deleted_session_asks_its_turn_to_stop(session: Session) -> None:
    turn = begin(session)
    services.trash_session(session)
    assert row(Turn, turn.pk)["stop_requested_at"]
