"""What is compiled once answers as what is built for each request: the same bytes, the same rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import transaction

from accounts.authentication.api_tokens import WITH_PERSON
from accounts.authentication.service_tokens import BY_PUBLIC_ID, OF_DIGEST
from accounts.models import User, Workspace
from chatstore.compiled import CompiledQuery
from chatstore.http.pagination import KeysetPagination
from chatstore.retries import Retry
from chatstore.tests.matrix_world import Acting, service
from conftest import Caller, new_session, row
from conversations import services
from conversations.api import queries
from conversations.api.viewsets import ConversationViewSet
from conversations.models import Message, Session

pytestmark = pytest.mark.django_db

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOMENTS = [AT, AT + timedelta(microseconds=1), AT + timedelta(microseconds=120_000), AT + timedelta(seconds=1)]
LARGE = 2**62
WORDS = "Zürich 東京 \N{ROCKET}\N{LINE SEPARATOR}<b>\"\\' %s %%"
METADATA = {"nothing": None, "yes": True, "half": 0.5, "large": 2**60, WORDS: [1, [], {}, WORDS]}
SAID: list[dict[str, Any]] = [
    {"role": "user", "content": WORDS, "trace_id": "t"},
    {"role": "tool_call", "content": "x", "tool_name": WORDS, "trace_id": "t", "span_id": WORDS, "tokens": 7},
    {"role": "assistant", "content": "x", "trace_id": "t", "metadata": METADATA, "tokens": 2**31 - 1},
    {"role": "assistant", "content": "", "trace_id": "t", "status": "streaming"},
    {"role": "system", "content": "Deleted", "trace_id": "t"},
    {"role": "tool", "content": "Bare", "metadata": {}},
]
NEXT = re.compile(r'<https?://[^/]+(.*)>; rel="next"')
ORDERS = ["", "&order=desc"]
PAGES = ["", "&limit=1", "&limit=2&skip=1", "&skip=100"]

Page = tuple[bytes, str | None, str | None]
Ask = Callable[[str], list[Page]]
AskAs = Callable[[Caller, str], list[Page]]


@pytest.fixture
def session(alice: Caller, mallory: Caller) -> Session:
    """Something in every column, and nothing; among them what is deleted, and what is somebody else's."""
    full: dict[str, Any] = {
        "title": WORDS,
        "titled": True,
        "pocket": WORDS,
        "group": "g",
        "agent": "a",
        "metadata": METADATA,
    }
    whole, other = new_session(alice, **full), new_session(alice, metadata={})
    bare, deleted = new_session(alice), new_session(alice)
    rows, _ = services.append(whole, SAID, Retry("k", "d"))
    services.append(other, SAID[:2])
    services.append(new_session(mallory), SAID[:1])
    services.delete_message(rows[4])
    services.trash_session(deleted)
    for made, at in zip((whole, bare, deleted, other), MOMENTS, strict=True):
        Session.objects.filter(pk=made.pk).update(created_at=AT, updated_at=at, last_activity=at)
    for message, at in zip(rows, MOMENTS, strict=False):
        Message.objects.filter(pk=message.pk).update(created_at=at, updated_at=at, version=LARGE)
    counters = dict.fromkeys(("version", "tokens", "last_position", "message_count"), LARGE)
    Session.objects.filter(pk=whole.pk).update(**counters)
    return Session.objects.get(pk=whole.pk)


@pytest.fixture
def ask(alice: Caller, ask_as: AskAs) -> Ask:
    return partial(ask_as, alice)


@pytest.fixture
def ask_as(monkeypatch: pytest.MonkeyPatch) -> AskAs:
    """Asks for a list, page by page, or for one thing: both ways."""

    def both(caller: Caller, path: str) -> list[Page]:
        with monkeypatch.context() as patched:
            patched.delattr(KeysetPagination, "reading")
            used = compiled_queries(patched)
            compiled = pages(caller, path)
            assert used, "What is compiled was not asked."
        with monkeypatch.context() as patched:
            patched.setattr(ConversationViewSet, "is_plain", lambda *_: False)
            patched.setattr(queries, "session_named", built)
            used = compiled_queries(patched)
            assert pages(caller, path) == compiled
            assert not used, "What is compiled was asked."
        return compiled

    return both


session_named = queries.session_named


def built(ref: str, caller: User, *, deleted_too: bool = False) -> Session | None:
    """The way of `session_named` that is not compiled, which finds what is deleted as well."""
    return session_named(ref, caller, deleted_too=True)


def compiled_queries(monkeypatch: pytest.MonkeyPatch) -> list[CompiledQuery]:
    """Those that are asked from now on, but for who the caller is."""
    used: list[CompiledQuery] = []
    tuples = CompiledQuery.tuples

    def noted(query: CompiledQuery, **values: Any) -> list[Sequence[Any]]:
        if query not in (WITH_PERSON, OF_DIGEST, BY_PUBLIC_ID):
            used.append(query)
        return tuples(query, **values)

    monkeypatch.setattr(CompiledQuery, "tuples", noted)
    return used


