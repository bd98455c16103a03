"""Whom an issuer means."""

from __future__ import annotations

from typing import Any

from accounts.models import Identity, User, UserQuerySet
from chatstore.compiled import CompiledQuery, Parameter, columns_of, instance_of


def identified(users: UserQuerySet) -> UserQuerySet:
    """Those of an issuer and a subject that come with the call."""
    issuer: Any = Parameter("issuer", Identity, "issuer")
    subject: Any = Parameter("subject", Identity, "subject")
    return users.identified(issuer, subject)


# Every request with an issuer's token asks it.
KNOWN = CompiledQuery(lambda: identified(User.objects.all()).values(*columns_of(User)))


def user_of(issuer: str, subject: str, profile: dict[str, str]) -> User:
    """Whom `issuer` calls `subject`, made with `profile` at first sight."""
    row = KNOWN.row(issuer=issuer, subject=subject)
    return instance_of(User, row) if row else User.objects.of_identity(issuer, subject, **profile)[0]
