"""Whose usage GET /api/usage/ tells, of which days, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from accounts.models import Membership, ServiceToken, Workspace
from chatstore.tests.matrix_world import Acting
from conftest import Caller, new_message, new_session
from conversations.models import Session
from conversations.tests.used import GROUPINGS, ago, asked, over_the_rows, rollup, said, today

# Whose


def own(who: Caller, query: str = "") -> int:
    count: int = asked(who, ago(40), today(), "role", query)["messages"]
    return count


@pytest.fixture
def both(alice: Caller, bob: Caller, carol: Caller, session: Session, is_rolled_up: bool) -> Workspace:
    """Of yesterday: one message of alice in the shared workspace, two at home, four of bob's, eight of carol's."""
    of_bob, of_carol = new_session(bob, session.workspace), new_session(carol, session.workspace)
    for place, messages in ((session, 1), (new_session(alice), 2), (of_bob, 4), (of_carol, 8)):
        for _ in range(messages):
            said(place, ago(1))
    if is_rolled_up:
        rollup()
    return session.workspace


COUNTED = pytest.mark.parametrize("is_rolled_up", [True, False], ids=["rolled-up", "counted-now"])


@COUNTED
def test_one_sees_ones_own(both: Workspace, alice: Caller, bob: Caller, mallory: Caller, sam: Caller) -> None:
    assert [own(who) for who in (alice, bob, mallory, sam)] == [3, 4, 0, 0]


@COUNTED
def test_one_workspace(both: Workspace, alice: Caller, mallory: Caller) -> None:
    home = alice.user.personal_workspace()
    assert own(alice, f"&workspace={both.public_id}") == 1
    assert own(alice, f"&workspace={home.public_id}") == 2
    assert own(mallory, f"&workspace={both.public_id}") == 0
    found = asked(alice, ago(1), today(), "workspace")["groups"]
    assert [(group["workspace"], group["messages"]) for group in found] == [
        (str(home.public_id), 2), (str(both.public_id), 1),
    ]  # fmt: skip


@COUNTED
def test_an_admin_sees_everybodys_in_the_workspace(both: Workspace, alice: Caller, carol: Caller) -> None:
    there = f"&workspace={both.public_id}"
    assert own(carol) == 8
    assert own(carol, f"{there}&owner=all") == 13
    assert own(carol, f"{there}&owner={alice.user.public_id}") == 1
    assert own(carol, f"{there}&owner={str(alice.user.public_id).upper()}") == 1
    assert own(carol, f"{there}&owner={both.public_id}") == 0
    for by in GROUPINGS:
        assert asked(carol, ago(3), today(), by, f"{there}&owner=all") == over_the_rows(
            ago(3), today(), by, lambda session: session.workspace_id == both.public_id
        )


@COUNTED
def test_a_member_does_not_see_other_peoples(both: Workspace, alice: Caller, bob: Caller) -> None:
    for owner in ("all", bob.user.public_id, alice.user.public_id):
        assert alice.get(f"/api/usage/?workspace={both.public_id}&owner={owner}").status_code == 403


@COUNTED
def test_what_was_used_in_a_workspace_goes_and_comes_with_the_membership(both: Workspace, alice: Caller) -> None:
    Membership.objects.filter(user=alice.user, workspace=both).delete()
    assert own(alice) == 2
    assert own(alice, f"&workspace={both.public_id}") == 0
    Membership.objects.create(user=alice.user, workspace=both)
    assert own(alice) == 3


@COUNTED
def test_a_service_of_a_workspace_sees_that_workspace(both: Workspace, alice: Caller, carol: Caller) -> None:
    _, token = ServiceToken.objects.issue(name="back end", scope="read", workspace=both)
    for who, messages in ((alice, 1), (carol, 8)):
        service = Acting(token, who.user.public_id)
        assert own(service) == messages
        assert own(service, f"&workspace={who.user.personal_workspace().public_id}") == 0
    assert own(Acting(token, carol.user.public_id), f"&workspace={both.public_id}&owner=all") == 13


# What is asked for


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *((f"{field}={day}", field) for field in ("from", "to") for day in (
            "0000-01-01", "10000-01-01", "2025-02-29", "2025-13-01", "2025-1-1", "20250101", "2025-W01-1",
            "2025-001", "2025-01-01T00:00:00Z", "2025-01-01Z", "2025-01-01%2B02:00", "%202025-01-01",
            "2025-01-01%00", "today", "%D9%A2%D9%A0%D9%A2%D9%A5-01-01", "1735689600", "-001-01-01", "",
        )),
        ("from=2025-01-02&to=2025-01-01", "from"),
        ("from=9999-12-31", "from"),
        ("from=2024-01-01&to=2025-01-01", "from"),
        ("from=0001-01-01", "from"),
        ("from=2025-01-01&from=2025-01-01&to=2025-01-01", "from"),
        ("group_by=tool", "group_by"), ("group_by=DAY", "group_by"), ("group_by=", "group_by"),
        ("group_by=day,role", "group_by"),
        ("workspace=1", "workspace"), ("workspace=all", "workspace"),
        ("owner=all", "workspace"), ("workspace=x&owner=all", "workspace"),
        ("limit=1", "limit"), ("First=2025-01-01", "First"), ("first=2025-01-01", "first"),
        ("deleted=true", "deleted"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_named(alice: Caller, query: str, field: str) -> None:
    answer = alice.get(f"/api/usage/?{query}")
    assert answer.status_code == 422
    assert answer["Content-Type"] == "application/problem+json"
    assert [error["loc"] for error in answer.json()["errors"]] == [["query", field]]


@pytest.mark.parametrize("owner", ["bob", "ALL", "1", "all%00"])
def test_an_owner_that_cannot_be_understood_is_named(carol: Caller, shared: Workspace, owner: str) -> None:
    answer = carol.get(f"/api/usage/?workspace={shared.public_id}&owner={owner}")
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "owner"])


def test_every_fault_is_told(alice: Caller) -> None:
    errors = alice.get("/api/usage/?from=x&to=y&group_by=z&workspace=1").json()["errors"]
    assert {error["loc"][1] for error in errors} == {"from", "to", "group_by", "workspace"}


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("from=0001-01-01&to=0001-01-01", "0001-01-01", "0001-01-01"),
        ("from=9999-12-31&to=9999-12-31", "9999-12-31", "9999-12-31"),
        ("from=2024-01-01&to=2024-12-31", "2024-01-01", "2024-12-31"),
        ("to=2025-02-28", "2025-02-01", "2025-02-28"),
    ],
)
def test_a_range(alice: Caller, query: str, first: str, last: str) -> None:
    body = alice.get(f"/api/usage/?{query}").json()
    assert (body["from"], body["to"], body["groups"]) == (first, last, [])


def test_a_range_may_end_in_the_future(alice: Caller, session: Session) -> None:
    new_message(session)
    assert asked(alice, today(), ago(-300))["messages"] == 1


def test_this_month_is_what_utc_says(alice: Caller, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    for moment in ("2026-01-31T23:59:59.999999+00:00", "2026-02-01T00:00:00+00:00", "2026-02-03T00:00:00+00:00"):
        said(session, datetime.fromisoformat(moment))
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime(2026, 2, 3, 12, tzinfo=UTC))
    body = alice.get("/api/usage/").json()
    assert (body["from"], body["to"], body["messages"]) == ("2026-02-01", "2026-02-03", 2)
    assert body["as_of"] == "2026-02-03T12:00:00.000000Z"


@pytest.mark.parametrize("sessions", [1, 20])
def test_it_costs_two_queries(alice: Caller, django_assert_num_queries: Any, sessions: int) -> None:
    """The token and the usage."""
    for number in range(sessions):
        said(new_session(alice, agent=f"agent {number}"), ago(number))
    for _ in range(2):
        with django_assert_num_queries(2):
            assert alice.get(f"/api/usage/?from={ago(30)}&group_by=agent").status_code == 200
        rollup()
