"""POST /api/chat and /api/chat/stream: a message, and what the assistant makes of it (contract 4)."""

from __future__ import annotations

import ast
import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from chatstore.environment import BASE_DIR
from chatstore.tests.serving import fetch, own_database_url, serving
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.chat import records, sse, stored, views
from conversations.chat.assistants import Echo
from conversations.chat.keeper import KEEPER
from conversations.models import Message, Session, Turn
from conversations.tests import scripted
from conversations.tests.chat_clients import FrontEnd, Stream, events_of, text_of, types
from conversations.tests.scripted import (
    GATE,
    SCRIPTED,
    SECRET,
    fail,
    gate,
    message,
    paced,
    pause,
    script,
    text,
    tool,
    tool_done,
)

pytestmark = pytest.mark.django_db(transaction=True)

NOT_FOUND = "Conversation not found or you don't have access"
REFUSED = pytest.mark.django_db  # No turn runs, so that nobody else need see what is stored.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture(autouse=True)
def assistant(settings: Settings) -> Iterator[Callable[[str], None]]:
    """The scripted assistant, or another one of those."""

    def choose(name: str) -> None:
        configure(settings, assistant=f"{scripted.__name__}.{name}")

    choose("Scripted")
    with scripted.no_turns_left():
        yield choose


