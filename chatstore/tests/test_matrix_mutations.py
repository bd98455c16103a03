"""The matrix turns red when any one check of who may do what is taken out of the code.

Here, and only here, the tests replace our own code: each mutation is such a check gone.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jwt
import pytest

from accounts import permissions as of_accounts
from accounts.authentication import oidc, service_tokens
from accounts.models import (
    ApiToken,
    ApiTokenQuerySet,
    MembershipQuerySet,
    TokenQuerySet,
    User,
    UserQuerySet,
    Workspace,
)
from accounts.views import ApiTokenViewSet
from chatstore.compiled import CompiledQuery
from chatstore.tests import matrix_world
from chatstore.tests.matrix_cells import CELLS, Cell, disagreements
from chatstore.tests.matrix_world import World
from conversations.api import permissions, queries
from conversations.models import Session, SessionQuerySet

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with django_db_blocker.unblock(), matrix_world.made() as made:
        yield made


class Mutation(NamedTuple):
    """In place of `name` of `owner` stands `replacement`. It shows where `who` asks for `routes`; the rest of the
    matrix is not asked again."""

    owner: Any
    name: str
    replacement: Callable[..., Any]
    routes: tuple[str, ...]
    who: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        return [cell for cell in CELLS if cell.who in self.who and cell.route.name in self.routes]


def yes(*args: Any) -> bool:
    return True


def same(rows: Any, *args: Any) -> Any:
    return rows


def of_whoever_made_it(session: Session, user: User) -> bool:
    """Not only while they are a member."""
    return session.owner_id == user.pk


def reading_and_writing(permission: Any, request: Any, view: Any, obj: Any) -> bool:
    """Whoever may read a session writes into it, too."""
    session = permissions.session_of(obj)
    return session.is_owned_by(request.user) or session.is_administered_by(request.user)


def wherever_a_member(memberships: MembershipQuerySet, user: User) -> MembershipQuerySet:
    return memberships.filter(user=user)


def whoever_owns_them(sessions: SessionQuerySet, user: User) -> SessionQuerySet:
    return sessions.with_role_of(user).filter(owner=user)


def with_an_admin(public_id: Any, caller: User) -> Any:
    return Workspace.objects.filter(public_id=public_id).first(), "admin"


def everybodys_tokens(view: Any) -> Any:
    return ApiToken.objects.all()


def no_objection(*args: Any) -> str:
    return ""


def for_any_audience(text: str, key: Any, **checks: Any) -> Any:
    checks["options"] = {**checks["options"], "verify_aud": False}
    return DECODE(text, key, **{**checks, "audience": None})


SESSIONS = ("api/sessions", "api/sessions/{ref}", "api/sessions/{ref}/restore")
OF_SESSIONS = ("api/sessions/{session_ref}/messages", "api/sessions/{session_ref}/messages/batch")
MESSAGES = ("api/messages", "api/messages/{ref}", *OF_SESSIONS)
USERS = ("api/users", "api/users/{ref}")
TOKENS = ("api/me/tokens", "api/me/tokens/{ref}")
SOMEBODY_ELSE = ("stan",)

PERMITTED = "has_object_permission"
DECODE = jwt.decode

MUTATIONS = {
    "everybody owns every session": Mutation(
        Session, "is_owned_by", yes, ("api/sessions/{ref}",), ("bob", "carol")
    ),
    "whoever made a session owns it for ever": Mutation(
        Session, "is_owned_by", of_whoever_made_it, ("api/sessions/{ref}", *MESSAGES), ("alice",)
    ),
    "everybody administers every session": Mutation(
        Session, "is_administered_by", yes, ("api/sessions/{ref}", "api/messages"), ("mallory",)
    ),
    "everybody may do everything with a session": Mutation(
        permissions.SessionPermission, PERMITTED, yes, SESSIONS, SOMEBODY_ELSE
    ),
    "everybody may do everything with a message": Mutation(
        permissions.MessagePermission, PERMITTED, yes, MESSAGES, SOMEBODY_ELSE
    ),
    "an admin writes other people's messages": Mutation(
        permissions.MessagePermission, PERMITTED, reading_and_writing, MESSAGES, ("carol",)
    ),
    "everybody's sessions are in one's list": Mutation(
        SessionQuerySet, "owned_by", same, ("api/sessions",), SOMEBODY_ELSE
    ),
    "sessions stay in one's list for ever": Mutation(
        SessionQuerySet, "owned_by", whoever_owns_them, ("api/sessions",), ("alice",)
    ),
    "everybody's messages are found by a trace": Mutation(
        SessionQuerySet, "visible_to", same, ("api/messages",), SOMEBODY_ELSE
    ),
    "everybody is an admin where sessions are listed and made": Mutation(
        queries, "workspace_with_role", with_an_admin, ("api/sessions",), SOMEBODY_ELSE
    ),
    "everybody is an admin where usage is asked for": Mutation(
        queries, "workspace_with_role", with_an_admin, ("api/usage",), SOMEBODY_ELSE
    ),
    "everybody's tokens are one's own": Mutation(
        ApiTokenViewSet, "get_queryset", everybodys_tokens, TOKENS, SOMEBODY_ELSE
    ),
    "a token is good for everything": Mutation(
        of_accounts.WithinScope,
        "has_permission",
        yes,
        ("api/me", "api/sessions/{ref}"),
        ("service-read", "service-write"),
    ),
    "a service does what a person does": Mutation(
        of_accounts.InPerson, "has_permission", yes, (*TOKENS, "auth/session"), ("service-read-write",)
    ),
    "a service acts for whomever it likes": Mutation(
        service_tokens,
        "objection",
        no_objection,
        ("api/me", "api/users"),
        ("service-for-staff", "service-for-a-superuser", "service-of-another-workspace"),
    ),
    "a workspace's token counts everywhere": Mutation(
        MembershipQuerySet,
        "of",
        wherever_a_member,
        ("api/me", *SESSIONS, *MESSAGES),
        ("service-of-the-workspace",),
    ),
    "nobody has powers": Mutation(UserQuerySet, "manageable_by", same, ("api/users/{ref}",), ("helen",)),
    "everybody may do everything with a user": Mutation(
        of_accounts.UserPermission, PERMITTED, yes, USERS, SOMEBODY_ELSE
    ),
    "everybody lists and makes users": Mutation(
        of_accounts.UserPermission, "has_permission", yes, USERS, SOMEBODY_ELSE
    ),
    "everybody holds Django's permissions": Mutation(User, "has_perm", yes, USERS, SOMEBODY_ELSE),
    "tokens are good for ever": Mutation(
        TokenQuerySet,
        "in_force",
        same,
        ("api/me",),
        ("expired-token", "revoked-token", "service-expired", "service-revoked"),
    ),
    "tokens of the deactivated open the API": Mutation(
        ApiTokenQuerySet, "valid", TokenQuerySet.in_force, ("api/me",), ("token-of-deactivated",)
    ),
    "access tokens for others open the API": Mutation(
        jwt, "decode", for_any_audience, ("api/me",), ("oidc-for-another-audience",)
    ),
    "issuers let in the deactivated": Mutation(oidc, "active", same, ("api/me",), ("oidc-of-deactivated",)),
}


@pytest.fixture
def compiled() -> Iterator[list[CompiledQuery]]:
    """The compiled queries of all rooms, which a mutation must meet, and must not outlive."""
    found = [query for query in gc.get_objects() if type(query) is CompiledQuery]
    assert found
    yield found
    forget(found)


def forget(compiled: list[CompiledQuery]) -> None:
    for query in compiled:
        vars(query).pop("compiled", None)


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
@pytest.mark.django_db
def test_the_matrix_turns_red_when(
    world: World, compiled: list[CompiledQuery], monkeypatch: pytest.MonkeyPatch, mutation: Mutation
) -> None:
    assert disagreements(world, mutation.cells) == []
    forget(compiled)
    monkeypatch.setattr(mutation.owner, mutation.name, mutation.replacement)
    found = disagreements(world, mutation.cells)
    assert [disagreement for disagreement in found if disagreement.opens]
