"""POST /api/chat and /api/chat/stream: a message, and what the assistant makes of it (contract 4)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import pytest
from pytest_django import Settings

from conftest import Caller, new_message, new_session
from conversations import services
from conversations.chat.assistants import Echo
from conversations.models import Message, Session, Turn
from conversations.tests import chat_clients
from conversations.tests.chat_clients import (
    REFUSED,
    begun,
    body_of,
    configure,
    in_thread,
    read,
    rows,
    streamed,
    text_of,
    types,
    wait_until,
)
from conversations.tests.scripted import GATE, STORY, gate, message, pause, script, text, tool, tool_done

pytestmark = pytest.mark.django_db(transaction=True)

assistant = chat_clients.assistant
place = chat_clients.place


# A turn


def test_it_works(alice: Caller, settings: Settings) -> None:
    configure(settings, assistant=f"{Echo.__module__}.Echo")
    answer = alice.post("/api/chat", {"message": "Hello, world"})
    session = Session.objects.get()
    said, reply = Message.objects.order_by("position")
    shown = {"message_metadata": None}
    assert answer.status_code == 200
    assert answer.json() == {
        "conversation_id": session.pk,
        "user_message": {"id": said.pk, "role": "user", "content": "Hello, world", **shown, **made(said)},
        "assistant_message": {
            "id": reply.pk, "role": "assistant", "content": "Echo: Hello, world", **shown, **made(reply),
        },
        "operations": [],
    }  # fmt: skip


def made(row: Message) -> dict[str, str]:
    return {"created_at": f"{row.created_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}


def test_what_happened_is_stored_in_its_order(alice: Caller) -> None:
    streamed(alice, STORY)
    session = Session.objects.get()
    assert rows(session) == [
        ("user", STORY, "complete"),
        ("assistant", "Let me look.", "complete"),
        ("tool_call", "Called search", "complete"),
        ("tool_call", "Called fetch", "complete"),
        ("assistant", "Found.", "complete"),
        ("assistant", "Bye.", "complete"),
    ]
    assert (session.message_count, session.tokens) == (6, 7)


def test_a_plain_answer_holds_the_last_text_and_the_tools(alice: Caller) -> None:
    answer = alice.post("/api/chat", {"message": STORY}).json()
    assert answer["assistant_message"]["content"] == "Bye."
    assert [operation["details"] for operation in answer["operations"]] == ["3 rows", "1 page"]


def test_traces_are_stored(alice: Caller) -> None:
    steps = [
        text("Hi", trace_id="run-1"),
        tool("a", span_id="call"),
        tool_done("a"),
        text("Ho"),
        message(span_id="x"),
    ]
    streamed(alice, script(*steps))
    found = Message.objects.filter(trace_id="run-1").order_by("position").values_list("content", "span_id")
    assert list(found)[1:] == [("Hi", None), ("Called search", "call"), ("Ho", "x")]
    assert Message.objects.get(position=1).trace_id == "run-1"  # The question's, too.
    assert Turn.objects.get().trace_id == "run-1"


@pytest.mark.parametrize("place", ["/api/chat/", "/api/chat/stream/"], ids=["plain", "stream"])
def test_a_slash_at_the_end_makes_no_difference(alice: Caller, place: str) -> None:
    answer = alice.post(place, {"message": "Hello"})
    assert (answer.status_code, b"Hello" in b"".join(answer)) == (200, True)


def test_the_assistant_is_told_the_conversation_so_far(alice: Caller, assistant: Callable[[str], None]) -> None:
    session = new_session(alice)
    new_message(session, "Be brief.", "system")
    services.delete_message(new_message(session, "Deleted"))
    new_message(session, "Called search", "tool_call")
    new_message(session, "Yes?", "assistant")
    assistant("Historian")
    told = json.loads(text_of(streamed(alice, "Hello", session)))
    assert told == [str(session.session_id), [["system", "Be brief."], ["assistant", "Yes?"], ["user", "Hello"]]]


def test_the_message_is_stored_before_the_assistant_is_asked(alice: Caller) -> None:
    said = script(gate(), text("Hello"))
    answer = begun(alice, said)
    session = Session.objects.get()
    assert rows(session) == [("user", said, "complete")]
    assert Turn.objects.get().status == "running"
    GATE.set()
    assert types(read(answer))[-1] == "done"


def test_a_running_text_is_saved_within_a_second(alice: Caller) -> None:
    answer = begun(alice, script(text("One "), text("two "), gate(), text("three")))
    wait_until(lambda: Message.objects.filter(content="One two ", status="streaming").exists(), 1.5)
    GATE.set()
    assert text_of(read(answer)) == "One two three"


def test_what_nobody_knows_is_ignored(alice: Caller, place: str) -> None:
    sent = {"message": "Hello", "user_id": "u", "model": {"name": "m"}, "stream": True}
    answer = alice.post(f"{place}?ui=web&ui=app&empty=", sent, X_Timezone="Asia/Karachi")
    assert (answer.status_code, b"Hello" in b"".join(answer)) == (200, True)


@REFUSED
def test_elsewhere_it_is_not(alice: Caller, session: Session) -> None:
    assert alice.post("/api/sessions/", {"model": "m"}).status_code == 422
    assert alice.post(f"/api/sessions/{session.pk}/stop/?ui=web").status_code == 422


# One turn at a time


def test_a_second_message_waits_for_nobody(alice: Caller, session: Session, place: str) -> None:
    first = begun(alice, script(gate(), text("Hello")), session)
    second = alice.post(place, body_of("And?", session))
    assert (second.status_code, second.json()["code"]) == (409, "turn_running")
    GATE.set()
    read(first)
    assert [row[0] for row in rows(session)] == ["user", "assistant"]


def test_the_next_message_is_taken_when_the_reply_is_over(alice: Caller, session: Session) -> None:
    assert [types(streamed(alice, "Hello", session))[-1] for _ in range(3)] == ["done"] * 3
    assert len(rows(session)) == 6


def test_of_many_messages_at_once_one_is_taken(alice: Caller, session: Session) -> None:
    def send(number: int) -> int:
        person = Caller(alice.user, alice.token)
        said = script(text(f"{number}"), pause(1))
        return in_thread(lambda: person.post("/api/chat", body_of(said, session)).status_code)

    with ThreadPoolExecutor(8) as pool:
        assert Counter(pool.map(send, range(8))) == {200: 1, 409: 7}
    assert len(rows(session)) == 2


def test_two_conversations_run_side_by_side(alice: Caller) -> None:
    first = begun(alice, script(gate(), text("Hello")))
    assert text_of(streamed(alice, "Hi")) == "Hi"
    GATE.set()
    assert text_of(read(first)) == "Hello"


# What the contract says of every route


@REFUSED
@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "DELETE"])
def test_other_verbs_are_405(alice: Caller, verb: str, place: str) -> None:
    assert alice.send(verb, place).status_code == 405


@REFUSED
def test_another_content_type_is_415(alice: Caller, place: str) -> None:
    assert alice.send("POST", place, b"message=Hello", Content_Type="text/plain").status_code == 415
