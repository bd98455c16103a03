"""Who may chat, in which conversation, and what is no message (contract 4)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_django import Settings

from conftest import Caller, new_session
from conversations import services
from conversations.models import Message, Session
from conversations.tests import chat_clients
from conversations.tests.chat_clients import NOT_FOUND, REFUSED, body_of, configure, rows, streamed, text_of

pytestmark = pytest.mark.django_db(transaction=True)

assistant = chat_clients.assistant
place = chat_clients.place


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


# What is said


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
