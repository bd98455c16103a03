"""What the matrix cannot say in a status: what lists hold, what counts from the next request, and the order of the
checks (contract 1, 2 and 6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from accounts.models import Membership, User, Workspace
from chatstore.tests import matrix_world
from chatstore.tests.matrix_principals import KNOWN, PRINCIPALS, REFUSED, SERVICES, UNKNOWN, readable
from chatstore.tests.matrix_table import HELLO, MATRIX, Route
from chatstore.tests.matrix_things import SECRET, secret
from chatstore.tests.matrix_world import World, changed
from conversations.models import Session

BOUND = "service-of-the-workspace"
BOUND_TO_THE_ADMIN = "service-of-the-workspace-for-its-admin"
READERS = [who for who in (*KNOWN, *SERVICES) if who != "service-write"]
IN_THE_SHARED = {"session-alices", "session-bobs"}
WITH_A_SLASH = [route for route in MATRIX if not (route.public or route.about or route.name == "auth/session")]


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with django_db_blocker.unblock(), matrix_world.made() as made:
        yield made


def told(world: World, who: str, path: str) -> set[str]:
    """Of what an answer tells."""
    answer = world.callers[who].get(path.format(**world.names))
    assert answer.status_code == 200
    return set(SECRET.findall(answer.content.decode()))


def owned(who: str, *, deleted: bool = False) -> set[str]:
    """The sessions that are the principal's own, where they are a member."""
    theirs = {"alice": {"alices", "personal"}, "bob": {"bobs"}, "mallory": {"mallorys"}}
    trash = {"alice": {"deleted"}, "mallory": {"mallorys-deleted"}}
    found = (trash if deleted else theirs).get(PRINCIPALS[who].acts_as, set())
    return {f"session-{name}" for name in found - ({"personal"} if PRINCIPALS[who].bound else set())}


# What lists and searches hold


@pytest.mark.parametrize("who", READERS)
@pytest.mark.django_db
def test_a_list_holds_ones_own_sessions(world: World, who: str) -> None:
    assert told(world, who, "/api/sessions/") == owned(who)


@pytest.mark.parametrize("who", READERS)
@pytest.mark.django_db
def test_the_trash_holds_ones_own_sessions(world: World, who: str) -> None:
    assert told(world, who, "/api/sessions/?deleted=true") == owned(who, deleted=True)


@pytest.mark.parametrize("path", ["trace_id=run-1", "span_id=step-1"])
@pytest.mark.parametrize("who", READERS)
@pytest.mark.django_db
def test_a_search_finds_all_that_may_be_read(world: World, who: str, path: str) -> None:
    messages = {name for name in readable(PRINCIPALS[who]) if name.startswith("message-")}
    assert told(world, who, f"/api/messages/?{path}") == messages


@pytest.mark.parametrize("who", ["carol", "service-for-the-admin", BOUND_TO_THE_ADMIN])
@pytest.mark.django_db
def test_an_admin_lists_everybodys_sessions_of_the_workspace(world: World, who: str) -> None:
    assert told(world, who, "/api/sessions/?workspace={workspace_shared}&owner=all") == IN_THE_SHARED


@pytest.mark.django_db
def test_an_admin_of_another_workspace_lists_that_one(world: World) -> None:
    listed = told(world, "erin", "/api/sessions/?workspace={workspace_elsewhere}&owner=all")
    assert listed == {"session-mallorys", "session-left"}


@pytest.mark.parametrize(
    ("who", "workspaces"),
    [
        pytest.param("alice", {"workspace-alices", "workspace-shared"}, id="alice"),
        pytest.param("service-read", {"workspace-alices", "workspace-shared"}, id="a-service"),
        pytest.param(BOUND, {"workspace-shared"}, id="a-service-of-the-workspace"),
    ],
)
@pytest.mark.django_db
def test_me_lists_the_workspaces_that_count(world: World, who: str, workspaces: set[str]) -> None:
    assert told(world, who, "/api/me/") == {"user-alice", *workspaces}


# A service that is bound to a workspace


@pytest.mark.django_db
def test_a_bound_service_makes_sessions_in_its_workspace(world: World) -> None:
    made = world.callers[BOUND].post("/api/sessions/", {})
    assert (made.status_code, made.json()["workspace"]) == (201, str(world.names["workspace_shared"]))


@pytest.mark.django_db
def test_a_person_makes_sessions_in_their_own_workspace(world: World) -> None:
    made = world.callers["service-read-write"].post("/api/sessions/", {})
    assert (made.status_code, made.json()["workspace"]) == (201, str(world.names["workspace_alices"]))


