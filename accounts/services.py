"""The rules and transactions of people and their tokens, the same from web, command or test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import ApiToken, User
from chatstore.retries import Retry


class UsernameTaken(Exception):
    """Another user has this name."""


class ExpiryPassed(Exception):
    """The token would open nothing."""


def issue_token(user: User, fields: Mapping[str, Any], retry: Retry | None) -> tuple[ApiToken, str | None]:
    """A new token and its text, or the one that this key made before, whose text is gone.

    `fields` holds name and expires_at. Raises ExpiryPassed, KeyReused.
    """
    made_before = ApiToken.objects.filter(user=user, idempotency_key=retry.key if retry else None)
    try:
        if not retry or not made_before.exists():
            if fields["expires_at"] and fields["expires_at"] <= timezone.now():
                raise ExpiryPassed
            with transaction.atomic():
                return ApiToken.objects.issue(user, **fields, **(retry.columns if retry else {}))
    except IntegrityError:  # The same key came twice at once.
        if not made_before.exists():
            raise
    token = made_before.get()
    if retry:
        retry.check(token.idempotency_digest)
    return token, None


def make_user(maker: User, fields: Mapping[str, Any], retry: Retry | None) -> tuple[User, bool]:
    """A new user, or the one that this key made before; and whether it is new.

    `fields` may hold username, name, email and is_active. Raises UsernameTaken, KeyReused.
    """
    remembered = retry.columns if retry else {}
    made_before = User.objects.filter(created_by=maker, idempotency_key=retry.key if retry else None)
    try:
        if not retry or not made_before.exists():
            return User.objects.create_user(**fields, **remembered, created_by=maker), True
    except IntegrityError:  # The username is taken, or the same key came twice at once.
        if not retry or not made_before.exists():
            raise UsernameTaken from None
    user = made_before.get()
    if retry:
        retry.check(user.idempotency_digest)
    return user, False
