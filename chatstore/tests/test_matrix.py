"""Who may do what: every route that Django resolves x method x object x member of the cast (contract 1, 2, 6).

The routes come from the resolver, not from the OpenAPI file, so that one that nobody documented is seen too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, path
from django.urls.resolvers import RegexPattern
from django.utils import timezone

from accounts.models import ApiToken, Identity, Membership, User, Workspace
from conftest import Caller, caller, member, new_message, new_session
from conversations import services
from conversations.models import Message, Session

METHODS = ("GET", "POST", "PATCH", "DELETE", "PUT")
# Alice owns the objects; the others are called in the order of conftest.
KNOWN = ("alice", "bob", "carol", "mallory", "sam")
UNKNOWN = ("nobody", "garbage", "expired", "revoked", "deactivated")
NO_TOKEN = "no-valid-token"  # Each of UNKNOWN, one after the other: there is one answer for them.
ABSENT = str(2**63 - 1)

ALL = " ".join
OK = "200 200 200 200 200"
MADE = "201 201 201 201 201"
NOT_FOUND = "404 404 404 404 404"
INVALID = "422 422 422 422 422"
OWNER_AND_ADMIN = "200 403 200 403 403"
OWNER = "{0} 403 403 403 403"
MISSING = {"absent": NOT_FOUND, "malformed": NOT_FOUND}

SESSION = {
    "live": "{session}",
    "by-uuid": "{session_uuid}",
    "absent": ABSENT,
    "malformed": "1x",
    "deleted": "{trash}",
}
MESSAGE = {
    "live": "{message}",
    "absent": ABSENT,
    "malformed": "1x",
    "deleted": "{deleted_message}",
    "of-deleted": "{message_of_trash}",
}
USER = {"live": "{alice}", "absent": ABSENT, "malformed": "1x", "deleted": "{deactivated}"}
TOKEN = {"live": "{token}", "absent": ABSENT, "malformed": "1x", "deleted": "{revoked_token}"}
HELLO = {"role": "user", "content": "Hello!"}


class Route(NamedTuple):
    """`paths` by kind of object. `methods`: for each that the route has, the statuses of alice, bob, carol,
    mallory and sam by kind; one status of each that it has not is 405. Whoever has no valid token gets 401,
    unless the route is public."""

    paths: dict[str, str]
    methods: dict[str, dict[str, str]]
    bodies: dict[str, Any] = {}
    public: bool = False


def named(prefix: str, objects: dict[str, str], suffix: str = "/") -> dict[str, str]:
    return {kind: f"{prefix}{ref}{suffix}" for kind, ref in objects.items()}


def page(path: str, status: int = 200) -> Route:
    return Route({"page": path}, {"GET": {"page": ALL([str(status)] * len(KNOWN))}}, public=True)


def nothing(path: str) -> Route:
    return Route({"page": path}, {method: {"page": NOT_FOUND} for method in METHODS}, public=True)


SESSION_MISSING = {**MISSING, "deleted": NOT_FOUND}
MESSAGE_MISSING = {**SESSION_MISSING, "of-deleted": NOT_FOUND}
MESSAGES_READ = {"live": OWNER_AND_ADMIN, "by-uuid": OWNER_AND_ADMIN, **SESSION_MISSING}
MESSAGES_ADD = {"live": OWNER.format(201), "by-uuid": OWNER.format(201), **SESSION_MISSING}
IN_QUERY = {"malformed": INVALID, "none": INVALID}
# What somebody without Django's permissions may do with other people, and a superuser with everybody.
ONESELF = "200 403 403 403 200"
SUPERUSER = "{0} {0} {0} {0} {1}"

MATRIX = {
    "": page("/"),
    "health": page("/health"),
    "health/live": page("/health/live"),
    "openapi.json": page("/openapi.json"),
    "docs": page("/docs"),
    "redoc": page("/redoc"),
    "redoc.js": page("/redoc.js"),
    "auth/session": Route(
        {"self": "/auth/session"},
        {"POST": {"self": "204 204 204 204 204"}, "DELETE": {"self": "204 204 204 204 204"}},
    ),
    "api": nothing("/api"),
    "api/": nothing("/api/nothing/here"),
    "api/me": Route({"self": "/api/me/"}, {"GET": {"self": OK}}),
    "api/me/tokens": Route(
        {"self": "/api/me/tokens/"}, {"GET": {"self": OK}, "POST": {"self": MADE}}, {"POST": {"name": "laptop"}}
    ),
    "api/me/tokens/{ref}": Route(
        named("/api/me/tokens/", TOKEN),
        {"DELETE": {"live": "204 404 404 404 404", "deleted": "204 404 404 404 404", **MISSING}},
    ),
    "api/users": Route(
        {"all": "/api/users/"},
        {"GET": {"all": SUPERUSER.format(403, 200)}, "POST": {"all": SUPERUSER.format(403, 201)}},
        {"POST": {"name": "Dave"}},
    ),
    "api/users/{ref}": Route(
        named("/api/users/", USER),
        {
            "GET": {"live": ONESELF, "deleted": SUPERUSER.format(403, 200), **MISSING},
            "PATCH": {"live": ONESELF, "deleted": SUPERUSER.format(403, 200), **MISSING},
            "DELETE": {"live": SUPERUSER.format(403, 204), "deleted": SUPERUSER.format(403, 204), **MISSING},
        },
        {"PATCH": {"name": "Somebody"}},
    ),
    "api/sessions": Route(
        {
            "own": "/api/sessions/",
            "workspace": "/api/sessions/?workspace={shared}&owner=all",
            "strange-workspace": "/api/sessions/?workspace={personal}&owner=all",
            "absent": "/api/sessions/?workspace=01890a5d-ac96-774b-bcce-b302099a8057&owner=all",
            "malformed": "/api/sessions/?workspace=1x&owner=all",
            "none": "/api/sessions/?owner=all",
        },
        {
            "GET": {
                "own": OK,
                "workspace": "403 403 200 403 403",
                "strange-workspace": "200 403 403 403 403",
                "absent": NOT_FOUND,
                "malformed": INVALID,
                "none": INVALID,
            },
            "POST": {
                "own": MADE,
                "workspace": INVALID,
                "strange-workspace": INVALID,
                "absent": INVALID,
                "malformed": INVALID,
                "none": INVALID,
            },
        },
        {"POST": {"title": "Mine"}},
    ),
    "api/sessions/{ref}": Route(
        named("/api/sessions/", SESSION),
        {
            "GET": {"live": OWNER_AND_ADMIN, "by-uuid": OWNER_AND_ADMIN, **SESSION_MISSING},
            "PATCH": {"live": OWNER_AND_ADMIN, "by-uuid": OWNER_AND_ADMIN, **SESSION_MISSING},
            "DELETE": {"live": "204 403 204 403 403", "by-uuid": "204 403 204 403 403", **SESSION_MISSING},
        },
        {"PATCH": {"title": "Renamed"}},
    ),
    "api/sessions/{ref}/restore": Route(
        named("/api/sessions/", SESSION, "/restore/"),
        {
            "POST": {
                "live": OWNER_AND_ADMIN,
                "by-uuid": OWNER_AND_ADMIN,
                "deleted": OWNER_AND_ADMIN,
                **MISSING,
            }
        },
    ),
    "api/sessions/{session_ref}/messages": Route(
        named("/api/sessions/", SESSION, "/messages/"),
        {"GET": MESSAGES_READ, "POST": MESSAGES_ADD},
        {"POST": HELLO},
    ),
    "api/sessions/{session_ref}/messages/batch": Route(
        named("/api/sessions/", SESSION, "/messages/batch/"),
        {"POST": MESSAGES_ADD},
        {"POST": {"messages": [HELLO]}},
    ),
    "api/messages": Route(
        {**named("/api/messages/?session_id=", SESSION, ""), "none": "/api/messages/"},
        {"GET": {**MESSAGES_READ, **IN_QUERY}, "POST": {**MESSAGES_ADD, **IN_QUERY}},
        {"POST": HELLO},
    ),
    "api/messages/{ref}": Route(
        named("/api/messages/", MESSAGE),
        {
            "GET": {"live": OWNER_AND_ADMIN, **MESSAGE_MISSING},
            "PATCH": {"live": OWNER.format(200), **MESSAGE_MISSING},
            "DELETE": {"live": OWNER.format(204), **MESSAGE_MISSING},
        },
        {"PATCH": {"content": "Changed"}},
    ),
}


def spelled(route: str) -> str:
    """A resolver's route as the contract spells it: ^sessions/(?P<ref>[^/]+)/?$ is sessions/{ref}."""
    return re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", route).replace("/?", "").replace("^", "").replace("$", "")


