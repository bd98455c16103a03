"""How many statements each route sends: a query that creeps in, or one for each row, is seen here.

A test runs in a transaction, so that what is a transaction of its own in the product shows as a savepoint:
two statements (SAVEPOINT, RELEASE) for each `atomic`. `TOKEN` is the look-up of the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.db import connection

from accounts.models import Membership, User, Workspace
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.models import Message, Session

Counted = Callable[[int], AbstractContextManager[Any]]

TOKEN = 1
SAVEPOINT = 2
HELLO = {"role": "user", "content": "Hello!"}


@pytest.fixture
def message(session: Session) -> Message:
    return new_message(session, trace_id="t")


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize(
    "query", ["", "?title=e", "?deleted=false&pocket=p", "?limit=1", "?updated_since=2020-01-01T00:00:00Z"]
)
def test_a_session_list_is_one_query(
    alice: Caller, shared: Workspace, django_assert_num_queries: Counted, rows: int, query: str
) -> None:
    for _ in range(rows):
        new_session(alice, shared, title="Hello", pocket="p")
    with django_assert_num_queries(TOKEN + 1):
        assert alice.get(f"/api/sessions/{query}").json() != []


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("owner", ["all", "one"])
def test_an_admins_session_list_asks_for_the_role_too(
    alice: Caller, carol: Caller, shared: Workspace, django_assert_num_queries: Counted, rows: int, owner: str
) -> None:
    assert alice.user is not None
    for _ in range(rows):
        new_session(alice, shared)
    whose = "all" if owner == "all" else alice.user.public_id
    with django_assert_num_queries(TOKEN + 2):
        answer = carol.get(f"/api/sessions/?workspace={shared.public_id}&owner={whose}")
    assert len(answer.json()) == rows


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("query", ["", "order=desc", "since_version=0", "after=0&limit=5", "role=user"])
@pytest.mark.parametrize("place", ["/api/sessions/{}/messages/?", "/api/messages/?session_id={}&"])
def test_a_message_list_is_the_session_and_the_page(
    alice: Caller, session: Session, django_assert_num_queries: Counted, place: str, query: str, rows: int
) -> None:
    services.append(session, [HELLO] * rows)
    with django_assert_num_queries(TOKEN + 2):
        assert alice.get(place.format(session.pk) + query).json() != []


@pytest.mark.parametrize("rows", [1, 20])
def test_a_trace_search_is_one_query(
    alice: Caller, session: Session, django_assert_num_queries: Counted, rows: int
) -> None:
    services.append(session, [{**HELLO, "trace_id": "t"}] * rows)
    with django_assert_num_queries(TOKEN + 1):
        assert len(alice.get("/api/messages/?trace_id=t").json()) == rows


@pytest.mark.parametrize("who", ["alice", "carol"])
def test_reading_one_thing_is_one_query(
    who: str, alice: Caller, carol: Caller, message: Message, django_assert_num_queries: Counted
) -> None:
    person = {"alice": alice, "carol": carol}[who]
    with django_assert_num_queries(TOKEN + 1):
        assert person.get(f"/api/messages/{message.pk}/").status_code == 200
    with django_assert_num_queries(TOKEN + 1):
        assert person.get(f"/api/sessions/{message.session.session_id}/").status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "queries"),
    [
        pytest.param({}, {}, TOKEN + 1 + 1, id="without-key"),
        pytest.param({}, {"Idempotency_Key": "k"}, TOKEN + 1 + 1, id="with-key"),
    ],
)
def test_making_a_session(
    alice: Caller, django_assert_num_queries: Counted, body: Any, headers: dict[str, str], queries: int
) -> None:
    with django_assert_num_queries(queries):
        assert alice.post("/api/sessions/", body, **headers).status_code == 201


def test_making_a_session_in_a_shared_workspace(
    alice: Caller, shared: Workspace, django_assert_num_queries: Counted
) -> None:
    with django_assert_num_queries(TOKEN + 1 + 1):
        assert alice.post("/api/sessions/", {"workspace_id": str(shared.public_id)}).status_code == 201


def test_making_a_session_again(alice: Caller, django_assert_num_queries: Counted) -> None:
    alice.post("/api/sessions/", {}, Idempotency_Key="k")
    with django_assert_num_queries(TOKEN + 1 + 1 + 1):
        alice.post("/api/sessions/", {}, Idempotency_Key="k")


APPENDS = {"without-key": ({}, 2), "with-key": ({"Idempotency_Key": "k"}, SAVEPOINT + 3)}


@pytest.mark.parametrize(("headers", "statements"), APPENDS.values(), ids=APPENDS.keys())
@pytest.mark.parametrize("rows", [None, 1, 100], ids=["one", "batch-of-1", "batch-of-100"])
def test_appending_costs_the_same_for_any_number(
    alice: Caller,
    session: Session,
    django_assert_num_queries: Counted,
    headers: dict[str, str],
    statements: int,
    rows: int | None,
) -> None:
    """The session with the caller's role; count up (and look the key up) and insert, in one transaction: here a
    savepoint in the test's own, which only a key needs. On PostgreSQL one message is one statement."""
    place = f"/api/sessions/{session.pk}/messages/" + ("" if rows is None else "batch/")
    body = HELLO if rows is None else {"messages": [HELLO] * rows}
    # SQLite takes 999 parameters in a statement, so that 100 rows are two inserts.
    more = 1 if connection.vendor == "sqlite" and rows == 100 else 0
    if connection.vendor == "postgresql" and rows != 100:
        more = -2 if headers else -1
    with django_assert_num_queries(TOKEN + 1 + statements + more):
        assert alice.post(place, body, **headers).status_code == 201


