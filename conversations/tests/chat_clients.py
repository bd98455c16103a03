"""Clients of the chat routes, in this process and as people have them, and the fixtures of their tests."""

from __future__ import annotations

import codecs
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from chatstore.tests.serving import own_database_url, serving
from conftest import Caller
from conversations.models import Message, Session
from conversations.tests import scripted

TIMEOUT = 30
NOT_FOUND = "Conversation not found or you don't have access"
REFUSED = pytest.mark.django_db  # No turn runs, so that nobody else need see what is stored.


# Fixtures, which a module of tests takes by name: `assistant = chat_clients.assistant`


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


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[int]:
    """Another process on the same database."""
    with serving(own_database_url(), ASSISTANT=scripted.SCRIPTED) as port:
        yield port


def configure(settings: Settings, **changes: Any) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update=changes)


# Clients


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events of a whole stream, which must be nothing but events of one `data:` line and comments."""
    text = body.decode()
    assert text.endswith("\n\n")
    blocks = [block for block in text.removesuffix("\n\n").split("\n\n") if not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["content"] for event in events if event["type"] == "text_delta")


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


class Stream:
    """A stream that is read event by event, and left in one of three ways. `seen` are the events so far, `times`
    when they came."""

    def __init__(self, port: int, person: Caller, body: dict[str, Any], buffer: int = 0, **headers: str) -> None:
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(("127.0.0.1", port))
        self.seen: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.answer = self.asked(person, body, {name.replace("_", "-"): text for name, text in headers.items()})
        self.events = self.read()

    def asked(self, person: Caller, body: dict[str, Any], headers: dict[str, str]) -> HTTPResponse:
        link = HTTPConnection("127.0.0.1")
        link.sock = self.socket
        named = {"Authorization": f"Bearer {person.token}", "Content-Type": "application/json", **headers}
        link.request("POST", "/api/chat/stream", json.dumps(body).encode(), named)
        return link.getresponse()

    def read(self) -> Iterator[dict[str, Any]]:
        assert self.answer.status == 200, self.answer.read()
        for line in self.answer:
            if line.startswith(b"data: "):
                self.times.append(time.monotonic())
                self.seen.append(json.loads(line.removeprefix(b"data: ")))
                yield self.seen[-1]

    def rest(self) -> list[dict[str, Any]]:
        """All events, to the end of the stream."""
        list(self.events)
        self.close()
        return self.seen

    def until_lost(self) -> None:
        """Read until the stream ends or breaks."""
        try:
            self.rest()
        except (OSError, HTTPException):
            self.close()

    def seen_before(self, moment: float) -> str:
        """The text that had come by then."""
        return text_of([event for event, at in zip(self.seen, self.times, strict=True) if at < moment])

    def close(self) -> None:
        self.answer.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave without a word: the server's next write meets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


class FrontEnd:
    """What a page in a browser does, written from C's front end: it sends fields of its own, splits what comes on
    blank lines, takes the blocks that begin with `data:`, and knows three types of events."""

    def __init__(self, port: int, person: Caller) -> None:
        self.port, self.person = port, person
        self.conversation_id: int | None = None
        self.shown = ""
        self.error: str | None = None
        self.is_done = False

    def send(self, message: str) -> None:
        body = {"message": message, "conversation_id": self.conversation_id, "user_id": "u", "client": {"v": 3}}
        headers = {"Authorization": f"Bearer {self.person.token}", "Content-Type": "application/json"}
        link = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        self.shown, self.error, self.is_done = "", None, False
        link.request(
            "POST", "/api/chat/stream?ui=web", json.dumps(body), {**headers, "X-Timezone": "Asia/Karachi"}
        )
        answer = link.getresponse()
        if answer.status == 200:
            self.take_all(answer)
        else:
            self.error = json.loads(answer.read())["detail"]
        link.close()

    def take_all(self, answer: HTTPResponse) -> None:
        buffer, decoder = "", codecs.getincrementaldecoder("utf-8")()
        while chunk := answer.read1(64):
            *blocks, buffer = (buffer + decoder.decode(chunk)).split("\n\n")
            for block in blocks:
                if block.startswith("data:"):
                    self.take(json.loads(block[5:]))

    def take(self, event: dict[str, Any]) -> None:
        if event["type"] == "text_delta":
            self.shown += event["content"]
        elif event["type"] == "done":
            self.conversation_id, self.is_done = event["conversation_id"], True
        elif event["type"] == "error":
            self.error = event["detail"]
