"""`ETag` and `If-None-Match` on session get, lists and message pages (contract 1)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from conftest import Caller, new_message, new_session
from conversations.models import Message, Session
from conversations.tests import turns

PATHS = {
    "session": "/api/sessions/{}/",
    "sessions": "/api/sessions/",
    "messages": "/api/sessions/{}/messages/",
    "messages by query": "/api/messages/?session_id={}",
    "trace": "/api/messages/?trace_id=t",
}


@pytest.mark.parametrize("name", PATHS)
def test_it_works(alice: Caller, session: Session, name: str) -> None:
    path = PATHS[name].format(session.pk)
    first = alice.get(path)
    again = alice.get(path, If_None_Match=first.headers["ETag"])
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]


@pytest.mark.parametrize("name", PATHS)
def test_a_change_is_200(alice: Caller, session: Session, name: str) -> None:
    path = PATHS[name].format(session.pk)
    tag = alice.get(path).headers["ETag"]
    new_message(session, trace_id="t")
    answer = alice.get(path, If_None_Match=tag)
    assert answer.status_code == 200
    assert answer.headers["ETag"] != tag


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_if_none_match_has_many_forms(alice: Caller, session: Session, form: str) -> None:
    path = f"/api/sessions/{session.pk}/"
    tag = alice.get(path).headers["ETag"].removeprefix("W/")
    assert alice.get(path, If_None_Match=form.format(tag)).status_code == 304


@pytest.mark.parametrize("other", ['"other"', "", "nonsense"])
def test_another_tag_is_200(alice: Caller, session: Session, other: str) -> None:
    assert alice.get(f"/api/sessions/{session.pk}/", If_None_Match=other).status_code == 200


def test_a_tag_opens_nothing(alice: Caller, mallory: Caller, session: Session) -> None:
    path = f"/api/sessions/{session.pk}/"
    tag = alice.get(path).headers["ETag"]
    assert mallory.get(path, If_None_Match=tag).status_code == 403
    assert mallory.get(path, If_None_Match="*").status_code == 403


def test_a_tag_of_what_is_deleted_is_404(alice: Caller, session: Session) -> None:
    path = f"/api/sessions/{session.pk}/"
    tag = alice.get(path).headers["ETag"]
    alice.delete(path)
    assert alice.get(path, If_None_Match=tag).status_code == 404


@pytest.mark.parametrize("name", ["messages", "messages by query", "trace"])
def test_a_last_page_that_gets_a_next_one_is_no_304(alice: Caller, session: Session, name: str) -> None:
    """Its rows are the same, its `Link` is new: who is told 304 never learns that there is more."""
    new_message(session, trace_id="t")
    path = PATHS[name].format(session.pk)
    path += f"{'&' if '?' in path else '?'}limit=1"
    first = alice.get(path)
    assert "Link" not in first.headers
    new_message(session, trace_id="t")
    again = alice.get(path, If_None_Match=first.headers["ETag"])
    assert "Link" in alice.get(path).headers
    assert again.status_code == 200


def test_a_session_behind_the_last_page_is_no_304(alice: Caller, session: Session) -> None:
    older = new_session(alice)
    alice.patch(f"/api/sessions/{session.pk}/", {"title": "Newest"})
    alice.delete(f"/api/sessions/{older.pk}/")
    first = alice.get("/api/sessions/?limit=1")
    assert "Link" not in first.headers
    Session.objects.filter(pk=older.pk).update(deleted_at=None)
    assert alice.get("/api/sessions/?limit=1", If_None_Match=first.headers["ETag"]).status_code == 200


def test_a_page_with_a_next_one_is_304_while_it_has(alice: Caller, session: Session) -> None:
    new_message(session)
    new_message(session)
    path = f"/api/sessions/{session.pk}/messages/?limit=1"
    first = alice.get(path)
    assert "Link" in first.headers
    assert alice.get(path, If_None_Match=first.headers["ETag"]).status_code == 304


@pytest.mark.parametrize("path", ["/api/sessions/", "/api/sessions/{}/", "/api/me/"])
def test_no_shared_cache_keeps_it(alice: Caller, session: Session, path: str) -> None:
    kept: Any = alice.get(path.format(session.pk)).headers["Cache-Control"]
    assert "private" in kept
    assert "no-cache" in kept


@pytest.mark.parametrize("query", ["limit=abc", "cursor=abc", "role=nobody", "nothing=1"])
def test_a_page_that_cannot_be_matches_nothing(alice: Caller, session: Session, query: str) -> None:
    path = f"/api/sessions/{session.pk}/messages/?{query}"
    assert alice.get(path, If_None_Match="*").status_code == 422


def test_messages_of_old_versions_that_are_added_are_no_304(alice: Caller, session: Session) -> None:
    """As an import adds them."""
    new_message(session)
    path = f"/api/sessions/{session.pk}/messages/"
    tag = alice.get(path).headers["ETag"]
    Session.objects.filter(pk=session.pk).update(message_count=2, last_position=2)
    assert alice.get(path, If_None_Match=tag).status_code == 200


def test_a_304_of_a_page_reads_no_message(
    alice: Caller, session: Session, django_assert_num_queries: Callable[[int], AbstractContextManager[Any]]
) -> None:
    """Who calls, and the session's row."""
    for _ in range(3):
        new_message(session)
    path = f"/api/sessions/{session.pk}/messages/?limit=2"
    tag = alice.get(path).headers["ETag"]
    with django_assert_num_queries(2) as seen:
        assert alice.get(path, If_None_Match=tag).status_code == 304
    assert not [query for query in seen if '"conversations_message"' in query["sql"]]


def test_a_reply_that_grows_is_no_304(alice: Caller, session: Session) -> None:
    """Its text grows without a new version of the session, and so does what its lost worker leaves."""
    path = f"/api/sessions/{session.pk}/messages/"
    turn = turns.begin(session)
    row = turns.say(turn, "Well")
    tag = alice.get(path).headers["ETag"]
    assert alice.get(path, If_None_Match=tag).status_code == 304
    Message.objects.filter(pk=row.pk).update(content="Well, yes")
    grown = alice.get(path, If_None_Match=tag)
    assert grown.status_code == 200
    turns.expire(turn)
    assert alice.get(path, If_None_Match=grown.headers["ETag"]).status_code == 200
