"""Live events of a session (contract 5), through a real server: what is sent, resumed, and ended."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import pytest

from accounts.models import ApiToken, Membership, User
from chatstore.tests.serving import own_database_url, serving
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.chat.events import place_of
from conversations.models import Message, Session

pytestmark = [pytest.mark.waits, pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

SLOW = "conversations.tests.test_events.Slow"
TIMEOUT = 20


class Slow:
    """Says something, calls a tool, and goes on: nine events, a tenth of a second apart."""

    def reply(self, asked: Any) -> Iterator[Any]:
        from conversations.chat import assistants as a  # noqa: PLC0415

        script = [
            a.TextDelta("Let me see. "),
            a.ToolCallStarted("1", "search", trace_id="t-1", span_id="s-1"),
            a.ToolCallCompleted("1", "Found 3"),
            *(a.TextDelta(f"word{number} ") for number in range(6)),
            a.MessageCreated(tokens=7),
        ]
        for event in script:
            time.sleep(0.1)
            yield event


@pytest.fixture(scope="module")
def port(django_db_setup: None) -> Iterator[int]:
    with serving(own_database_url(), ASSISTANT=SLOW, WEB_WORKERS="2") as running:
        yield running


class Stream:
    """An EventSource of our own: reads events on a thread until it is closed or the server ends."""

    def __init__(self, port: int, caller: Caller, session: Session, **headers: str) -> None:
        self.link = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("Authorization", f"Bearer {caller.token}")
        self.link.request("GET", f"/api/sessions/{session.pk}/events/", headers=named)
        self.socket = self.link.sock
        self.answer = self.link.getresponse()
        self.events: list[dict[str, Any]] = []
        self.comments = 0
        self.has_ended = threading.Event()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        try:
            lines: list[str] = []
            while line := self.answer.readline():
                text = line.decode().rstrip("\n")
                lines = [*lines, text] if text else self.took(lines)
        except (OSError, ValueError, AttributeError):
            pass
        self.has_ended.set()

    def close(self) -> None:
        """The reader holds the lock of the buffer while it waits: the socket ends first."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(TIMEOUT)
        self.link.close()

    def took(self, lines: list[str]) -> list[str]:
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        self.comments += not fields
        if fields:
            data = json.loads(fields["data"])
            assert data["type"] == fields["event"]
            self.events.append({**data, "event_id": fields["id"]})
        return []

    def wait(self, done: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        deadline = time.monotonic() + TIMEOUT
        while not done(self.events) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert done(self.events), [event["type"] for event in self.events]
        return self.events


@contextmanager
def watching(port: int, caller: Caller, session: Session, **headers: str) -> Iterator[Stream]:
    stream = Stream(port, caller, session, **headers)
    assert stream.answer.status == 200
    try:
        yield stream
    finally:
        stream.close()


def say(port: int, caller: Caller, session: Session) -> None:
    """Ask, and leave at once: the turn belongs to the server."""
    link = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    body = json.dumps({"message": "Hello!", "conversation_id": session.pk})
    link.request(
        "POST",
        "/api/chat/stream",
        body,
        {"Authorization": f"Bearer {caller.token}", "Content-Type": "application/json"},
    )
    assert link.getresponse().status == 200
    link.close()


def is_done(events: list[dict[str, Any]]) -> bool:
    return "done" in [event["type"] for event in events]


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def replies(events: list[dict[str, Any]]) -> dict[int, str]:
    """The texts of the assistant's messages as a page would show them: as they came, and then by their deltas."""
    texts: dict[int, str] = {}
    for event in events:
        if event["type"] == "text_delta":
            texts[event["message_id"]] = texts.get(event["message_id"], "") + event["content"]
        elif event["type"] == "message_created" and event["role"] == "assistant":
            texts[event["id"]] = event["content"]
    return texts


def answers(session: Session) -> dict[int, str]:
    rows = Message.objects.filter(session=session, role="assistant")
    return dict(rows.values_list("pk", "content"))


WHOLE = "word0 word1 word2 word3 word4 word5 "


@pytest.mark.parametrize("watchers", [4])
def test_it_works(port: int, alice: Caller, session: Session, watchers: int) -> None:
    """In both workers: who watches where the turn runs, and who does not, see the same."""
    streams = [Stream(port, alice, session) for _ in range(watchers)]
    say(port, alice, session)
    for stream in streams:
        events = stream.wait(is_done)
        assert replies(events) == answers(session)
        assert list(answers(session).values()) == ["Let me see. ", WHOLE]
        named = [kind for kind in types(events) if kind not in ("text_delta", "session_updated")]
        assert named.count("message_created") == 4
        assert named.index("tool_call_started") < named.index("tool_call_completed") < named.index("done")
        assert (events[-1]["type"], events[-1]["status"]) == ("done", "complete")
        stream.close()


def test_who_joins_late_gets_a_running_reply_from_its_beginning(
    port: int, alice: Caller, session: Session
) -> None:
    say(port, alice, session)
    time.sleep(0.8)
    with watching(port, alice, session) as stream:
        events = stream.wait(is_done)
    assert list(replies(events).values())[-1] == WHOLE


@pytest.mark.parametrize("after", range(1, 20, 3))
def test_who_comes_back_misses_nothing(port: int, alice: Caller, session: Session, after: int) -> None:
    with watching(port, alice, session) as first:
        say(port, alice, session)
        seen = first.wait(lambda events: len(events) >= after or is_done(events))[:after]
    time.sleep(0.2)
    with watching(port, alice, session, Last_Event_ID=seen[-1]["event_id"]) as second:
        events = [*seen, *second.wait(lambda events: is_done([*seen, *events]))]
    named = [event for event in events if event["type"] in ("message_created", "message_updated")]
    final = {event["id"]: event["content"] for event in named}
    assert final == dict(Message.objects.filter(session=session).values_list("pk", "content"))


def test_changes_of_others_are_told(port: int, alice: Caller, session: Session) -> None:
    with watching(port, alice, session) as stream:
        message = new_message(session, "One")
        stream.wait(lambda events: "message_created" in types(events))
        services.change_message(message, {"content": "Two"})
        stream.wait(lambda events: "message_updated" in types(events))
        services.delete_message(message)
        events = stream.wait(lambda events: "message_deleted" in types(events))
        services.change_session(session, {"title": "Renamed"})
        stream.wait(lambda events: events[-1].get("title") == "Renamed")
        services.trash_session(session)
        stream.wait(lambda events: events[-1]["type"] == "session_deleted")
        assert stream.has_ended.wait(5)
    told = [(event["type"], event.get("content")) for event in events if event["type"].startswith("message")]
    assert told == [("message_created", "One"), ("message_updated", "Two"), ("message_deleted", None)]


def test_rows_of_one_version_come_all_or_come_again(port: int, alice: Caller, session: Session) -> None:
    before = Session.objects.get(pk=session.pk).version
    services.append(session, [{"role": "user", "content": str(number)} for number in range(3)])
    with watching(port, alice, session, Last_Event_ID=str(before)) as stream:
        events = stream.wait(lambda events: len(events) >= 3)
    assert [event["content"] for event in events[:3]] == ["0", "1", "2"]
    assert [event["event_id"] for event in events[:3]] == [str(before), str(before), str(before + 1)]


ENDS: dict[str, Callable[[Caller, Session], Any]] = {
    "membership removed": lambda alice, session: Membership.objects.filter(
        user=alice.user, workspace=session.workspace
    ).delete(),
    "token revoked": lambda alice, session: ApiToken.objects.get(user=alice.user).revoke(),
    "user deactivated": lambda alice, session: User.objects.filter(pk=alice.user.pk).update(is_active=False),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_stream_ends_with_the_right_to_watch(
    port: int, alice: Caller, session: Session, end: Callable[[Caller, Session], Any]
) -> None:
    with watching(port, alice, session) as stream:
        assert not stream.has_ended.wait(1.2)
        end(alice, session)
        assert stream.has_ended.wait(3)
        new_message(session, "Secret")
        assert "Secret" not in json.dumps(stream.events)


def test_a_lowered_admin_sees_no_more(port: int, carol: Caller, session: Session) -> None:
    with watching(port, carol, session) as stream:
        Membership.objects.filter(user=carol.user, workspace=session.workspace).update(role="member")
        assert stream.has_ended.wait(3)


def test_the_event_cookie_opens_it(port: int, alice: Caller, session: Session) -> None:
    cookie = alice.post("/auth/session").cookies["chatstore_events"].value
    with watching(
        port, Caller(None, ""), session, Cookie=f"chatstore_events={cookie}", Authorization=""
    ) as stream:
        new_message(session, "One")
        stream.wait(lambda events: "message_created" in types(events))


REFUSED = {"stranger": ("mallory", 403), "member": ("bob", 403), "nobody": ("nobody", 401)}


@pytest.mark.parametrize(("who", "status"), REFUSED.values(), ids=REFUSED)
def test_who_may_not_read_may_not_watch(
    request: pytest.FixtureRequest, session: Session, who: str, status: int
) -> None:
    answer = request.getfixturevalue(who).get(f"/api/sessions/{session.pk}/events/")
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")


@pytest.mark.parametrize("path", ["/api/sessions/1x/events/", "/api/sessions/999999/events/"])
def test_what_is_not_there_cannot_be_watched(alice: Caller, path: str) -> None:
    assert alice.get(path).status_code == 404


@pytest.mark.parametrize("said", ["x", "1:x", "-1", "1:2:3", "9" * 40, "1.5", "\uff11"])
def test_a_last_event_id_that_is_not_ours_is_422(alice: Caller, session: Session, said: str) -> None:
    assert place_of(said) is None
    path = f"/api/sessions/{session.pk}/events/"
    assert alice.get(path, Last_Event_ID=said).status_code == 422
    assert alice.get(f"{path}?last_event_id={quote(said)}", Last_Event_ID="1").status_code == 422


def test_other_peoples_sessions_are_not_in_it(port: int, alice: Caller, mallory: Caller, session: Session) -> None:
    with watching(port, alice, session) as stream:
        new_message(new_session(mallory), "Secret")
        new_message(session, "One")
        events = stream.wait(lambda events: "message_created" in types(events))
    assert "Secret" not in json.dumps(events)
