"""`Idempotency-Key`: the same write, sent any number of times at once or later, is stored once (contract 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from accounts.models import ApiToken, Membership, User
from conftest import Caller, new_session
from conversations.models import Message, Session

SAID = {"role": "user", "content": "Hello!"}
SENDERS = 8


def at_once(send: Callable[[int], Any], count: int = SENDERS) -> list[Any]:
    """What `send(0)` ... `send(count - 1)` answer, sent at the same moment, on connections of their own."""
    together = Barrier(count)

    def sent(number: int) -> Any:
        try:
            together.wait()
            return send(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(sent, range(count)))


def say(caller: Caller, session: Session, key: str = "k", **fields: Any) -> Any:
    return caller.post(f"/api/messages/?session_id={session.pk}", SAID | fields, Idempotency_Key=key)


CREATING = {
    "session": ("/api/sessions/", {"title": "T"}),
    "message": ("/api/sessions/{}/messages/", SAID),
    "message by query": ("/api/messages/?session_id={}", SAID),
    "batch": ("/api/sessions/{}/messages/batch/", {"messages": [SAID]}),
    "token": ("/api/me/tokens/", {"name": "laptop"}),
}


@pytest.mark.parametrize("what", CREATING)
def test_it_works(alice: Caller, session: Session, what: str) -> None:
    path, body = CREATING[what]
    first = alice.post(path.format(session.pk), body, Idempotency_Key="k")
    again = alice.post(path.format(session.pk), body, Idempotency_Key="k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    hidden = {"token": None} if what == "token" else {}
    assert again.json() == (first.json() | hidden if hidden else first.json())


@pytest.mark.parametrize("what", CREATING)
def test_without_a_key_each_is_new(alice: Caller, session: Session, what: str) -> None:
    path, body = CREATING[what]
    first, second = (alice.post(path.format(session.pk), body).json() for _ in range(2))
    assert first != second


@pytest.mark.parametrize("what", CREATING)
def test_every_creating_post_refuses_a_malformed_key(alice: Caller, session: Session, what: str) -> None:
    path, body = CREATING[what]
    refused = alice.post(path.format(session.pk), body, Idempotency_Key="x" * 256)
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["header", "Idempotency-Key"])


@pytest.mark.parametrize("key", ["", "caf\u00e9", "a\tb", "\x7f"], ids=["empty", "é", "tab", "DEL"])
def test_a_malformed_key_stores_nothing(alice: Caller, session: Session, key: str) -> None:
    assert say(alice, session, key).status_code == 422
    assert not Message.objects.exists()


@pytest.mark.parametrize("key", ["x", "x" * 255, '!~ a,b;c="d"'])
def test_a_key_is_printable_ascii(alice: Caller, session: Session, key: str) -> None:
    assert say(alice, session, key).json() == say(alice, session, key).json()


@pytest.mark.parametrize("other", [{"content": "Bye"}, {"tokens": 1}, {"role": "system"}, {"metadata": {}}])
def test_other_content_with_the_key_is_refused(alice: Caller, session: Session, other: dict[str, Any]) -> None:
    say(alice, session)
    refused = say(alice, session, **other)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert refused.json()["errors"][0]["loc"] == ["header", "Idempotency-Key"]
    assert Message.objects.count() == 1


def test_other_content_of_a_session_is_refused(alice: Caller) -> None:
    alice.post("/api/sessions/", {"title": "A"}, Idempotency_Key="k")
    assert alice.post("/api/sessions/", {"title": "B"}, Idempotency_Key="k").status_code == 422


def test_the_order_of_keys_in_metadata_is_no_content(alice: Caller, session: Session) -> None:
    first = say(alice, session, metadata={"a": 1, "b": {"c": 2, "d": 3}})
    again = say(alice, session, metadata={"b": {"d": 3, "c": 2}, "a": 1})
    assert again.json() == first.json()


def test_both_routes_to_a_session_are_one_operation(alice: Caller, session: Session) -> None:
    first = say(alice, session)
    again = alice.post(f"/api/sessions/{session.session_id}/messages/", SAID, Idempotency_Key="k")
    assert again.json() == first.json()


def test_keys_of_messages_belong_to_their_session(alice: Caller, session: Session) -> None:
    first, second = say(alice, session), say(alice, new_session(alice), content="Bye")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]


def test_keys_of_sessions_belong_to_their_owner(alice: Caller, mallory: Caller) -> None:
    first = alice.post("/api/sessions/", {"title": "A"}, Idempotency_Key="k")
    second = mallory.post("/api/sessions/", {"title": "B"}, Idempotency_Key="k")
    assert second.status_code == 201
    assert first.json()["id"] != second.json()["id"]


def test_a_session_and_a_message_may_have_the_same_key(alice: Caller, session: Session) -> None:
    assert alice.post("/api/sessions/", Idempotency_Key="k").status_code == 201
    assert say(alice, session).status_code == 201


def test_a_replay_shows_the_row_as_it_is_now(alice: Caller, session: Session) -> None:
    path = f"/api/messages/{say(alice, session).json()['id']}/"
    changed = alice.patch(path, {"content": "Changed"}).json()
    assert say(alice, session).json() == changed


def test_a_replay_of_a_session_shows_it_as_it_is_now(alice: Caller) -> None:
    made = alice.post("/api/sessions/", Idempotency_Key="k").json()
    changed = alice.patch(f"/api/sessions/{made['id']}/", {"title": "Changed"}).json()
    assert alice.post("/api/sessions/", Idempotency_Key="k").json() == changed


def test_a_replay_changes_nothing(alice: Caller, session: Session) -> None:
    say(alice, session)
    before = alice.get(f"/api/sessions/{session.pk}/").json()
    say(alice, session)
    assert alice.get(f"/api/sessions/{session.pk}/").json() == before


def test_a_replay_of_a_deleted_message_is_404(alice: Caller, session: Session) -> None:
    alice.delete(f"/api/messages/{say(alice, session).json()['id']}/")
    assert say(alice, session).status_code == 404
    assert say(alice, session, content="Bye").status_code == 422


def test_a_replay_of_a_deleted_session_is_404(alice: Caller) -> None:
    made = alice.post("/api/sessions/", Idempotency_Key="k").json()
    alice.delete(f"/api/sessions/{made['id']}/")
    assert alice.post("/api/sessions/", Idempotency_Key="k").status_code == 404


def test_a_key_is_free_again_after_the_purge(alice: Caller) -> None:
    made = alice.post("/api/sessions/", Idempotency_Key="k").json()
    Session.objects.filter(pk=made["id"]).delete()
    assert alice.post("/api/sessions/", {"title": "Other"}, Idempotency_Key="k").status_code == 201


def test_a_replay_asks_again_who_may(bob: Caller, session: Session) -> None:
    made = bob.post("/api/sessions/", {"workspace_id": str(session.workspace_id)}, Idempotency_Key="k")
    assert made.status_code == 201
    Membership.objects.filter(user=bob.user, workspace=session.workspace).delete()
    again = bob.post("/api/sessions/", {"workspace_id": str(session.workspace_id)}, Idempotency_Key="k")
    assert again.status_code in (403, 422)


def test_a_replay_of_a_message_asks_again_who_may(alice: Caller, session: Session) -> None:
    assert say(alice, session).status_code == 201
    Membership.objects.filter(user=alice.user, workspace=session.workspace).delete()
    assert say(alice, session).status_code == 403


def test_a_refused_write_keeps_no_key(alice: Caller, session: Session) -> None:
    assert say(alice, session, tokens=-1).status_code == 422
    assert say(alice, session).status_code == 201


def test_a_replay_is_no_session_too_many(alice: Caller, settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"max_sessions_per_user": 1})
    first = alice.post("/api/sessions/", Idempotency_Key="k")
    again = alice.post("/api/sessions/", Idempotency_Key="k")
    assert (first.status_code, again.status_code) == (201, 201)


# At once


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", CREATING)
def test_sent_at_once_it_is_stored_once(alice: Caller, session: Session, what: str) -> None:
    path, body = CREATING[what]
    answers = at_once(lambda _: alice.post(path.format(session.pk), body, Idempotency_Key="k"))
    assert Counter(answer.status_code for answer in answers) == {201: SENDERS}
    assert len([answer for answer in answers if "Idempotency-Replayed" not in answer.headers]) == 1
    assert len({str(answer.json()["id"] if what != "batch" else answer.json()) for answer in answers}) == 1
    stored = {"session": Session.objects.exclude(pk=session.pk), "token": ApiToken.objects.filter(name="laptop")}
    assert stored.get(what, Message.objects.all()).count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_user_sent_at_once_is_stored_once(sam: Caller) -> None:
    answers = at_once(lambda _: sam.post("/api/users/", {"username": "new"}, Idempotency_Key="k"))
    assert Counter(answer.status_code for answer in answers) == {201: SENDERS}
    assert User.objects.filter(username="new").count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_different_contents_at_once_one_is_stored(alice: Caller, session: Session) -> None:
    answers = at_once(lambda number: say(alice, session, content=f"Version {number}"))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: SENDERS - 1}
    assert Message.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_messages_at_once_have_positions_without_gaps(alice: Caller, session: Session) -> None:
    answers = at_once(lambda number: say(alice, session, str(number), tokens=1))
    assert sorted(answer.json()["position"] for answer in answers) == list(range(1, SENDERS + 1))
    now = alice.get(f"/api/sessions/{session.pk}/").json()
    assert (now["message_count"], now["tokens"], now["version"]) == (SENDERS, SENDERS, SENDERS + 1)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_quota_holds_when_sessions_are_made_at_once(alice: Caller, settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"max_sessions_per_user": 3})
    answers = at_once(lambda _: alice.post("/api/sessions/"))
    assert Counter(answer.status_code for answer in answers) == {201: 3, 400: SENDERS - 3}
    assert Session.objects.count() == 3


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_retry_at_once_is_no_session_too_many(alice: Caller, settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"max_sessions_per_user": 1})
    answers = at_once(lambda _: alice.post("/api/sessions/", Idempotency_Key="k"))
    assert Counter(answer.status_code for answer in answers) == {201: SENDERS}
