"""API tokens, `cst_...` (contract 6.2): a person's own."""

from __future__ import annotations

import re

from django.conf import settings
from django.utils import timezone

from accounts.authentication.refusals import invalid_token
from accounts.models import ApiToken, User

SHAPE = re.compile(r"cst_[A-Za-z0-9_-]{43}")


def person_of(text: str) -> tuple[User, ApiToken] | None:
    if not settings.ENVIRONMENT.api_tokens or not text.startswith(ApiToken.PREFIX):
        return None
    token = None
    if SHAPE.fullmatch(text):
        token = ApiToken.objects.valid().of_text(text).select_related("user").first()
    if token is None:
        raise invalid_token("The token is unknown, revoked or expired.")
    token.note_use(timezone.now())
    return token.user, token


def person_again(number: str) -> tuple[User, ApiToken] | None:
    """Whose token has this primary key, if it is good still."""
    valid = ApiToken.objects.valid().select_related("user")
    token = valid.filter(pk=number).first() if settings.ENVIRONMENT.api_tokens else None
    return (token.user, token) if token else None
