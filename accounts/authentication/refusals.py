"""How a bearer token is refused."""

from __future__ import annotations

from rest_framework.exceptions import AuthenticationFailed

from accounts.models import User


def invalid_token(detail: str) -> AuthenticationFailed:
    """A 401 of RFC 6750 section 3.1. `detail` never repeats the token."""
    return AuthenticationFailed(detail, code="invalid_token")


def active(user: User) -> User:
    """The user, if nobody has deactivated them."""
    if not user.is_active:
        raise invalid_token("The token's user is deactivated.")
    return user
