"""Service tokens (contract 6.1): SERVICE_AUTH_TOKEN, or `css_...`. They act on behalf of a user whom
`X-On-Behalf-Of` names."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.utils import timezone
from rest_framework.exceptions import PermissionDenied

from accounts.authentication.identities import identified
from accounts.authentication.refusals import invalid_token
from accounts.models import ServiceToken, User, UserQuerySet, Workspace, digest_of
from chatstore.compiled import CompiledQuery, Parameter, columns_of, instance_of
from chatstore.http.requests import LONG_WORD, masked
from chatstore.ids import uuid_of

SHAPE = re.compile(r"css_[A-Za-z0-9_-]{43}")
MOST_LOGGED = 512
NO_NAME = {"\0", "\N{REPLACEMENT CHARACTER}"}

log = structlog.get_logger("chatstore.authentication")


def users_found(find: Callable[[UserQuerySet], UserQuerySet]) -> CompiledQuery:
    """Those that `find` leaves, with what `objection` asks."""
    workspace: Any = Parameter("workspace", Workspace, "public_id")
    return CompiledQuery(
        lambda: (
            find(User.objects.all())
            .with_powers()
            .with_role_in(workspace)
            .values(*columns_of(User), "has_powers", "role_in")
        )
    )


def of_digest() -> Any:
    """The token in force with this digest."""
    in_force = ServiceToken.objects.in_force(Parameter("now", ServiceToken, "expires_at"))
    return in_force.filter(digest=Parameter("digest", ServiceToken, "digest")).values(*columns_of(ServiceToken))


# Every request of a back end asks the first, and one of the others.
OF_DIGEST = CompiledQuery(of_digest)
BY_IDENTITY = users_found(identified)
BY_PUBLIC_ID = users_found(lambda users: users.filter(public_id=Parameter("public_id", User, "public_id")))


def service_of(text: str) -> ServiceToken | None:
    """The service whose token this is; None for a token of another kind. 401 for one that opens nothing."""
    if not settings.ENVIRONMENT.service_tokens:
        return None
    if is_the_one_of_the_settings(text):
        return ServiceToken(name="SERVICE_AUTH_TOKEN")
    if not text.startswith(ServiceToken.PREFIX):
        return None
    now = timezone.now()
    row = OF_DIGEST.row(digest=digest_of(text), now=now) if SHAPE.fullmatch(text) else None
    if row is None:
        raise invalid_token("The token is unknown, revoked or expired.")
    token = instance_of(ServiceToken, row)
    token.note_use(now)
    return token


def is_the_one_of_the_settings(text: str) -> bool:
    own = settings.ENVIRONMENT.service_auth_token
    return own is not None and hmac.compare_digest(text.encode(), own.get_secret_value().encode())


def user_for(service: ServiceToken, on_behalf_of: str | None) -> User:
    """The user whom the service acts for. 403 where it may not; why is in the log alone, with both names."""
    if on_behalf_of is not None:  # WSGI's strings are Latin-1; people's names are UTF-8.
        on_behalf_of = on_behalf_of.encode("latin-1", "replace").decode("utf-8", "replace")
    user = user_named(service, on_behalf_of or "")
    if reason := objection(service, on_behalf_of, user):
        named = loggable(on_behalf_of or "")
        log.warning("may not act on behalf", service=service.name, on_behalf_of=named, reason=reason)
        if on_behalf_of is None:
            raise PermissionDenied("X-On-Behalf-Of must name a user.", code="on_behalf_of_missing")
        raise PermissionDenied("The service may not act for this user.", code="on_behalf_of_refused")
    assert user is not None
    user.confined_to = service.workspace_id
    return user


def user_named(service: ServiceToken, name: str) -> User | None:
    """By public id, or `issuer|subject` (a subject may hold bars itself); with `has_powers`, and the role in the
    token's workspace."""
    workspace = service.workspace_id
    issuer, bar, subject = name.partition("|")
    row = None
    if bar and not NO_NAME & set(name):
        row = BY_IDENTITY.row(issuer=issuer, subject=subject, workspace=workspace)
    elif public_id := uuid_of(name):
        row = BY_PUBLIC_ID.row(public_id=public_id, workspace=workspace)
    if row is None:
        return None
    user = instance_of(User, row)
    user.has_powers, user.role_in = row["has_powers"], row["role_in"]
    return user


def loggable(name: str) -> str:
    """What a service called a user, unless it may be anything: a token in the wrong header, say."""
    return (name if "|" in name else LONG_WORD.sub(masked, name))[:MOST_LOGGED]


def objection(service: ServiceToken, on_behalf_of: str | None, user: User | None) -> str:
    """Why the service may not act for the user; empty where it may."""
    if on_behalf_of is None:
        return "no header"
    if "," in on_behalf_of:
        return "more than one"  # WSGI joins repeated headers by commas.
    if user is None:
        return "absent"
    reasons = {
        "deactivated": not user.is_active,
        "holds powers over the site": user.has_powers,
        "not of the token's workspace": service.workspace_id and user.role_in is None,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")