def routes(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    """Every route but the admin's."""
    for pattern in resolver.url_patterns:
        route = prefix + spelled(str(pattern.pattern))
        if isinstance(pattern, URLPattern):
            yield route
        elif pattern.app_name != "admin":
            yield from routes(pattern, route)


def unlisted(resolver: URLResolver) -> set[str]:
    return set(routes(resolver)) - set(MATRIX)


def expected(route: Route, method: str, kind: str, who: str) -> int:
    if who == NO_TOKEN and not route.public:
        return 401
    if method not in route.methods:
        return 405
    return int(route.methods[method][kind].split()[0 if who == NO_TOKEN else KNOWN.index(who)])


CASES = [
    pytest.param(name, method, kind, who, id=f"{method}-/{name}-{kind}-{who}")
    for name, route in MATRIX.items()
    for method in METHODS
    for kind in route.paths
    for who in (NO_TOKEN, *KNOWN)
]


class World(NamedTuple):
    people: dict[str, Caller]
    names: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]


def all_rows() -> dict[str, list[dict[str, Any]]]:
    """Every column of every row that the API can write."""
    models: tuple[Any, ...] = (User, Workspace, Membership, Identity, ApiToken, Session, Message)
    return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in models}


def changed(world: World) -> list[str]:
    """The tables that are not as they were."""
    now = all_rows()
    return [name for name, before in world.rows.items() if now[name] != before]


