"""API tokens, `cst_...` (contract 6.2): a person's own."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from accounts.authentication.refusals import invalid_token
from accounts.models import ApiToken, User, digest_of
from chatstore.compiled import CompiledQuery, Parameter, columns_of, instance_of

SHAPE = re.compile(r"cst_[A-Za-z0-9_-]{43}")


def with_person() -> QuerySet[Any, Any]:
    """The valid token with this digest, and whose it is."""
    valid = ApiToken.objects.valid(Parameter("now", ApiToken, "expires_at"))
    named = valid.filter(digest=Parameter("digest", ApiToken, "digest"))
    return named.values(*columns_of(ApiToken), *(f"user__{name}" for name in columns_of(User)))


# Every request asks it.
WITH_PERSON = CompiledQuery(with_person)


def person_of(text: str) -> tuple[User, ApiToken] | None:
    if not settings.ENVIRONMENT.api_tokens or not text.startswith(ApiToken.PREFIX):
        return None
    now = timezone.now()
    row = WITH_PERSON.row(digest=digest_of(text), now=now) if SHAPE.fullmatch(text) else None
    if row is None:
        raise invalid_token("The token is unknown, revoked or expired.")
    user = instance_of(User, row, "user__")
    token = instance_of(ApiToken, row)
    token.user = user
    token.note_use(now)
    return user, token


def person_again(number: str) -> tuple[User, ApiToken] | None:
    """Whose token has this primary key, if it is good still."""
    valid = ApiToken.objects.valid().select_related("user")
    token = valid.filter(pk=number).first() if settings.ENVIRONMENT.api_tokens else None
    return (token.user, token) if token else None
