"""The same message again: its key joins the reply that runs, and brings back the one that is over (contract 4)."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conftest import Caller
from conversations import services
from conversations.chat.keeper import KEEPER
from conversations.models import Message, Session, Turn
from conversations.tests import chat_clients
from conversations.tests.chat_clients import (
    NOT_FOUND,
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
from conversations.tests.scripted import GATE, gate, paced, pause, script, text, tool, tool_done

pytestmark = [pytest.mark.waits, pytest.mark.django_db(transaction=True)]

assistant = chat_clients.assistant
place = chat_clients.place
server = chat_clients.server


def test_the_same_key_joins_the_reply_from_its_beginning(alice: Caller) -> None:
    said = script(text("One "), tool("a"), gate(), tool_done("a", "3 rows"), text("two"))
    first = begun(alice, said, Idempotency_Key="k")
    wait_until(lambda: Message.objects.count() == 3)
    second = begun(alice, said, Idempotency_Key="k")
    GATE.set()
    assert read(second) == read(first)
    assert (second["Idempotency-Replayed"], "Idempotency-Replayed" in first) == ("true", False)
    assert (Session.objects.count(), Turn.objects.count(), Message.objects.count()) == (1, 1, 4)


def test_the_same_key_brings_the_same_answer_after_the_end(alice: Caller, place: str) -> None:
    first = alice.post(place, {"message": "Hello"}, Idempotency_Key="k")
    once = b"".join(first)
    KEEPER.forget_ended()  # Some seconds later.
    again = alice.post(place, {"message": "Hello"}, Idempotency_Key="k")
    assert without_times(b"".join(again)) == without_times(once)
    assert again["Idempotency-Replayed"] == "true"
    assert (Session.objects.count(), Turn.objects.count(), Message.objects.count()) == (1, 1, 2)


def without_times(body: bytes) -> bytes:
    """When a message was complete is stored a moment before it is told."""
    return re.sub(rb'"timestamp":"[^"]*"', b"", body)


def test_the_same_key_at_once_makes_one_reply(alice: Caller) -> None:
    def send(_: int) -> Any:
        person = Caller(alice.user, alice.token)
        said = {"message": script(text("Hello"), pause(0.3))}
        return in_thread(lambda: person.post("/api/chat", said, Idempotency_Key="k"))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert (Session.objects.count(), Turn.objects.count(), Message.objects.count()) == (1, 1, 2)


def test_the_same_key_in_another_worker_joins_the_reply(alice: Caller, server: int) -> None:
    said = paced([text(f"{number} ") for number in range(20)] + [tool("a"), tool_done("a"), text("!")], 0.05)
    there = Stream(server, alice, body_of(said), Idempotency_Key="k")
    next(there.events)
    here = begun(alice, said, Idempotency_Key="k")
    events = read(here)
    assert text_of(events) == text_of(there.rest())
    assert [event for event in types(events) if event != "text_delta"] == [
        "message_created", "tool_call_started", "tool_call_completed", "message_created", "done",
    ]  # fmt: skip
    assert here["Idempotency-Replayed"] == "true"
    assert (Session.objects.count(), Turn.objects.count(), Message.objects.count()) == (1, 1, 4)


def test_the_same_key_in_another_worker_after_the_end(alice: Caller, server: int) -> None:
    there = Stream(server, alice, body_of("Hello"), Idempotency_Key="k").rest()
    here = streamed(alice, "Hello", Idempotency_Key="k")
    assert (text_of(here), here[-1]) == (text_of(there), there[-1])


def test_a_key_for_another_message_is_422(alice: Caller, session: Session, place: str) -> None:
    streamed(alice, "Hello", session, Idempotency_Key="k")
    answer = alice.post(place, body_of("Other", session), Idempotency_Key="k")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert len(rows(session)) == 2


@REFUSED
def test_a_key_of_a_message_that_was_only_appended_is_422(alice: Caller, session: Session) -> None:
    place = f"/api/sessions/{session.pk}/messages/"
    alice.post(place, {"role": "user", "content": "Hello"}, Idempotency_Key="k")
    answer = alice.post("/api/chat", body_of("Hello", session), Idempotency_Key="k")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


@REFUSED
@pytest.mark.parametrize("key", ["", "a" * 256, "\u20ac"], ids=["empty", "long", "not-ascii"])
def test_a_malformed_key_is_422(alice: Caller, key: str) -> None:
    answer = alice.post("/api/chat", {"message": "Hello"}, Idempotency_Key=key)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["header", "Idempotency-Key"])


@pytest.mark.parametrize("deleted", ["message", "session"])
def test_a_key_of_what_is_deleted_is_404(alice: Caller, deleted: str) -> None:
    streamed(alice, "Hello", Idempotency_Key="k")
    session = Session.objects.get()
    if deleted == "session":
        services.trash_session(session)
    else:
        services.delete_message(Message.objects.get(role="user"))
    answer = alice.post("/api/chat", {"message": "Hello"}, Idempotency_Key="k")
    assert (answer.status_code, answer.json()["detail"]) == (404, NOT_FOUND)