def a_token(user: User | None, **fields: Any) -> tuple[ApiToken, str]:
    assert user is not None
    return ApiToken.objects.issue(user, last_used_at=timezone.now(), **fields)


def invited() -> tuple[dict[str, Caller], Workspace]:
    alice = caller("alice")
    shared = Workspace.objects.create(name="Shared")
    Membership.objects.create(user=alice.user, workspace=shared)
    now = timezone.now()
    known = {
        "alice": alice,
        "bob": member(shared, "bob"),
        "carol": member(shared, "carol", Membership.Role.ADMIN),
        "mallory": caller("mallory"),
        "sam": caller("sam", is_staff=True, is_superuser=True),
        "nobody": Caller(None, ""),
        "garbage": Caller(None, "cst_" + "x" * 43),
        "expired": Caller(alice.user, a_token(alice.user, expires_at=now - timedelta(seconds=1))[1]),
        "revoked": Caller(alice.user, a_token(alice.user, revoked_at=now)[1]),
        "deactivated": caller("dora", is_active=False),
    }
    return known, shared


def furnished(people: dict[str, Caller], shared: Workspace) -> dict[str, Any]:
    """The objects that the paths name."""
    alice, gone = people["alice"].user, people["deactivated"].user
    assert alice is not None
    assert gone is not None
    session = new_session(people["alice"], shared)
    trash = new_session(people["alice"], shared)
    deleted_message, message_of_trash = new_message(session), new_message(trash)
    services.delete_message(deleted_message)
    services.trash_session(trash)
    return {
        "session": session.pk,
        "session_uuid": str(session.session_id).upper(),
        "trash": trash.pk,
        "message": new_message(session).pk,
        "deleted_message": deleted_message.pk,
        "message_of_trash": message_of_trash.pk,
        "alice": alice.pk,
        "deactivated": gone.pk,
        "shared": shared.public_id,
        "personal": alice.personal_workspace().public_id,
        "token": a_token(alice)[0].pk,
        "revoked_token": a_token(alice, revoked_at=timezone.now())[0].pk,
    }


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    """The cast and its things, made once: each test is undone within this transaction."""
    with django_db_blocker.unblock(), transaction.atomic():
        people, shared = invited()
        names = furnished(people, shared)
        yield World(people, names, all_rows())
        transaction.set_rollback(True)