@pytest.fixture(params=["/api/chat", "/api/chat/stream"], ids=["plain", "stream"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def configure(settings: Settings, **changes: Any) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update=changes)


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[int]:
    """Another process on the same database."""
    with serving(own_database_url(), ASSISTANT=SCRIPTED) as port:
        yield port


def body_of(said: str, conversation: Any = None) -> dict[str, Any]:
    """What is sent. A conversation is a session or any reference."""
    return {
        "message": said,
        "conversation_id": conversation.pk if isinstance(conversation, Session) else conversation,
    }


def begun(person: Caller, said: str, conversation: Any = None, **headers: str) -> Any:
    """A stream that is open, and not read yet."""
    answer = person.post("/api/chat/stream", body_of(said, conversation), **headers)
    assert answer.status_code == 200, answer.json()
    return answer


def read(answer: Any) -> list[dict[str, Any]]:
    return events_of(b"".join(answer.streaming_content))


def streamed(person: Caller, said: str, conversation: Any = None, **headers: str) -> list[dict[str, Any]]:
    return read(begun(person, said, conversation, **headers))


def rows(session: Session) -> list[tuple[str, str, str]]:
    found = Message.objects.filter(session=session).order_by("position")
    return [(row.role, row.content, row.status) for row in found]


def wait_until(is_so: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "It does not come about."
        time.sleep(0.02)


def in_thread(work: Callable[[], Any]) -> Any:
    """A job for a thread, which leaves no connection."""
    try:
        return work()
    finally:
        connection.close()


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


def test_a_stream_works(alice: Caller, settings: Settings) -> None:
    configure(settings, assistant=f"{Echo.__module__}.Echo")
    *deltas, created, done = streamed(alice, "Hello, world")
    reply = Message.objects.get(role="assistant")
    assert TIME.fullmatch(created.pop("timestamp"))
    assert deltas == [{"type": "text_delta", "content": part} for part in ("Echo:", " Hello,", " world")]
    assert created == {
        "type": "message_created", "role": "assistant", "content": "Echo: Hello, world", "message_id": reply.pk,
    }  # fmt: skip
    assert done == {"type": "done", "conversation_id": reply.session_id, "operations": []}


STORY = script(
    text("Let me "), text("look."), tool("a", "search"), tool("b", "fetch"), tool_done("b", "1 page"),
    tool_done("a", "3 rows"), text("Found."), message(tokens=7), text("Bye."),
)  # fmt: skip


def test_the_events_come_in_the_order_of_what_happened(alice: Caller) -> None:
    events = streamed(alice, STORY)
    for event in events:
        event.pop("message_id", None)
        assert TIME.fullmatch(event.pop("timestamp", "2026-01-01T00:00:00.000000Z"))
    created = {"type": "message_created", "role": "assistant"}
    assert events == [
        {"type": "text_delta", "content": "Let me "},
        {"type": "text_delta", "content": "look."},
        {**created, "content": "Let me look."},
        {"type": "tool_call_started", "tool_name": "search"},
        {"type": "tool_call_started", "tool_name": "fetch"},
        {"type": "tool_call_completed", "tool_name": "fetch", "result_summary": "1 page"},
        {"type": "tool_call_completed", "tool_name": "search", "result_summary": "3 rows"},
        {"type": "text_delta", "content": "Found."},
        {**created, "content": "Found."},
        {"type": "text_delta", "content": "Bye."},
        {**created, "content": "Bye."},
        {
            "type": "done",
            "conversation_id": Session.objects.get().pk,
            "operations": [
                {"tool_name": "search", "status": "completed", "details": "3 rows"},
                {"tool_name": "fetch", "status": "completed", "details": "1 page"},
            ],
        },
    ]


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


@pytest.mark.parametrize("accepted", ["text/event-stream", "application/json, text/event-stream;q=0.9"])
def test_accept_chooses_the_stream(alice: Caller, accepted: str) -> None:
    answer = alice.post("/api/chat", {"message": "Hello"}, Accept=accepted)
    assert types(read(answer)) == ["text_delta", "message_created", "done"]


def test_the_headers_of_a_stream_keep_proxies_from_holding_it_back(alice: Caller) -> None:
    answer = begun(alice, "Hello")
    read(answer)
    assert answer["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer["Cache-Control"] == "no-cache, no-transform"
    assert answer["X-Accel-Buffering"] == "no"
    assert "ETag" not in answer


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


# Who, and where


@REFUSED
def test_nobody_may_not_chat(nobody: Caller, place: str) -> None:
    assert nobody.post(place, {"message": "Hello"}).status_code == 401


NAMES: dict[str, Callable[[Session], Any]] = {
    "integer": lambda session: session.pk,
    "string": lambda session: str(session.pk),
    "uuid": lambda session: str(session.session_id),
    "upper-case": lambda session: str(session.session_id).upper(),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_conversation_goes_on(
    alice: Caller, session: Session, place: str, name: Callable[[Session], Any]
) -> None:
    b"".join(alice.post(place, {"message": "Hello", "conversation_id": name(session)}))
    assert rows(session) == [("user", "Hello", "complete"), ("assistant", "Hello", "complete")]


@pytest.mark.parametrize("sent", [{}, {"conversation_id": None}], ids=["absent", "null"])
def test_without_a_conversation_one_is_made(alice: Caller, sent: dict[str, Any]) -> None:
    before = datetime.now(UTC)
    answer = alice.post("/api/chat", {"message": "Hello", **sent}).json()
    session = Session.objects.get(pk=answer["conversation_id"])
    moments = {f"Chat - {moment:%Y-%m-%d %H:%M}" for moment in (before, datetime.now(UTC))}
    assert session.title in moments
    assert session.owner == alice.user
    assert session.workspace == alice.user.personal_workspace()


def test_the_first_message_names_it_where_that_is_wanted(alice: Caller, settings: Settings) -> None:
    configure(settings, auto_title=True)
    streamed(alice, "How do I   bake bread?")
    assert Session.objects.get().title == "How do I bake bread?"


MALFORMED = ["x", "", 0, -1, 1.5, True, [], {}, 2**63, "1 ", "\x00", str(uuid.uuid4())[:-1]]


@REFUSED
@pytest.mark.parametrize("ref", MALFORMED, ids=repr)
def test_a_malformed_conversation_is_422(alice: Caller, place: str, ref: Any) -> None:
    answer = alice.post(place, {"message": "Hello", "conversation_id": ref})
    assert (answer.status_code, answer["Content-Type"]) == (422, "application/problem+json")
    assert answer.json()["errors"][0]["loc"] == ["body", "conversation_id"]
    assert not Message.objects.exists()


@REFUSED
@pytest.mark.parametrize("who", ["mallory", "bob", "carol", "sam"])
def test_other_peoples_conversations_are_not_found(
    request: pytest.FixtureRequest, session: Session, place: str, who: str
) -> None:
    """Also by the admin of the workspace (carol): an admin reads, and does not append."""
    answer = request.getfixturevalue(who).post(place, body_of("Hello", session))
    assert (answer.status_code, answer.json()["detail"]) == (404, NOT_FOUND)
    assert rows(session) == []


@REFUSED
@pytest.mark.parametrize("ref", [10**9, str(uuid.uuid4())], ids=["integer", "uuid"])
def test_an_absent_conversation_is_not_found(alice: Caller, place: str, ref: Any) -> None:
    answer = alice.post(place, body_of("Hello", ref))
    assert (answer.status_code, answer.json()["detail"]) == (404, NOT_FOUND)
    assert not Session.objects.exists()


@REFUSED
def test_a_deleted_conversation_is_not_found(alice: Caller, session: Session, place: str) -> None:
    services.trash_session(session)
    answer = alice.post(place, body_of("Hello", session))
    assert (answer.status_code, answer.json()["detail"]) == (404, NOT_FOUND)


@REFUSED
def test_the_quota_of_sessions_holds(alice: Caller, settings: Settings, place: str) -> None:
    configure(settings, max_sessions_per_user=1)
    new_session(alice)
    answer = alice.post(place, {"message": "Hello"})
    assert (answer.status_code, answer.json()["code"]) == (400, "session_quota_reached")


MESSAGES: dict[str, Any] = {
    "absent": {},
    "null": {"message": None},
    "empty": {"message": ""},
    "number": {"message": 5},
    "list": {"message": ["Hello"]},
    "nul": {"message": "a\x00"},
    "surrogate": {"message": "a\ud800"},
    "too-long": {"message": "a" * (2**20 + 1)},
    "too-long-in-bytes": {"message": "\u20ac" * (2**20 // 3 + 1)},
}


@REFUSED
@pytest.mark.parametrize("sent", MESSAGES.values(), ids=MESSAGES.keys())
def test_a_message_that_is_none_is_422(alice: Caller, place: str, sent: Any) -> None:
    answer = alice.post(place, sent)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", "message"])
    assert not Session.objects.exists()


def test_white_space_is_a_message(alice: Caller) -> None:
    assert text_of(streamed(alice, " \n")) == " \n"


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


# The same message again


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


# Assistants that fail


FAILURES: dict[str, tuple[str, str, str]] = {
    "raises": ("Scripted", script(text("Some"), fail()), "Some"),
    "raises-at-once": ("Scripted", script(fail()), ""),
    "raises-where-it-is-asked": ("Refuses", "Hello", ""),
    "quits": ("Quits", "Hello", "Goodbye"),
    "yields-no-event": ("Babbles", "Hello", "Hello"),
    "text-that-is-none": ("Scripted", script(text("Some"), ("TextDelta", {"content": 5})), "Some"),
    "tokens-below-zero": ("Scripted", script(text("Some"), message(tokens=-1)), "Some"),
    "tokens-beyond-the-column": ("Scripted", script(text("Some"), message(tokens=2**31)), "Some"),
}
FAILING = pytest.mark.parametrize(("name", "said", "kept"), FAILURES.values(), ids=FAILURES.keys())


@FAILING
def test_an_assistant_that_fails_is_502(
    alice: Caller,
    assistant: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    name: str,
    said: str,
    kept: str,
) -> None:
    assistant(name)
    answer = alice.post("/api/chat", {"message": said})
    assert (answer.status_code, answer.json()["code"]) == (502, "assistant_failed")
    assert SECRET not in answer.content.decode() + caplog.text
    assert (Turn.objects.get().status, Turn.objects.get().finished_at is None) == ("failed", False)


@FAILING
def test_an_assistant_that_fails_ends_the_stream_with_one_error(
    alice: Caller, assistant: Callable[[str], None], name: str, said: str, kept: str
) -> None:
    assistant(name)
    events = streamed(alice, said)
    assert events[-1] == {"type": "error", "detail": "The assistant failed."}
    assert [event for event in types(events) if event in ("done", "error")] == ["error"]
    assert text_of(events) == kept
    question, *rest = rows(Session.objects.get())
    assert question == ("user", said, "complete")
    assert rest == ([("assistant", kept, "failed")] if kept else [])


def test_after_a_failure_the_conversation_goes_on(alice: Caller, session: Session) -> None:
    streamed(alice, script(text("Some"), fail()), session)
    assert types(streamed(alice, "Hello", session))[-1] == "done"


def test_the_same_key_of_a_failed_turn_fails_again(alice: Caller) -> None:
    answers = [alice.post("/api/chat", {"message": script(fail())}, Idempotency_Key="k") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [502, 502]
    assert Turn.objects.count() == 1


def test_an_assistant_may_say_nothing(alice: Caller) -> None:
    answer = alice.post("/api/chat", {"message": script()})
    assert (answer.status_code, answer.json()["assistant_message"]) == (200, None)
    assert types(streamed(alice, script(text(""), message()))) == ["done"]


UNSTORABLE = "a\x00b\ud800c"
STORED = "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_text_that_cannot_be_stored_is_mended(alice: Caller) -> None:
    assert text_of(streamed(alice, script(text(UNSTORABLE)))) == STORED
    assert Message.objects.get(role="assistant").content == STORED


def test_tools_whose_words_cannot_be_stored_are_mended(alice: Caller) -> None:
    events = streamed(alice, script(tool("a", UNSTORABLE), tool_done("a", UNSTORABLE)))
    assert [event.get("tool_name") for event in events[:2]] == [STORED, STORED]
    assert events[1]["result_summary"] == STORED
    assert events[-1]["operations"] == [{"tool_name": STORED, "status": "completed", "details": STORED}]


@pytest.mark.parametrize(("sent", "kept"), [(UNSTORABLE, STORED), ("t" * 300, "t" * 255)], ids=["nul", "long"])
@pytest.mark.parametrize("name", ["trace_id", "span_id"])
def test_traces_that_cannot_be_stored_are_mended(alice: Caller, name: str, sent: str, kept: str) -> None:
    events = streamed(alice, script(tool("a", **{name: sent}), tool_done("a", **{name: sent}), text("Hello")))
    assert types(events)[-1] == "done"
    assert Message.objects.filter(**{name: kept}).exists()


def test_a_name_of_a_tool_that_is_too_long_is_cut(alice: Caller) -> None:
    assert streamed(alice, script(tool("a", "n" * 300)))[0]["tool_name"] == "n" * 255


def test_a_very_long_text_is_kept(alice: Caller) -> None:
    events = streamed(alice, script(*[text("0123456789" * 20_000)] * 5))
    assert types(events)[-1] == "done"
    assert Message.objects.get(role="assistant").content == "0123456789" * 100_000


def test_a_tool_that_does_not_come_to_an_end_is_interrupted(alice: Caller) -> None:
    done = streamed(alice, script(tool("a"), text("Well.")))[-1]
    assert done["operations"] == [{"tool_name": "search", "status": "interrupted", "details": ""}]
    assert rows(Session.objects.get())[1:] == [
        ("tool_call", "Called search", "interrupted"),
        ("assistant", "Well.", "complete"),
    ]


def test_a_tool_ends_once_and_only_if_it_began(alice: Caller) -> None:
    events = streamed(alice, script(tool_done("b"), tool("a"), tool_done("a", "1"), tool_done("a", "2")))
    assert types(events) == ["tool_call_started", "tool_call_completed", "done"]
    assert events[-1]["operations"] == [{"tool_name": "search", "status": "completed", "details": "1"}]


def test_two_tools_with_one_call_id_are_both_closed(alice: Caller) -> None:
    events = streamed(alice, script(tool("a"), tool("a"), tool_done("a")))
    assert types(events) == ["tool_call_started", "tool_call_started", "tool_call_completed", "done"]
    assert not Message.objects.filter(status="streaming").exists()


# Stop


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


# Streams that are open


def test_silence_is_filled_with_comments(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "HEARTBEAT_SECONDS", 0.05)
    answer = begun(alice, script(gate(), text("Hello")))
    chunks = iter(answer.streaming_content)
    assert [next(chunks) for _ in range(4)] == [b": open\n\n"] + [b": keep-alive\n\n"] * 3
    GATE.set()
    assert types(events_of(b"".join(chunks))) == ["text_delta", "message_created", "done"]


def test_silence_of_another_worker_is_filled_too(
    alice: Caller, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "HEARTBEAT_SECONDS", 0.05)
    said = script(text("Hello"), pause(2))
    there = Stream(server, alice, body_of(said), Idempotency_Key="k")
    next(there.events)
    body = b"".join(begun(alice, said, Idempotency_Key="k").streaming_content)
    assert body.count(b": keep-alive\n\n") >= 2
    assert types(events_of(body)) == types(there.rest())


def test_a_stream_too_many_is_503_and_nothing_is_stored(alice: Caller, settings: Settings) -> None:
    configure(settings, web_threads=2, stream_share=0.5)
    assert sse.SLOTS.taken == 0
    first = begun(alice, script(gate(), text("Hello")))
    refused = [alice.post(place, {"message": "Hi"}) for place in ("/api/chat", "/api/chat/stream")]
    assert [(answer.status_code, int(answer["Retry-After"]) > 0) for answer in refused] == [(503, True)] * 2
    assert (Session.objects.count(), Message.objects.count()) == (1, 1)
    assert alice.get("/api/conversations").status_code == 200
    GATE.set()
    read(first)
    assert text_of(streamed(alice, "Hi")) == "Hi"


@REFUSED
@pytest.mark.parametrize(
    "sent", [{"message": ""}, {"message": "Hi", "conversation_id": 10**9}], ids=["422", "404"]
)
def test_what_is_refused_leaves_no_stream_open(alice: Caller, sent: dict[str, Any]) -> None:
    alice.post("/api/chat/stream", sent)
    alice.post("/api/chat", sent)
    assert sse.SLOTS.taken == 0


def test_a_client_that_leaves_makes_room(alice: Caller) -> None:
    """A server of two streams: plain requests are answered while both are open."""
    said = body_of(paced([text(f"{number} ") for number in range(10)], 0.1))
    headers = {"Authorization": f"Bearer {alice.token}", "Content_Type": "application/json"}
    with serving(own_database_url(), ASSISTANT=SCRIPTED, WEB_THREADS="4", STREAM_SHARE="0.5") as port:
        streams = [Stream(port, alice, said) for _ in range(2)]
        refused, _ = fetch(port, "POST", "/api/chat/stream", json.dumps(said).encode(), **headers)
        plain = [fetch(port, "GET", "/api/conversations", **headers)[0].status for _ in range(5)]
        for stream in streams:
            next(stream.events)
            stream.reset()
        wait_until(lambda: is_taken(port, alice))
    assert (refused.status, refused.headers["Retry-After"] is None, plain) == (503, False, [200] * 5)


def is_taken(port: int, person: Caller) -> bool:
    stream = Stream(port, person, body_of("Hello"))
    stream.close()
    return bool(stream.answer.status == 200)


def names_in(tree: ast.AST) -> set[str]:
    found = [getattr(node, "id", getattr(node, "attr", getattr(node, "name", None))) for node in ast.walk(tree)]
    return {name for name in found if isinstance(name, str)}


def test_there_is_one_way_to_answer_with_a_stream() -> None:
    """A bare StreamingHttpResponse would hold a database connection, and a thread for ever."""
    product = [
        path
        for room in ("chatstore", "accounts", "conversations")
        for path in (BASE_DIR / room).rglob("*.py")
        if "tests" not in path.parts and "node_modules" not in path.parts
    ]
    users = [path.name for path in product if "StreamingHttpResponse" in names_in(ast.parse(path.read_text()))]
    assert users == ["sse.py"]


# A front end as people have them


def test_a_front_end_talks(alice: Caller, server: int) -> None:
    page = FrontEnd(server, alice)
    page.send(STORY)
    assert (page.shown, page.is_done, page.error) == ("Let me look.Found.Bye.", True, None)
    page.send("\u20ac\U0001f642\n\ndata: {}\n\n")
    assert (page.shown, page.is_done) == ("\u20ac\U0001f642\n\ndata: {}\n\n", True)
    assert (Session.objects.count(), Session.objects.get().pk) == (1, page.conversation_id)


def test_a_front_end_shows_why_there_is_no_conversation(mallory: Caller, session: Session, server: int) -> None:
    page = FrontEnd(server, mallory)
    page.conversation_id = session.pk
    page.send("Hello")
    assert (page.error, page.is_done) == (NOT_FOUND, False)


def test_a_front_end_shows_that_an_assistant_failed(alice: Caller, server: int) -> None:
    page = FrontEnd(server, alice)
    page.send(script(text("Some"), fail()))
    assert (page.shown, page.error, page.is_done) == ("Some", "The assistant failed.", False)


# What the contract says of every route


@REFUSED
@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "DELETE"])
def test_other_verbs_are_405(alice: Caller, verb: str, place: str) -> None:
    assert alice.send(verb, place).status_code == 405


@REFUSED
def test_another_content_type_is_415(alice: Caller, place: str) -> None:
    assert alice.send("POST", place, b"message=Hello", Content_Type="text/plain").status_code == 415


def test_a_lost_turn_is_told_as_interrupted(session: Session) -> None:
    """Joined from here, where its worker is gone."""
    turn = records.begin(session, "Hello", "gone:1:x", None).turn
    Turn.objects.update(lease_until=turn.started_at)
    assert [event and event["type"] for event in stored.watch(turn, 1)] == ["error"]


def test_a_turn_that_is_purged_is_told_as_interrupted(session: Session) -> None:
    turn = records.begin(session, "Hello", "there:1:x", None).turn
    Turn.objects.filter(pk=turn.pk).delete()
    assert [event and event["type"] for event in stored.watch(turn, 1)] == ["error"]