def test_appending_again(alice: Caller, session: Session, django_assert_num_queries: Counted) -> None:
    place = f"/api/messages/?session_id={session.pk}"
    alice.post(place, HELLO, Idempotency_Key="k")
    # On PostgreSQL nothing is written, so nothing is rolled back, which would be two statements. Then
    # the rows are read, there once it is known that the session is live.
    queries = SAVEPOINT + 1 + 1 + 1 if connection.vendor == "postgresql" else 1 + 2 + 2 + 1
    with django_assert_num_queries(TOKEN + 1 + queries):
        assert alice.post(place, HELLO, Idempotency_Key="k").status_code == 201


def test_changing_a_session(alice: Caller, session: Session, django_assert_num_queries: Counted) -> None:
    """Read and authorise; lock, write and read back."""
    with django_assert_num_queries(TOKEN + 1 + SAVEPOINT + 3):
        assert alice.patch(f"/api/sessions/{session.pk}/", {"title": "Renamed"}).status_code == 200


def test_changing_nothing_writes_nothing(
    alice: Caller, session: Session, message: Message, django_assert_num_queries: Counted
) -> None:
    with django_assert_num_queries(TOKEN + 1 + SAVEPOINT + 1):
        assert alice.patch(f"/api/sessions/{session.pk}/", {}).status_code == 200
    with django_assert_num_queries(TOKEN + 1 + SAVEPOINT + 2):
        assert alice.patch(f"/api/messages/{message.pk}/", {}).status_code == 200


def test_deleting_and_restoring_a_session(
    alice: Caller, session: Session, django_assert_num_queries: Counted
) -> None:
    with django_assert_num_queries(TOKEN + 1 + SAVEPOINT + 3):
        assert alice.delete(f"/api/sessions/{session.pk}/").status_code == 204
    with django_assert_num_queries(TOKEN + 1 + SAVEPOINT + 3):
        assert alice.post(f"/api/sessions/{session.pk}/restore/").status_code == 200
    with django_assert_num_queries(TOKEN + 1 + SAVEPOINT + 1):
        assert alice.post(f"/api/sessions/{session.pk}/restore/").status_code == 200


def test_changing_and_deleting_a_message(
    alice: Caller, message: Message, django_assert_num_queries: Counted
) -> None:
    """Read and authorise; lock the session, read the message under it, count, read back, write."""
    with django_assert_num_queries(TOKEN + 1 + SAVEPOINT + 5):
        assert alice.patch(f"/api/messages/{message.pk}/", {"tokens": 5}).status_code == 200
    with django_assert_num_queries(TOKEN + 1 + SAVEPOINT + 5):
        assert alice.delete(f"/api/messages/{message.pk}/").status_code == 204


@pytest.mark.parametrize("rows", [0, 20])
def test_me_is_identities_and_memberships(alice: Caller, django_assert_num_queries: Counted, rows: int) -> None:
    assert alice.user is not None
    for number in range(rows):
        alice.user.identities.create(issuer="test", subject=str(number))
        Membership.objects.create(user=alice.user, workspace=Workspace.objects.create(name="Shared"))
    with django_assert_num_queries(TOKEN + 2):
        assert len(alice.get("/api/me/").json()["workspaces"]) == rows + 1


@pytest.mark.parametrize(
    ("headers", "queries"),
    [
        pytest.param({}, TOKEN + SAVEPOINT + 1, id="without-key"),
        pytest.param({"Idempotency_Key": "k"}, TOKEN + 1 + SAVEPOINT + 1, id="with-key"),
    ],
)
def test_making_a_token(
    alice: Caller, django_assert_num_queries: Counted, headers: dict[str, str], queries: int
) -> None:
    with django_assert_num_queries(queries):
        assert alice.post("/api/me/tokens/", {}, **headers).status_code == 201


@pytest.mark.parametrize("rows", [1, 20])
def test_the_list_of_tokens_is_one_query(alice: Caller, django_assert_num_queries: Counted, rows: int) -> None:
    for _ in range(rows - 1):
        alice.post("/api/me/tokens/", {})
    with django_assert_num_queries(TOKEN + 1):
        assert len(alice.get("/api/me/tokens/").json()) == rows


@pytest.mark.parametrize("rows", [1, 20])
def test_the_list_of_users_is_one_query(sam: Caller, django_assert_num_queries: Counted, rows: int) -> None:
    for number in range(rows - 1):
        User.objects.create_user(f"user-{number}")
    with django_assert_num_queries(TOKEN + 1):
        assert len(sam.get("/api/users/").json()) == rows