@pytest.mark.parametrize(
    ("first", "again"),
    [
        pytest.param({}, {}, id="nowhere-said"),
        pytest.param({"workspace_id": "{workspace_alices}"}, {}, id="the-personal-one-said-first"),
        pytest.param({}, {"workspace_id": "{workspace_shared}"}, id="the-shared-one-said-then"),
        pytest.param({}, {"workspace_id": "{workspace_alices}"}, id="the-personal-one-said-then"),
    ],
)
@pytest.mark.django_db
def test_a_key_of_the_personal_workspace_tells_a_bound_service_nothing(
    world: World, first: dict[str, str], again: dict[str, str]
) -> None:
    def made(who: str, body: dict[str, str]) -> Any:
        named = {name: value.format(**world.names) for name, value in body.items()}
        said = {"title": secret("session-personal"), **named}
        return world.callers[who].post("/api/sessions/", said, Idempotency_Key="once")

    mine = made("alice", first).json()
    answer = made(BOUND, again)
    assert mine["workspace"] == str(world.names["workspace_alices"])
    assert answer.status_code == 422
    assert mine["session_id"] not in answer.content.decode()
    assert not SECRET.search(answer.content.decode())


@pytest.mark.django_db
def test_a_key_of_its_workspace_is_replayed_to_a_bound_service(world: World) -> None:
    body = {"workspace_id": str(world.names["workspace_shared"])}
    mine = world.callers["alice"].post("/api/sessions/", body, Idempotency_Key="once").json()
    again = world.callers[BOUND].post("/api/sessions/", {}, Idempotency_Key="once")
    assert (again.status_code, again["Idempotency-Replayed"], again.json()) == (201, "true", mine)


# What counts from the next request


def shared_membership(world: World, who: str) -> Any:
    person = PRINCIPALS[who].acts_as
    shared = world.names["workspace_shared"]
    return Membership.objects.filter(user=world.names[f"user_{person}"], workspace=shared)


def statuses(world: World, who: str) -> list[int]:
    """Of reading, changing and adding to alice's session in the shared workspace."""
    person, names = world.callers[who], world.names
    path = f"/api/sessions/{names['session_alices']}/"
    answers = [
        person.get(path),
        person.patch(path, {"title": "Mine"}),
        person.post(f"{path}messages/", HELLO),
        person.get(f"/api/messages/{names['message_alices']}/"),
    ]
    return [answer.status_code for answer in answers]


MEMBERS = ["alice", "alice-by-oidc", "service-read-write", "service-of-the-settings", BOUND]
ADMINS = ["carol", "service-for-the-admin", BOUND_TO_THE_ADMIN]


@pytest.mark.parametrize("who", [*MEMBERS, *ADMINS])
@pytest.mark.django_db
def test_a_membership_removed_counts_from_the_next_request(world: World, who: str) -> None:
    assert statuses(world, who) == [200, 200, 403 if who in ADMINS else 201, 200]
    shared_membership(world, who).delete()
    assert statuses(world, who) == [403, 403, 403, 403]


@pytest.mark.parametrize("who", [who for who in MEMBERS if who != BOUND])
@pytest.mark.django_db
def test_who_was_removed_finds_only_what_is_elsewhere(world: World, who: str) -> None:
    shared_membership(world, who).delete()
    assert told(world, who, "/api/sessions/") == {"session-personal"}
    assert told(world, who, "/api/messages/?trace_id=run-1") == {"message-personal"}


@pytest.mark.parametrize("path", ["/api/sessions/", "/api/messages/?trace_id=run-1", "/api/me/"])
@pytest.mark.django_db
def test_a_bound_service_no_longer_acts_for_who_was_removed(world: World, path: str) -> None:
    shared_membership(world, BOUND).delete()
    answer = world.callers[BOUND].get(path)
    assert (answer.status_code, answer.json()["code"]) == (403, "on_behalf_of_refused")


@pytest.mark.parametrize("who", ADMINS)
@pytest.mark.django_db
def test_an_admin_made_a_member_loses_what_admins_have(world: World, who: str) -> None:
    shared_membership(world, who).update(role=Membership.Role.MEMBER)
    listed = world.callers[who].get(f"/api/sessions/?workspace={world.names['workspace_shared']}&owner=all")
    assert statuses(world, who) == [403, 403, 403, 403]
    assert listed.status_code == 403
    assert told(world, who, "/api/messages/?trace_id=run-1") == set()


@pytest.mark.parametrize("who", ["bob", "service-read-write", BOUND])
@pytest.mark.django_db
def test_a_member_made_an_admin_has_what_admins_have(world: World, who: str) -> None:
    shared_membership(world, who).update(role=Membership.Role.ADMIN)
    listed = told(world, who, "/api/sessions/?workspace={workspace_shared}&owner=all")
    assert listed == IN_THE_SHARED


