"""The stream of a reply: its events and headers, how many are open, and what a front end sees (contract 4)."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest
from pytest_django import Settings

from chatstore.environment import BASE_DIR
from chatstore.tests.serving import fetch, own_database_url, serving
from conftest import Caller
from conversations.chat import sse, views
from conversations.chat.assistants import Echo
from conversations.models import Message, Session
from conversations.tests import chat_clients
from conversations.tests.chat_clients import (
    NOT_FOUND,
    REFUSED,
    FrontEnd,
    Stream,
    begun,
    body_of,
    configure,
    events_of,
    read,
    streamed,
    text_of,
    types,
    wait_until,
)
from conversations.tests.scripted import GATE, SCRIPTED, STORY, fail, gate, paced, pause, script, text

pytestmark = [pytest.mark.waits, pytest.mark.django_db(transaction=True)]

assistant = chat_clients.assistant
server = chat_clients.server
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


# Events


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


# The second needs none of the first's care: an export ends by itself, and holds no connection between its pages.
STREAMS = {"conversations/chat/sse.py", "conversations/staff/export.py"}


def test_there_is_one_way_to_answer_with_a_stream() -> None:
    """A bare StreamingHttpResponse would hold a database connection, and a thread for ever."""
    product = [
        path
        for room in ("chatstore", "accounts", "conversations")
        for path in (BASE_DIR / room).rglob("*.py")
        if "tests" not in path.parts and "node_modules" not in path.parts
    ]
    users = [path for path in product if "StreamingHttpResponse" in names_in(ast.parse(path.read_text()))]
    assert {str(path.relative_to(BASE_DIR)) for path in users} == STREAMS


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