@pytest.mark.parametrize(("name", "method", "kind", "who"), CASES)
@pytest.mark.django_db
def test_the_matrix(world: World, name: str, method: str, kind: str, who: str) -> None:
    route = MATRIX[name]
    place = route.paths[kind].format(**world.names)
    senders = UNKNOWN if who == NO_TOKEN else (who,)
    answers = [world.people[sender].send(method, place, route.bodies.get(method)) for sender in senders]
    status = expected(route, method, kind, who)
    assert [answer.status_code for answer in answers] == [status] * len(senders)
    if status >= 400 and place.startswith("/api/"):
        assert {answer["Content-Type"] for answer in answers} == {"application/problem+json"}
        assert {answer.json()["status"] for answer in answers} == {status}
    if status >= 400 or method == "GET":
        assert changed(world) == []


@pytest.mark.parametrize("who", UNKNOWN)
@pytest.mark.django_db
def test_who_has_no_valid_token_is_told_how_to_come_in(world: World, who: str) -> None:
    challenge = world.people[who].get("/api/me/")["WWW-Authenticate"]
    assert challenge == ("Bearer" if who == "nobody" else 'Bearer error="invalid_token"')


ALLOWED_WRITES = [
    pytest.param(name, method, id=f"{method}-/{name}")
    for name, route in MATRIX.items()
    for method in ("POST", "PATCH", "DELETE")
    if method in route.methods and name.startswith("api/") and not route.public
]


@pytest.mark.parametrize(("name", "method"), ALLOWED_WRITES)
@pytest.mark.django_db
def test_an_allowed_write_is_seen_in_the_rows(world: World, name: str, method: str) -> None:
    """The premise of the matrix: a write that went through would have been noticed."""
    route = MATRIX[name]
    kind = "deleted" if name.endswith("restore") else next(iter(route.paths))
    who = "sam" if name.startswith("api/users") else "alice"
    answer = world.people[who].send(method, route.paths[kind].format(**world.names), route.bodies.get(method))
    assert answer.status_code < 300
    assert changed(world) != []


@pytest.mark.parametrize("name", [name for name in MATRIX if name.startswith("api/") and not MATRIX[name].public])
@pytest.mark.django_db
def test_a_route_answers_without_its_trailing_slash(world: World, name: str) -> None:
    route = MATRIX[name]
    place, _, query = next(iter(route.paths.values())).format(**world.names).partition("?")
    answers = [world.people["alice"].get(f"{spelling}?{query}") for spelling in (place, place.rstrip("/"))]
    assert answers[0].status_code == answers[1].status_code
    assert not answers[0].has_header("Location")


BEYOND_THE_TITLE = [
    pytest.param("/api/sessions/{session}/", {"metadata": {"a": 1}}, id="metadata"),
    pytest.param("/api/sessions/{session}/", {"pocket_id": "p"}, id="pocket"),
    pytest.param("/api/sessions/{session}/", {"title": "Renamed", "pocket_id": None}, id="unlink-pocket"),
    pytest.param("/api/messages/{message}/", {"tokens": 5}, id="tokens-of-a-message"),
    pytest.param("/api/messages/{message}/", {}, id="nothing-of-a-message"),
]


@pytest.mark.parametrize(("place", "body"), BEYOND_THE_TITLE)
@pytest.mark.django_db
def test_an_admin_changes_only_the_title_of_other_peoples(world: World, place: str, body: Any) -> None:
    answer = world.people["carol"].patch(place.format(**world.names), body)
    assert answer.status_code == 403
    assert changed(world) == []