@pytest.mark.django_db
def test_a_service_no_longer_acts_for_who_was_given_powers(world: World) -> None:
    assert world.callers["service-read"].get("/api/me/").status_code == 200
    alice = User.objects.filter(pk=world.names["user_alice"])
    alice.update(is_staff=True)
    assert world.callers["service-read"].get("/api/me/").status_code == 403


@pytest.mark.django_db
def test_a_workspace_deleted_takes_its_services_with_it(world: World) -> None:
    shared = world.names["workspace_shared"]
    Session.objects.filter(workspace=shared).delete()
    Workspace.objects.filter(public_id=shared).delete()
    assert world.callers[BOUND].get("/api/me/").status_code == 401


# How somebody is refused


@pytest.mark.parametrize("who", UNKNOWN)
@pytest.mark.django_db
def test_who_has_no_valid_token_is_told_how_to_come_in(world: World, who: str) -> None:
    challenge = world.callers[who].get("/api/me/")["WWW-Authenticate"]
    assert challenge == ("Bearer" if who == "nobody" else 'Bearer error="invalid_token"')


CODES = {
    "service-for-nobody-named": "on_behalf_of_missing",
    "alice-on-behalf-of-bob": "not_a_service",
    "alice-by-oidc-on-behalf-of-bob": "not_a_service",
}


@pytest.mark.parametrize("who", REFUSED)
@pytest.mark.django_db
def test_who_acts_for_the_wrong_person_is_told_no_more_than_that(world: World, who: str) -> None:
    answer = world.callers[who].get("/api/me/")
    assert (answer.status_code, answer.json()["code"]) == (403, CODES.get(who, "on_behalf_of_refused"))


@pytest.mark.parametrize(
    ("who", "method", "lacks"),
    [
        pytest.param("service-read", "PATCH", "write", id="a-reader-writes"),
        pytest.param("service-write", "GET", "read", id="a-writer-reads"),
    ],
)
@pytest.mark.django_db
def test_a_service_is_told_which_scope_it_lacks(world: World, who: str, method: str, lacks: str) -> None:
    answer = world.callers[who].send(method, f"/api/sessions/{world.names['session_alices']}/", {})
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert lacks in answer.json()["detail"]


@pytest.mark.django_db
def test_the_content_type_comes_before_the_scope(world: World) -> None:
    answer = world.callers["service-read"].post("/api/sessions/", b"title=x", Content_Type="text/plain")
    assert answer.status_code == 415


@pytest.mark.parametrize("who", PRINCIPALS)
@pytest.mark.django_db
def test_head_opens_no_more_than_get(world: World, who: str) -> None:
    path = f"/api/sessions/{world.names['session_alices']}/"
    head, get = (world.callers[who].send(method, path) for method in ("HEAD", "GET"))
    assert head.status_code == get.status_code
    assert head.content == b""


@pytest.mark.parametrize("who", PRINCIPALS)
@pytest.mark.django_db
def test_options_tells_nothing(world: World, who: str) -> None:
    for place in (f"/api/sessions/{world.names['session_alices']}/", "/api/me/tokens/", "/auth/session"):
        answer = world.callers[who].send("OPTIONS", place)
        assert answer.status_code == (PRINCIPALS[who].refused or 405)


# Beyond statuses


@pytest.mark.parametrize("route", WITH_A_SLASH, ids=lambda route: route.name)
@pytest.mark.django_db
def test_a_route_answers_without_its_trailing_slash(world: World, route: Route) -> None:
    ref = next(iter(route.things.values())).ref.format(**world.names)
    place, _, query = route.path.replace("{ref}", ref).partition("?")
    answers = [world.callers["alice"].get(f"{spelling}?{query}") for spelling in (place, place.rstrip("/"))]
    assert answers[0].status_code == answers[1].status_code
    assert not answers[0].has_header("Location")
    for answer in answers:
        if answer.streaming:
            answer.slot.give_back()


BEYOND_THE_TITLE = [
    pytest.param("/api/sessions/{session_alices}/", {"metadata": {"a": 1}}, id="metadata"),
    pytest.param("/api/sessions/{session_alices}/", {"pocket_id": "p"}, id="pocket"),
    pytest.param("/api/sessions/{session_alices}/", {"title": "Renamed", "pocket_id": None}, id="unlink-pocket"),
    pytest.param("/api/messages/{message_alices}/", {"tokens": 5}, id="tokens-of-a-message"),
    pytest.param("/api/messages/{message_alices}/", {}, id="nothing-of-a-message"),
]


@pytest.mark.parametrize("who", ADMINS)
@pytest.mark.parametrize(("place", "body"), BEYOND_THE_TITLE)
@pytest.mark.django_db
def test_an_admin_changes_only_the_title_of_other_peoples(world: World, who: str, place: str, body: Any) -> None:
    answer = world.callers[who].patch(place.format(**world.names), body)
    assert answer.status_code == 403
    assert changed(world) == []
