"""The database commits, and the answer is lost: what a turn then does again, it does not do twice (promise 1)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from conftest import Caller
from conversations.chat.assistants import Asked, Said
from conversations.chat.feed import FEED
from conversations.chat.keeper import Keeper
from conversations.chat.records import begin
from conversations.chat.turn import RunningTurn
from conversations.models import Message, Session, Turn
from conversations.tests.chat_clients import wait_until
from conversations.tests.scripted import (
    GATE,
    SCRIPTED,
    Scripted,
    gate,
    message,
    no_turns_left,
    script,
    text,
    tool,
    tool_done,
)

pytestmark = pytest.mark.django_db(transaction=True)

SEARCH = script(
    text("Let me see. ", trace_id="run-1"), tool("a"), tool("b"), tool_done("b"), tool_done("a"), text("Found."),
    message(tokens=7),
)  # fmt: skip


@pytest.fixture(autouse=True)
def chat(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"assistant": SCRIPTED})
    with no_turns_left():
        yield


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commits of a turn's thread of which each second one's answer is lost, the first among them."""
    commit, commits = BaseDatabaseWrapper.commit, list[str]()

    def commit_unheard(wrapper: BaseDatabaseWrapper) -> None:
        commit(wrapper)
        if threading.current_thread().name.startswith("turn "):
            commits.append(threading.current_thread().name)
            if len(commits) % 2:
                raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(BaseDatabaseWrapper, "commit", commit_unheard)
    return commits


def test_a_turn_is_stored_once(alice: Caller, lost: list[str]) -> None:
    answer = alice.post("/api/chat", {"message": SEARCH}).json()
    assert len(lost) >= 12
    assert answer["assistant_message"]["content"] == "Found."
    rows = Message.objects.order_by("position").values_list("position", "role", "content", "status", "trace_id")
    assert list(rows) == [
        (1, "user", SEARCH, "complete", "run-1"),
        (2, "assistant", "Let me see. ", "complete", "run-1"),
        (3, "tool_call", "Called search", "complete", "run-1"),
        (4, "tool_call", "Called search", "complete", "run-1"),
        (5, "assistant", "Found.", "complete", "run-1"),
    ]
    session, turn = Session.objects.get(), Turn.objects.get()
    assert (session.message_count, session.last_position, session.tokens) == (5, 5, 7)
    assert (turn.status, turn.answer) == ("complete", 5)


# And a turn that begins while its process ends


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """Of a process that ends, and has no turns."""
    monkeypatch.setattr(FEED, "end", lambda: None)  # This process goes on.
    found = Keeper()
    found.settled_at = float("inf")
    found.stop()
    return found


def late_turn(session: Session, keeper: Keeper) -> Turn:
    turn = begin(session, "Hello", keeper.worker, None).turn
    keeper.keep(RunningTurn(turn, Scripted(), Asked("", [Said("user", "Hello")])))
    wait_until(lambda: not keeper.forget_ended())
    turn.refresh_from_db()
    return turn


def test_a_turn_that_comes_while_there_is_time_is_completed(session: Session, keeper: Keeper) -> None:
    """On a connection that was kept: gunicorn still takes its requests for two seconds."""
    assert keeper.has_room
    assert late_turn(session, keeper).status == Turn.Status.COMPLETE


def test_the_process_waits_for_a_turn_that_comes_late(session: Session, keeper: Keeper) -> None:
    turn = begin(session, "Hello", keeper.worker, None).turn
    keeper.keep(RunningTurn(turn, Scripted(), Asked("", [Said("user", script(gate()))])))
    *_, waits = [thread for thread in threading.enumerate() if thread.name == "last turns"]
    assert not waits.daemon
    GATE.set()
    waits.join(20)
    turn.refresh_from_db()
    assert turn.status == Turn.Status.COMPLETE


def test_a_turn_that_comes_after_the_last_is_interrupted_at_once(session: Session, keeper: Keeper) -> None:
    keeper.deadline = 0
    keeper.stop()
    assert not keeper.has_room
    assert late_turn(session, keeper).status == Turn.Status.INTERRUPTED