SUPERUSERS = [
    pytest.param("PATCH", {"email": "mine@example.com"}, id="change"),
    pytest.param("DELETE", None, id="deactivate"),
]


@pytest.mark.parametrize(("method", "body"), SUPERUSERS)
@pytest.mark.parametrize("who", [who for who in (*UNKNOWN, *KNOWN) if who != "sam"])
@pytest.mark.django_db
def test_nobody_else_changes_a_superuser(world: World, who: str, method: str, body: Any) -> None:
    sam = world.people["sam"].user
    assert sam is not None
    answer = world.people[who].send(method, f"/api/users/{sam.pk}/", body)
    assert answer.status_code == (401 if who in UNKNOWN else 403)
    assert changed(world) == []


@pytest.mark.parametrize("who", KNOWN)
@pytest.mark.django_db
def test_a_list_and_a_search_show_what_may_be_read(world: World, who: str) -> None:
    """Alice's session is in nobody's list but hers; her trace is found by her and by the admin."""
    session = Session.objects.get(pk=world.names["session"])
    new_message(session, trace_id="t-1")
    listed = [row["id"] for row in world.people[who].get("/api/sessions/").json()]
    found = world.people[who].get("/api/messages/?trace_id=t-1").json()
    assert listed == ([session.pk] if who == "alice" else [])
    assert len(found) == (1 if who in ("alice", "carol") else 0)


@pytest.mark.parametrize("who", ["alice", "carol"])
@pytest.mark.django_db
def test_a_membership_removed_counts_from_the_next_request(world: World, who: str) -> None:
    session, person = world.names["session"], world.people[who]
    assert person.get(f"/api/sessions/{session}/").status_code == 200
    Membership.objects.filter(user=person.user, workspace=world.names["shared"]).delete()
    statuses = [
        person.get(f"/api/sessions/{session}/").status_code,
        person.patch(f"/api/sessions/{session}/", {"title": "Mine"}).status_code,
        person.get(f"/api/messages/{world.names['message']}/").status_code,
        person.post(f"/api/sessions/{session}/messages/", HELLO).status_code,
    ]
    assert statuses == [403, 403, 403, 403]
    assert person.get("/api/sessions/").json() == []
    assert person.get("/api/messages/?trace_id=t-1").json() == []


@pytest.mark.django_db
def test_an_admin_made_a_member_loses_what_admins_have(world: World) -> None:
    carol = world.people["carol"]
    Membership.objects.filter(user=carol.user, workspace=world.names["shared"]).update(role=Membership.Role.MEMBER)
    assert carol.get(f"/api/sessions/{world.names['session']}/").status_code == 403


def test_every_route_has_its_entry() -> None:
    assert set(routes(get_resolver())) == set(MATRIX)


def test_each_entry_says_something_of_each_of_its_objects() -> None:
    spoken = {(name, kind) for name, route in MATRIX.items() for told in route.methods.values() for kind in told}
    assert spoken == {(name, kind) for name, route in MATRIX.items() for kind in route.paths}


def secrets(request: HttpRequest) -> HttpResponse:
    return HttpResponse("everything")


@pytest.mark.parametrize("route", ["api/secrets", "debug/secrets", "secrets"])
def test_a_new_route_would_be_noticed(route: str) -> None:
    extended = URLResolver(RegexPattern(r"^/"), [path(route, secrets), *get_resolver().url_patterns])
    assert unlisted(get_resolver()) == set()
    assert unlisted(extended) == {route}


@pytest.mark.django_db
def test_the_walk_sees_what_the_client_reaches(world: World) -> None:
    """A guard on `routes`: it goes down into what the project includes, and finds more than the top."""
    assert "api/sessions/{ref}/restore" in set(routes(get_resolver()))
    assert Client().get("/api/sessions/1/restore/").status_code == 401
