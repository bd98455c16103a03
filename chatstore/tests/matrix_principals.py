"""Who calls in the matrix, and what the table's answers become for whoever does not call as a person does."""

from __future__ import annotations

from typing import NamedTuple

from chatstore.tests.matrix_table import Route
from chatstore.tests.matrix_things import PEOPLE, SECRETS, Thing


class Principal(NamedTuple):
    """`acts_as` is whose rights count; `refused` the status for who does not get that far. `scope` is a service's,
    and `bound` the workspace that its token is for."""

    acts_as: str = ""
    refused: int = 0
    scope: str = ""
    bound: str = ""


UNKNOWN = {
    name: Principal(refused=401)
    for name in (
        "nobody",
        "garbage",
        "garbage-of-a-service",
        "expired-token",
        "revoked-token",
        "token-of-deactivated",
        "oidc-expired",
        "oidc-for-another-audience",
        "oidc-of-another-issuer",
        "oidc-of-deactivated",
        "service-expired",
        "service-revoked",
    )
}
KNOWN = {**{name: Principal(name) for name in PEOPLE}, "alice-by-oidc": Principal("alice")}
SERVICES = {
    "service-read": Principal("alice", scope="read"),
    "service-write": Principal("alice", scope="write"),
    "service-read-write": Principal("alice", scope="read write"),
    "service-by-subject": Principal("alice", scope="read write"),
    "service-of-the-settings": Principal("alice", scope="read write"),
    "service-for-the-admin": Principal("carol", scope="read write"),
    "service-of-the-workspace": Principal("alice", scope="read write", bound="shared"),
    "service-of-the-workspace-for-its-admin": Principal("carol", scope="read write", bound="shared"),
}
REFUSED = {
    name: Principal(refused=403)
    for name in (
        "service-for-nobody-named",
        "service-for-an-empty-name",
        "service-for-somebody-absent",
        "service-for-two",
        "service-for-alice-twice",
        "service-for-staff",
        "service-for-a-superuser",
        "service-for-deactivated",
        "service-of-the-settings-for-staff",
        "service-of-another-workspace",
        "alice-on-behalf-of-bob",
        "alice-by-oidc-on-behalf-of-bob",
    )
}
PRINCIPALS = {**UNKNOWN, **KNOWN, **SERVICES, **REFUSED}


def relation(thing: Thing, principal: Principal) -> str:
    """What a thing is to the caller. A bound service is a stranger outside of its workspace."""
    outside = principal.bound and thing.place and thing.place != principal.bound
    return "other" if outside else thing.to_person(principal.acts_as)


def expected(route: Route, method: str, thing: Thing, principal: Principal) -> int:
    """The order of contract 1: who is calling (401, and 403 for a service that may not act for whom it names: the
    caller is not known), 405, what the credential is good for, and then the thing itself."""
    if route.public:
        return next(iter(route.methods[method].values())) if method in route.methods else 405
    if principal.refused:
        return principal.refused
    if method not in route.methods:
        return 405
    needed = "read" if method == "GET" else "write"
    if principal.scope and (route.in_person or needed not in principal.scope.split()):
        return 403
    return of_the_thing(route, method, thing, principal)


def of_the_thing(route: Route, method: str, thing: Thing, principal: Principal) -> int:
    rights = route.methods[method]
    if thing.state in rights:
        return rights[thing.state]
    if principal.bound and method == "PATCH" and route.name == "api/users/{ref}":
        return 403  # A person is nothing of a workspace's.
    return rights[relation(thing, principal)]


def readable(principal: Principal) -> set[str]:
    """The secrets that an answer may tell."""
    if principal.refused:
        return set()
    return {name for name, thing in SECRETS.items() if relation(thing, principal) != "other"}
