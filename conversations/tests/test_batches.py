"""POST /api/sessions/{ref}/messages/batch/: all or nothing, in order (contract 3)."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Caller, new_message, row
from conversations.models import Message, Session


def one(content: str = "x", **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def send(caller: Caller, session: Session, messages: Any, **headers: str) -> Any:
    return caller.post(f"/api/sessions/{session.pk}/messages/batch/", {"messages": messages}, **headers)


def test_it_works(alice: Caller, session: Session) -> None:
    made = send(alice, session, [one("a", tokens=1), one("b", tokens=2, metadata={"k": 1})])
    assert made.status_code == 201
    assert made.json() == alice.get(f"/api/sessions/{session.pk}/messages/").json()


def test_it_follows_what_is_there_in_order(alice: Caller, session: Session) -> None:
    new_message(session)
    made = send(alice, session, [one(text) for text in "abc"]).json()
    assert [(m["position"], m["content"], m["version"]) for m in made] == [(2, "a", 3), (3, "b", 3), (4, "c", 3)]


@pytest.mark.parametrize("count", [1, 500])
def test_up_to_500_messages_go_together(alice: Caller, session: Session, count: int) -> None:
    made = send(alice, session, [one()] * count)
    assert [m["position"] for m in made.json()] == list(range(1, count + 1))
    assert alice.get(f"/api/sessions/{session.pk}/").json()["message_count"] == count


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="none"),
        pytest.param([one()] * 501, id="501"),
        pytest.param(None, id="null"),
        pytest.param(one(), id="an object"),
        pytest.param("x", id="text"),
    ],
)
def test_anything_else_is_refused(alice: Caller, session: Session, messages: Any) -> None:
    refused = send(alice, session, messages)
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "messages"])


@pytest.mark.parametrize("body", [{}, {"message": [one()]}, {"messages": [one()], "more": 1}])
def test_the_body_has_messages_and_nothing_else(alice: Caller, session: Session, body: dict[str, Any]) -> None:
    assert alice.post(f"/api/sessions/{session.pk}/messages/batch/", body).status_code == 422


@pytest.mark.parametrize(
    ("bad", "loc"),
    [
        (one(tokens="5"), ["tokens"]),
        (one(content=""), ["content"]),
        ({"role": "user"}, ["content"]),
        (one(contents="x"), ["contents"]),
        (one(metadata={"a\x00": 1}), ["metadata"]),
        ("x", []),
        (None, []),
    ],
)
def test_one_bad_message_refuses_all(alice: Caller, session: Session, bad: Any, loc: list[str]) -> None:
    refused = send(alice, session, [one(), bad])
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["loc"] == ["body", "messages", 1, *loc]
    assert row(Session, session.pk)["last_position"] == 0
    assert not Message.objects.exists()


def test_every_fault_is_told(alice: Caller, session: Session) -> None:
    refused = send(alice, session, [one(tokens="5"), one(), {"role": "x"}]).json()
    places = {tuple(error["loc"][1:]) for error in refused["errors"]}
    assert places == {("messages", 0, "tokens"), ("messages", 2, "role"), ("messages", 2, "content")}


def test_messages_are_not_mixed_up(alice: Caller, session: Session) -> None:
    send(alice, session, [one("a", trace_id="t"), one("b"), one("c", tool_name="n", role="tool")])
    shown = alice.get(f"/api/sessions/{session.pk}/messages/").json()
    assert [(m["content"], m["trace_id"], m["tool_name"]) for m in shown] == [
        ("a", "t", None),
        ("b", None, None),
        ("c", None, "n"),
    ]


@pytest.mark.parametrize("verb", ["GET", "PATCH", "DELETE", "PUT"])
def test_a_batch_can_only_be_posted(alice: Caller, session: Session, verb: str) -> None:
    assert alice.send(verb, f"/api/sessions/{session.pk}/messages/batch/").status_code == 405


def test_there_is_no_batch_without_a_session_in_the_path(alice: Caller, session: Session) -> None:
    answer = alice.post(f"/api/messages/batch/?session_id={session.pk}", {"messages": [one()]})
    assert answer.status_code in (404, 405)


@pytest.mark.parametrize("ref", ["0", "x", "9223372036854775807", "9223372036854775808"])
def test_an_absent_session_is_404(alice: Caller, ref: str) -> None:
    assert alice.post(f"/api/sessions/{ref}/messages/batch/", {"messages": [one()]}).status_code == 404


# Again, with the same key


def test_a_replay_gives_the_same_rows(alice: Caller, session: Session) -> None:
    first = send(alice, session, [one("a"), one("b")], Idempotency_Key="k")
    again = send(alice, session, [one("a"), one("b")], Idempotency_Key="k")
    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    assert alice.get(f"/api/sessions/{session.pk}/").json()["message_count"] == 2


@pytest.mark.parametrize("other", [[one("a")], [one("b"), one("a")], [one("a"), one("b"), one("c")]])
def test_another_batch_with_the_key_is_refused(alice: Caller, session: Session, other: Any) -> None:
    send(alice, session, [one("a"), one("b")], Idempotency_Key="k")
    refused = send(alice, session, other, Idempotency_Key="k")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("index", [0, 1])
def test_a_replay_is_404_once_a_message_is_deleted(alice: Caller, session: Session, index: int) -> None:
    made = send(alice, session, [one("a"), one("b")], Idempotency_Key="k").json()
    alice.delete(f"/api/messages/{made[index]['id']}/")
    assert send(alice, session, [one("a"), one("b")], Idempotency_Key="k").status_code == 404


def test_a_key_of_a_batch_is_not_one_of_a_message(alice: Caller, session: Session) -> None:
    send(alice, session, [one()], Idempotency_Key="k")
    refused = alice.post(f"/api/sessions/{session.pk}/messages/", one(), Idempotency_Key="k")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
