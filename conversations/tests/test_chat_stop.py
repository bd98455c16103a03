"""POST /api/sessions/{ref}/stop/: a reply that runs is stopped, and what it said is kept (contract 4)."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import Caller
from conversations import services
from conversations.models import Session, Turn
from conversations.tests import chat_clients
from conversations.tests.chat_clients import (
    REFUSED,
    Stream,
    begun,
    body_of,
    in_thread,
    read,
    rows,
    streamed,
    text_of,
    types,
    wait_until,
)
from conversations.tests.scripted import GATE, gate, pause, script, text, tool

pytestmark = [pytest.mark.waits, pytest.mark.django_db(transaction=True)]

assistant = chat_clients.assistant
server = chat_clients.server


def stop(person: Caller, session: Session) -> int:
    return int(person.post(f"/api/sessions/{session.session_id}/stop/").status_code)


def test_a_reply_is_stopped_and_its_text_is_kept(alice: Caller, session: Session) -> None:
    said = script(text("One "), text("two "), gate(), text("three"))
    answer = begun(alice, said, session)
    wait_until(lambda: len(rows(session)) == 2)
    assert stop(alice, session) == 202
    events = read(answer)
    assert events[-1] == {"type": "error", "detail": "The reply was interrupted."}
    assert rows(session)[1] == ("assistant", text_of(events), "interrupted")
    assert (Turn.objects.get().status, Turn.objects.get().stop_requested_at is None) == ("interrupted", False)


def test_what_an_assistant_says_after_the_stop_is_not_heard(alice: Caller, session: Session) -> None:
    answer = begun(alice, script(text("One "), gate(), text("two"), tool("a")), session)
    wait_until(lambda: len(rows(session)) == 2)
    stop(alice, session)
    before = rows(session)
    GATE.set()
    assert types(read(answer)) == ["text_delta", "error"]
    wait_until(lambda: not any(thread.name.startswith("turn ") for thread in threading.enumerate()))
    assert rows(session) == before


def test_a_plain_answer_that_is_stopped_holds_what_was_said(alice: Caller, session: Session) -> None:
    said = script(text("One "), gate(), text("two"))
    person = Caller(alice.user, alice.token)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(in_thread, lambda: person.post("/api/chat", body_of(said, session)))
        wait_until(lambda: len(rows(session)) == 2)
        stop(alice, session)
        answer = waiting.result(10)
    assert (answer.status_code, answer.json()["assistant_message"]["content"]) == (200, "One ")


def test_the_next_message_is_taken_right_after_a_stop(alice: Caller, session: Session) -> None:
    begun(alice, script(gate()), session).close()
    stop(alice, session)
    assert types(streamed(alice, "Hello", session))[-1] == "done"


def test_a_stop_in_another_worker_is_seen_within_a_second_or_so(
    alice: Caller, session: Session, server: int
) -> None:
    stream = Stream(server, alice, body_of(script(text("One "), pause(8), text("two")), session))
    next(stream.events)
    asked_at = time.monotonic()
    assert stop(alice, session) == 202
    assert stream.rest()[-1] == {"type": "error", "detail": "The reply was interrupted."}
    assert time.monotonic() - asked_at < 3
    assert rows(session)[1] == ("assistant", "One ", "interrupted")


def test_a_deleted_session_stops_its_reply(alice: Caller, session: Session) -> None:
    answer = begun(alice, script(text("One "), gate(), tool("a")), session)
    wait_until(lambda: len(rows(session)) == 2)
    alice.delete(f"/api/sessions/{session.pk}/")
    assert types(read(answer)) == ["text_delta", "error"]
    assert Turn.objects.get().status == "interrupted"


def test_an_assistant_that_goes_on_in_a_deleted_session_has_not_failed(alice: Caller, session: Session) -> None:
    """It may be quicker than whoever sees the stop."""
    answer = begun(alice, script(gate(), text("Hello")), session)
    services.trash_session(session)
    GATE.set()
    assert read(answer)[-1] == {"type": "error", "detail": "The reply was interrupted."}
    assert Turn.objects.get().status == "interrupted"


@REFUSED
def test_where_nothing_runs_a_stop_changes_nothing(alice: Caller, session: Session) -> None:
    before = Session.objects.get(pk=session.pk).version
    assert stop(alice, session) == 202
    assert Session.objects.get(pk=session.pk).version == before


@pytest.mark.parametrize("who", ["mallory", "bob", "carol"])
def test_nobody_else_stops_a_reply(
    request: pytest.FixtureRequest, alice: Caller, session: Session, who: str
) -> None:
    answer = begun(alice, script(gate(), text("Hello")), session)
    assert stop(request.getfixturevalue(who), session) == 403
    GATE.set()
    assert types(read(answer))[-1] == "done"


@REFUSED
@pytest.mark.parametrize("ref", ["1000000000", "x", str(uuid.uuid4())], ids=["integer", "malformed", "uuid"])
def test_a_stop_of_no_session_is_404(alice: Caller, ref: str) -> None:
    assert alice.post(f"/api/sessions/{ref}/stop/").status_code == 404
