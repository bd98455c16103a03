"""GET /api/sessions/: the caller's own, newest change first (contract 2)."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.models import Membership, Workspace
from conftest import Caller, member, new_message, new_session
from conversations.models import Session

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)


def listed(caller: Caller, query: str = "") -> list[int]:
    answer = caller.get(f"/api/sessions/{query}")
    assert answer.status_code == 200, answer.json()
    return [session["id"] for session in answer.json()]


def test_it_works(alice: Caller, session: Session) -> None:
    assert alice.get("/api/sessions/").json() == [alice.get(f"/api/sessions/{session.pk}/").json()]


def test_the_newest_change_stands_first(alice: Caller) -> None:
    first, second, third = (new_session(alice).pk for _ in range(3))
    alice.patch(f"/api/sessions/{second}/", {"title": "Changed"})
    new_message(Session.objects.get(pk=first))
    assert listed(alice) == [first, second, third]


def test_sessions_of_one_moment_have_one_order(alice: Caller) -> None:
    made = [new_session(alice).pk for _ in range(3)]
    Session.objects.update(updated_at=DAY)
    assert listed(alice) == made[::-1]


def test_other_peoples_sessions_are_not_listed(carol: Caller, session: Session) -> None:
    mine = new_session(carol)
    assert listed(carol) == [mine.pk]


@pytest.mark.parametrize(("query", "count"), [("", 50), ("?limit=200", 55), ("?limit=1", 1)])
def test_a_page_has_50_by_default_and_200_at_most(alice: Caller, query: str, count: int) -> None:
    first = new_session(alice)
    Session.objects.bulk_create(
        Session(
            owner=alice.user,
            owner_public_id=first.owner_public_id,
            workspace_id=first.workspace_id,
            **dict.fromkeys(("created_at", "updated_at", "last_activity"), first.created_at),
        )
        for _ in range(54)
    )
    assert len(listed(alice, query)) == count


@pytest.mark.parametrize(
    "limit", ["0", "201", "-1", "05", "1.0", "x", "", "1&limit=2", "9" * 30, "\N{SUPERSCRIPT TWO}"]
)
def test_a_limit_out_of_range_is_refused(alice: Caller, limit: str) -> None:
    refused = alice.get(f"/api/sessions/?limit={limit}")
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", "limit"])


@pytest.mark.parametrize("name", ["pocket", "group", "agent"])
def test_links_are_filters(alice: Caller, name: str) -> None:
    wanted: dict[str, Any] = {name: " Ünï/%_&"}
    other: dict[str, Any] = {name: "another"}
    found = new_session(alice, **wanted)
    new_session(alice, **other)
    new_session(alice)
    assert listed(alice, f"?{name}=%20%C3%9Cn%C3%AF/%25_%26") == [found.pk]


@pytest.mark.parametrize(
    ("title", "query"),
    [
        pytest.param("Plan B", "plan", id="another case"),
        pytest.param("Plan B", "lan%20b", id="in the middle"),
        pytest.param("100% sure", "100%25", id="percent"),
        pytest.param("a_b", "a_b", id="underscore"),
        pytest.param("Über", "%C3%9Cb", id="umlaut"),
        pytest.param("Über", "%C3%BCb", id="umlaut in another case"),
        pytest.param("back\\slash", "k%5Cs", id="backslash"),
    ],
)
def test_a_title_is_found_by_what_it_contains(alice: Caller, title: str, query: str) -> None:
    found = new_session(alice, title=title)
    new_session(alice, title="100 axb plAm")
    assert listed(alice, f"?title={query}") == [found.pk]


@pytest.mark.parametrize(
    "since",
    ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00.000000Z", "2026-03-01T13:00:00%2B01:00", "2026-03-01T12:00:00"],
)
def test_updated_since_includes_the_moment_itself(alice: Caller, since: str) -> None:
    before, at = new_session(alice), new_session(alice)
    Session.objects.filter(pk=before.pk).update(updated_at=DAY - timedelta(microseconds=1))
    Session.objects.filter(pk=at.pk).update(updated_at=DAY)
    assert listed(alice, f"?updated_since={since}") == [at.pk]


@pytest.mark.parametrize(
    "since",
    [
        "yesterday",
        "2026-13-01T00:00:00Z",
        "2026-03-01T12:00:00+01:00",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00%2B23:59",
        "",
        "1",
    ],
)
def test_updated_since_takes_nothing_but_a_time(alice: Caller, since: str) -> None:
    refused = alice.get(f"/api/sessions/?updated_since={since}")
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", "updated_since"])


@pytest.mark.parametrize(
    "since", ["2026-03-01T12:00:00%2B23:59", "2026-03-01T12:00:00-16:30", "0001-01-01T00:00:00Z"]
)
def test_offsets_that_only_python_takes_are_no_error(alice: Caller, since: str) -> None:
    assert listed(alice, f"?updated_since={since}") == []


@pytest.mark.parametrize(("deleted", "shown"), [("true", "gone"), ("false", "here")])
def test_the_trash_is_listed_apart(alice: Caller, deleted: str, shown: str) -> None:
    ids = {name: new_session(alice).pk for name in ("gone", "here")}
    alice.delete(f"/api/sessions/{ids['gone']}/")
    assert listed(alice, f"?deleted={deleted}") == [ids[shown]]


@pytest.mark.parametrize(
    "query",
    ["deleted=1", "deleted=TRUE", "workspace=x", "workspace=1", "pocket=", "title=%00", f"agent={'x' * 256}"],
)
def test_a_filter_that_cannot_be_is_refused(alice: Caller, query: str) -> None:
    refused = alice.get(f"/api/sessions/?{query}")
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", query.partition("=")[0]])


@pytest.mark.parametrize("query", ["page=1", "owner_id=1", "Title=x", "format=json", "session_id=1", "metadata=1"])
def test_an_unknown_parameter_is_refused(alice: Caller, query: str) -> None:
    refused = alice.get(f"/api/sessions/?{query}")
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", query.partition("=")[0]])


def test_filters_narrow_together(alice: Caller, shared: Workspace) -> None:
    found = new_session(alice, shared, pocket="p", agent="a")
    new_session(alice, shared, pocket="p", agent="b")
    new_session(alice, pocket="p", agent="a")
    assert listed(alice, f"?workspace={shared.public_id}&pocket=p&agent=a") == [found.pk]


# A workspace, for its admin


def test_a_workspace_alone_narrows_ones_own(carol: Caller, session: Session) -> None:
    mine = new_session(carol, session.workspace)
    new_session(carol)
    assert listed(carol, f"?workspace={str(session.workspace_id).upper()}") == [mine.pk]


def test_an_admin_lists_everybodys(carol: Caller, bob: Caller, session: Session) -> None:
    bobs = new_session(bob, session.workspace)
    new_session(bob)
    assert listed(carol, f"?workspace={session.workspace_id}&owner=all") == [bobs.pk, session.pk]


@pytest.mark.parametrize("upper", [False, True], ids=["lower case", "upper case"])
def test_an_admin_lists_one_owners(carol: Caller, bob: Caller, session: Session, upper: bool) -> None:
    new_session(bob, session.workspace)
    owner = str(session.owner_public_id)
    query = f"?workspace={session.workspace_id}&owner={owner.upper() if upper else owner}"
    assert listed(carol, query) == [session.pk]


def test_an_admin_sees_a_workspaces_trash(carol: Caller, session: Session) -> None:
    carol.delete(f"/api/sessions/{session.pk}/")
    assert listed(carol, f"?workspace={session.workspace_id}&owner=all") == []
    assert listed(carol, f"?workspace={session.workspace_id}&owner=all&deleted=true") == [session.pk]


@pytest.mark.parametrize("who", ["alice", "bob", "mallory", "sam"])
def test_nobody_else_lists_other_peoples(request: pytest.FixtureRequest, session: Session, who: str) -> None:
    asking: Caller = request.getfixturevalue(who)
    path = f"/api/sessions/?workspace={session.workspace_id}&owner=all"
    assert asking.get(path).status_code == 403


def test_a_role_counts_where_it_was_given(alice: Caller, shared: Workspace) -> None:
    elsewhere = Workspace.objects.create(name="Elsewhere")
    dave = member(elsewhere, "dave", Membership.Role.ADMIN)
    assert dave.get(f"/api/sessions/?workspace={shared.public_id}&owner=all").status_code == 403


REFUSED: list[Any] = [
    pytest.param("owner=all", 422, id="no workspace"),
    pytest.param("owner=all&workspace=x", 422, id="malformed workspace"),
    pytest.param(f"owner=all&workspace={uuid.UUID(int=0)}", 404, id="absent workspace"),
    pytest.param("owner=bob&workspace={}", 422, id="malformed owner"),
    pytest.param("owner=1&workspace={}", 422, id="integer owner"),
]


@pytest.mark.parametrize(("query", "status"), REFUSED)
def test_owner_needs_a_workspace(carol: Caller, shared: Workspace, query: str, status: int) -> None:
    assert carol.get("/api/sessions/?" + query.format(shared.public_id)).status_code == status


def test_an_owner_without_sessions_has_an_empty_list(carol: Caller, shared: Workspace) -> None:
    assert listed(carol, f"?workspace={shared.public_id}&owner={uuid.UUID(int=1)}") == []