def pages(caller: Caller, path: str) -> list[Page]:
    """The answer and those that its `Link` leads to, each with its `Link` and `ETag`."""
    answer = caller.get(path)
    assert answer.status_code == 200, answer.content
    page: Page = (answer.content, answer.headers.get("Link"), answer.headers.get("ETag"))
    following = NEXT.fullmatch(page[1] or "")
    return [page, *(pages(caller, following[1]) if following else [])]


def rows_of(found: list[Page]) -> list[dict[str, Any]]:
    return [thing for body, *_ in found for thing in json.loads(body)]


@pytest.mark.parametrize("page", PAGES)
def test_a_list_of_sessions(session: Session, ask: Ask, page: str) -> None:
    found = rows_of(ask(f"/api/sessions/?{page.removeprefix('&')}"))
    assert len(found) == {"&limit=2&skip=1": 2, "&skip=100": 0}.get(page, 3)


@pytest.mark.parametrize("name", ["pk", "session_id"])
def test_a_session(session: Session, ask: Ask, name: str) -> None:
    ((body, *_),) = ask(f"/api/sessions/{getattr(session, name)}/")
    found = json.loads(body)
    assert (found["metadata"], found["title"], found["version"]) == (METADATA, WORDS, LARGE)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("order", ORDERS)
def test_the_messages_of_a_session(session: Session, ask: Ask, order: str, page: str) -> None:
    found = rows_of(ask(f"/api/messages/?session_id={session.pk}{order}{page}"))
    assert found == rows_of(
        ask(f"/api/sessions/{session.session_id}/messages/?{f'{order}{page}'.removeprefix('&')}")
    )
    positions = [row["position"] for row in found]
    assert positions == sorted(positions, reverse=bool(order))
    assert len(found) == {"&limit=2&skip=1": 4, "&skip=100": 0}.get(page, 5)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("order", ORDERS)
def test_the_messages_of_a_trace(session: Session, ask: Ask, order: str, page: str) -> None:
    found = rows_of(ask(f"/api/messages/?trace_id=t{order}{page}"))
    ids = [row["id"] for row in found]
    assert ids == sorted(ids, reverse=bool(order))
    assert len(found) == {"&limit=2&skip=1": 5, "&skip=100": 0}.get(page, 6)


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("/api/sessions/?limit=2", 3),
        ("/api/sessions/{pk}/messages/?limit=1", 2),
        ("/api/messages/?trace_id=t&limit=2", 6),
        ("/api/messages/?trace_id=t&limit=4&order=desc", 6),
    ],
)
def test_what_a_service_of_a_workspace_sees(
    session: Session, alice: Caller, shared: Workspace, ask_as: AskAs, path: str, count: int
) -> None:
    inside = {new_session(alice, shared).pk for _ in range(3)}
    for made in Session.objects.filter(pk__in=inside):
        services.append(made, SAID[:2])
    confined = Acting(service(workspace=shared), alice.user.public_id)
    found = rows_of(ask_as(confined, path.format(pk=min(inside))))
    assert len(found) == count
    assert {row["id"] if "title" in row else row["session_id"] for row in found} <= inside


def test_every_field_is_there_and_is_null_where_it_may_be(session: Session, ask: Ask) -> None:
    """So that the pages above can differ."""
    sessions, messages = rows_of(ask("/api/sessions/")), rows_of(ask(f"/api/messages/?session_id={session.pk}"))
    for found, never, nullable in (
        (sessions, {"deleted_at"}, {"pocket", "group", "agent", "metadata", "deleted_at"}),
        (messages, set(), {"tool_name", "trace_id", "span_id", "metadata"}),
    ):
        assert {name for name in found[0] if all(row[name] is None for row in found)} == never
        assert {name for name in found[0] if any(row[name] is None for row in found)} == nullable
    assert {row["status"] for row in messages} == {"complete", "interrupted"}


@pytest.mark.postgres
@pytest.mark.parametrize("retry", [None, Retry("k", "d" * 64)], ids=["without-key", "with-key"])
@pytest.mark.parametrize("said", SAID, ids=[f"{said['role']}-{n}" for n, said in enumerate(SAID)])
def test_an_append_in_one_statement_writes_what_two_write(
    alice: Caller, said: dict[str, Any], retry: Retry | None
) -> None:
    once, twice = new_session(alice), new_session(alice)
    (at_once,), is_new = services.append(once, [said], retry)
    with transaction.atomic():
        (in_two,) = services.appended(twice, [said], retry)
    assert is_new
    for message in (at_once, in_two):
        assert {name: vars(message)[name] for name in columns(message)} == columns(message)
        assert message.created_at == message.updated_at == columns(message.session)["last_activity"]
    assert without_place(columns(at_once)) == without_place(columns(in_two))
    assert without_place(columns(once)) == without_place(columns(twice))


def columns(made: Session | Message) -> dict[str, Any]:
    """Every column, as the database has it."""
    return dict(row(type(made), made.pk))


def without_place(found: dict[str, Any]) -> dict[str, Any]:
    """Without what names the row, and when."""
    apart = {"id", "session_id", "created_at", "updated_at", "last_activity"}
    return {name: value for name, value in found.items() if name not in apart}
