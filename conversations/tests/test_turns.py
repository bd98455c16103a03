"""What a turn writes, one at a time, with exact counters (design 3.1, 3.2, 3.6)."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from chatstore.retries import Retry
from conftest import Caller, new_message, new_session, row
from conversations.chat import records
from conversations.models import Message, Session, Turn
from conversations.tests.turns import HERE, THERE, begin, expire, is_exact, mark, running, say, status

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
