"""Pages by cursor: every row once, in order, and nobody else's (contract 1, lists)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conftest import Caller, member, new_message, new_session
from conversations import services
from conversations.models import Session

NEXT = re.compile(r'<(http://testserver/[^>]+)>; rel="next"')


def next_of(answer: Any) -> str | None:
    """The path and query of the next page."""
    if "Link" not in answer.headers:
        return None
    found = NEXT.fullmatch(answer.headers["Link"])
    assert found
    return found[1].removeprefix("http://testserver")


def cursor_of(answer: Any) -> str:
    return parse_qs(urlsplit(next_of(answer) or "").query)["cursor"][0]


def pages(caller: Caller, path: str | None) -> Iterator[list[dict[str, Any]]]:
    while path:
        answer = caller.get(path)
        assert answer.status_code == 200, answer.json()
        yield answer.json()
        path = next_of(answer)


def walked(caller: Caller, path: str) -> list[int]:
    return [row["id"] for page in pages(caller, path) for row in page]


@pytest.fixture
def seven(session: Session) -> list[int]:
    """The ids of seven messages of one trace."""
    said = {"role": "user", "content": "x", "trace_id": "t"}
    return [message.pk for message in services.append(session, [said] * 7)[0]]


MESSAGES = ["/api/sessions/{}/messages/?", "/api/messages/?session_id={}&", "/api/messages/?trace_id=t&"]


@pytest.mark.parametrize("path", MESSAGES)
@pytest.mark.parametrize("limit", [1, 3, 7, 8])
def test_it_works(alice: Caller, session: Session, seven: list[int], path: str, limit: int) -> None:
    assert walked(alice, f"{path.format(session.pk)}limit={limit}") == seven


@pytest.mark.parametrize("path", MESSAGES)
def test_it_works_backwards(alice: Caller, session: Session, seven: list[int], path: str) -> None:
    assert walked(alice, f"{path.format(session.pk)}limit=2&order=desc") == seven[::-1]


@pytest.mark.parametrize(("limit", "more"), [(6, True), (7, False), (8, False)])
def test_only_a_page_that_is_not_the_last_has_a_next(
    alice: Caller, session: Session, seven: list[int], limit: int, more: bool
) -> None:
    answer = alice.get(f"/api/sessions/{session.pk}/messages/?limit={limit}")
    assert ("Link" in answer.headers) is more


def test_the_body_is_a_plain_array(alice: Caller, session: Session, seven: list[int]) -> None:
    assert isinstance(alice.get(f"/api/sessions/{session.pk}/messages/?limit=2").json(), list)


def test_filters_go_along(alice: Caller, session: Session, seven: list[int]) -> None:
    new_message(session, role="tool")
    last = new_message(session, trace_id="t")
    path = f"/api/sessions/{session.pk}/messages/?trace_id=t&after=5&limit=1"
    assert walked(alice, path) == [*seven[5:], last.pk]


def test_messages_appended_meanwhile_come_at_the_end(alice: Caller, session: Session, seven: list[int]) -> None:
    seen = []
    for page in pages(alice, f"/api/sessions/{session.pk}/messages/?limit=2"):
        seen += [row["position"] for row in page]
        if len(seen) < 7:
            new_message(session)
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) >= 9


def test_a_message_deleted_meanwhile_moves_no_other(alice: Caller, session: Session, seven: list[int]) -> None:
    first = alice.get(f"/api/sessions/{session.pk}/messages/?limit=3")
    alice.delete(f"/api/messages/{seven[0]}/")
    alice.delete(f"/api/messages/{seven[2]}/")
    assert walked(alice, next_of(first) or "") == seven[3:]


# Sessions


@pytest.mark.parametrize("same_moment", [False, True])
def test_every_session_comes_once(alice: Caller, same_moment: bool) -> None:
    made = [new_session(alice).pk for _ in range(7)]
    if same_moment:
        Session.objects.update(updated_at=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC))
    assert walked(alice, "/api/sessions/?limit=2") == made[::-1]


def test_sessions_made_and_changed_meanwhile_hide_no_other(alice: Caller) -> None:
    made = [new_session(alice).pk for _ in range(7)]
    first = alice.get("/api/sessions/?limit=2")
    new_session(alice)
    alice.patch(f"/api/sessions/{made[1]}/", {"title": "Moved to the top"})
    rest = walked(alice, next_of(first) or "")
    assert rest == [made[4], made[3], made[2], made[0]]


@pytest.mark.parametrize(
    "path", ["/api/sessions/?deleted=true&", "/api/sessions/?title=%C3%A9+%26&", "/api/sessions?"]
)
def test_the_next_page_of_sessions_keeps_its_filters(alice: Caller, path: str) -> None:
    made = [new_session(alice, title="é &").pk for _ in range(3)]
    new_session(alice, title="other", metadata={})
    if "deleted" in path:
        for pk in made:
            alice.delete(f"/api/sessions/{pk}/")
    walk = walked(alice, f"{path}limit=1")
    assert walk[-3:] == made[::-1]
    assert len(walk) == (4 if path.endswith("sessions?") else 3)


def test_an_admins_list_has_pages(carol: Caller, bob: Caller, session: Session) -> None:
    made = [session.pk, new_session(bob, session.workspace).pk, new_session(carol, session.workspace).pk]
    assert walked(carol, f"/api/sessions/?workspace={session.workspace_id}&owner=all&limit=1") == made[::-1]


def test_tokens_have_pages(alice: Caller) -> None:
    made = [alice.post("/api/me/tokens/").json()["id"] for _ in range(3)]
    assert walked(alice, "/api/me/tokens/?limit=1")[1:] == made


def test_users_have_pages(sam: Caller, alice: Caller, mallory: Caller) -> None:
    assert walked(sam, "/api/users/?limit=1") == [sam.user.pk, alice.user.pk, mallory.user.pk]


# The cost


def test_a_deep_page_skips_nothing(alice: Caller, session: Session, seven: list[int]) -> None:
    path = next_of(alice.get(f"/api/sessions/{session.pk}/messages/?limit=3")) or ""
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert alice.get(path).status_code == 200
    page = queries.captured_queries[-1]["sql"]
    assert "LIMIT 4" in page
    assert "OFFSET" not in page


# What is no cursor of this list


def refused(answer: Any) -> None:
    assert answer.status_code == 422
    assert ["query", "cursor"] in [error["loc"] for error in answer.json()["errors"]]


def first_page(caller: Caller, session: Session) -> Any:
    return caller.get(f"/api/sessions/{session.pk}/messages/?limit=2")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda cursor: cursor[:-1] + ("A" if cursor[-1] != "A" else "B"), id="last character"),
        pytest.param(lambda cursor: "A" + cursor[1:], id="first character"),
        pytest.param(lambda cursor: cursor[:-5], id="cut off"),
        pytest.param(lambda cursor: cursor.split(":")[0], id="no signature"),
        pytest.param(lambda cursor: "." + cursor, id="compressed"),
        pytest.param(lambda cursor: cursor + "\x00", id="NUL"),
        pytest.param(lambda cursor: "x", id="nonsense"),
        pytest.param(lambda cursor: "é" * 300, id="not ASCII"),
        pytest.param(lambda cursor: "5", id="a number"),
        pytest.param(lambda cursor: "W10:1abc:x", id="made up"),
    ],
)
def test_a_tampered_cursor_is_422(alice: Caller, session: Session, seven: list[int], spoil: Any) -> None:
    cursor = quote(spoil(cursor_of(first_page(alice, session))))
    refused(alice.get(f"/api/sessions/{session.pk}/messages/?limit=2&cursor={cursor}"))


def test_an_empty_cursor_is_422(alice: Caller, session: Session) -> None:
    assert alice.get(f"/api/sessions/{session.pk}/messages/?cursor=").status_code == 422


@pytest.mark.parametrize("query", ["order=desc", "role=user", "trace_id=t", "after=1", "since_version=0"])
def test_a_cursor_of_other_filters_is_422(alice: Caller, session: Session, seven: list[int], query: str) -> None:
    cursor = cursor_of(first_page(alice, session))
    refused(alice.get(f"/api/sessions/{session.pk}/messages/?cursor={cursor}&{query}"))


@pytest.mark.parametrize("path", ["/api/sessions/?", "/api/me/tokens/?", "/api/messages/?trace_id=t&"])
def test_a_cursor_of_another_list_is_422(alice: Caller, session: Session, seven: list[int], path: str) -> None:
    refused(alice.get(f"{path}cursor={cursor_of(first_page(alice, session))}"))


def test_a_cursor_of_another_session_is_422(alice: Caller, session: Session, seven: list[int]) -> None:
    cursor = cursor_of(first_page(alice, session))
    refused(alice.get(f"/api/sessions/{new_session(alice).pk}/messages/?cursor={cursor}"))


def test_a_cursor_of_somebody_else_is_422(
    alice: Caller, carol: Caller, session: Session, seven: list[int]
) -> None:
    path = next_of(first_page(alice, session)) or ""
    assert carol.get(f"/api/sessions/{session.pk}/messages/").status_code == 200
    refused(carol.get(path))


def test_a_cursor_opens_nothing(alice: Caller, mallory: Caller, session: Session, seven: list[int]) -> None:
    assert mallory.get(next_of(first_page(alice, session)) or "").status_code == 403


def test_a_cursor_ends_with_the_membership(alice: Caller, session: Session, seven: list[int]) -> None:
    path = next_of(first_page(alice, session)) or ""
    alice.user.memberships.filter(workspace=session.workspace).delete()
    assert alice.get(path).status_code == 403


def test_a_cursor_of_the_own_list_is_not_one_of_another_owners(session: Session) -> None:
    dave, erin = member(session.workspace, "dave"), member(session.workspace, "erin")
    for owner in (dave, dave, erin, erin):
        new_session(owner, session.workspace)
    refused(erin.get(next_of(dave.get("/api/sessions/?limit=1")) or ""))


def test_the_limit_may_change_on_the_way(alice: Caller, session: Session, seven: list[int]) -> None:
    cursor = cursor_of(first_page(alice, session))
    answer = alice.get(f"/api/sessions/{session.pk}/messages/?cursor={cursor}&limit=4")
    assert [row["id"] for row in answer.json()] == seven[2:6]


# Skip


def test_skip_leaves_out_rows(alice: Caller, session: Session, seven: list[int]) -> None:
    answer = alice.get(f"/api/sessions/{session.pk}/messages/?skip=2&limit=2")
    assert [row["id"] for row in answer.json()] == seven[2:4]


def test_after_a_skipped_page_the_cursor_goes_on(alice: Caller, session: Session, seven: list[int]) -> None:
    assert walked(alice, f"/api/sessions/{session.pk}/messages/?skip=2&limit=2") == seven[2:]


def test_skip_and_cursor_do_not_go_together(alice: Caller, session: Session, seven: list[int]) -> None:
    answer = alice.get(f"{next_of(first_page(alice, session))}&skip=1")
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "skip"])
