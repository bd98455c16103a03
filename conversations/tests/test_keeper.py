"""The keeper of a worker: it holds the turns of its process, and one in trouble is no trouble to the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.utils import timezone

from conftest import Caller, new_session, row
from conversations.chat import records, stored
from conversations.chat.assistants import Asked
from conversations.chat.keeper import KEEPER, Keeper
from conversations.chat.turn import RunningTurn
from conversations.models import Message, Session, Turn
from conversations.tests import chat_clients
from conversations.tests.chat_clients import begun, body_of, in_thread, rows, types, wait_until
from conversations.tests.scripted import GATE, Scripted, gate, message, script, text, tool, tool_done
from conversations.tests.turns import begin, expire, locked_elsewhere, say

assistant = chat_clients.assistant


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_row_that_somebody_holds_costs_nobody_their_turn(alice: Caller) -> None:
    keeper, replies = Keeper(), list[Message]()
    for _ in range(2):
        turn = begin(new_session(alice), keeper.worker)
        replies.append(say(turn))
        expire(turn)
        kept = keeper.turns[turn.pk] = RunningTurn(turn, Scripted(), Asked("", []))
        kept.row, kept.text = replies[-1], "Well, well."
    with locked_elsewhere(Message.objects.filter(pk=replies[0].pk)):
        keeper.save()
    assert [row(Message, reply.pk)["content"] for reply in replies] == ["Well", "Well, well."]
    assert Turn.objects.filter(lease_until__gt=timezone.now()).count() == 2


@pytest.mark.django_db(transaction=True)
def test_there_are_no_more_turns_than_threads(alice: Caller, settings: Any) -> None:
    """Whoever begins a reply and leaves gives the place of a stream back, and the reply goes on."""
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"web_threads": 2})
    for _ in range(2):
        begun(alice, script(gate())).close()
    assert alice.post("/api/chat", {"message": "Hello"}).status_code == 503
    assert Message.objects.count() == 2
    GATE.set()
    wait_until(lambda: not KEEPER.forget_ended())
    assert alice.post("/api/chat", {"message": "Hello"}).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_an_answer_has_what_its_turn_told_when_the_keeper_has_forgotten_it(
    alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KEEPER, "find", lambda turn: None)
    said = script(tool("a"), tool_done("a", "3 rows"), text("Found."), message())
    (operation,) = alice.post("/api/chat", {"message": said}).json()["operations"]
    assert operation["details"] == "3 rows"


@pytest.mark.django_db(transaction=True)
def test_a_reply_whose_session_is_deleted_meanwhile_is_404(alice: Caller, session: Session) -> None:
    person = Caller(alice.user, alice.token)
    with ThreadPoolExecutor(1) as pool:
        body = body_of(script(text("One "), gate()), session)
        waiting = pool.submit(in_thread, lambda: person.post("/api/chat", body))
        wait_until(lambda: len(rows(session)) == 2)
        assert alice.delete(f"/api/sessions/{session.pk}/").status_code == 204
        GATE.set()
        assert waiting.result(10).status_code == 404


@pytest.mark.django_db
def test_a_stream_has_no_head(alice: Caller, session: Session) -> None:
    """Its answer would have no body, and so no end."""
    assert alice.send("HEAD", f"/api/sessions/{session.pk}/events/").status_code == 405


# Streams whose turn is lost


@pytest.mark.django_db(transaction=True)
def test_a_lost_turn_is_told_as_interrupted(session: Session) -> None:
    """Joined from here, where its worker is gone. A lease that is late is not the end: its worker may renew it."""
    turn = records.begin(session, "Hello", "gone:1:x", None).turn
    Turn.objects.update(lease_until=turn.started_at)
    watched = stored.watch(turn, 0)
    assert [next(watched), next(watched)] == [[], []]
    records.settle()
    assert [types(fresh) for fresh in watched] == [["error"]]


@pytest.mark.django_db(transaction=True)
def test_a_turn_that_is_purged_is_told_as_interrupted(session: Session) -> None:
    turn = records.begin(session, "Hello", "there:1:x", None).turn
    Turn.objects.filter(pk=turn.pk).delete()
    assert [types(fresh) for fresh in stored.watch(turn, 1)] == [["error"]]
