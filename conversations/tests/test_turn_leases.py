"""Who may write a turn: its worker under a lease, and nobody once it is lost or removed (design 3.1, 3.2, 3.6)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from conftest import Caller, new_session, row
from conversations import retention, services
from conversations.chat import records
from conversations.models import Message, Session, Turn
from conversations.tests.turns import (
    HERE,
    THERE,
    begin,
    expire,
    is_exact,
    locked_elsewhere,
    mark,
    running,
    say,
    status,
)

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


@pytest.mark.parametrize(
    "write",
    [
        lambda turn, _: say(turn),
        lambda turn, reply: records.complete_row(turn, reply, content="Well."),
        lambda turn, _: records.trace_question(turn, "run-1"),
    ],
    ids=["adds", "completes", "traces"],
)
def test_every_write_renews_the_lease(session: Session, write: Callable[[Turn, Message], Any]) -> None:
    turn = begin(session)
    reply = say(turn)
    expire(turn)
    write(turn, reply)
    assert Turn.objects.get().lease_until > timezone.now()


def test_a_turn_whose_lease_is_late_is_asked_to_stop_too(session: Session) -> None:
    """Its worker may renew it the next moment."""
    turn = begin(session)
    expire(turn)
    records.ask_to_stop(session)
    assert records.renew([running(turn, None)], HERE) == {turn.pk: True}


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


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_settling_passes_over_a_locked_session(alice: Caller) -> None:
    sessions = [new_session(alice) for _ in range(2)]
    turns = [begin(session) for session in sessions]
    for turn in turns:
        expire(turn)
    with locked_elsewhere(Session.objects.filter(pk=sessions[0].pk)):
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


def test_settling_passes_over_a_turn_that_cannot_be_settled(
    alice: Caller, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds a row of its reply, say, for longer than a statement waits."""
    turns = [begin(session), begin(new_session(alice))]
    for turn in turns:
        expire(turn)
    end_turn = services.end_turn

    def busy(session: Session, turn: Turn, status: str) -> bool:
        if turn == turns[0]:
            raise OperationalError("canceling statement due to lock timeout")
        return end_turn(session, turn, status)

    monkeypatch.setattr(services, "end_turn", busy)
    assert records.settle() == 1
    assert [status(turn) for turn in turns] == ["running", "interrupted"]


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
