"""Sessions of better-auth (contract 6.4), looked up in its own table at every request, so that a sign-out or a ban
counts from the next one on. Nothing is ever written there.

A token comes raw (32 letters and digits), or signed, `token.signature`, where the signature is the HMAC-SHA-256
of the token in standard base64 with padding; the signed one also percent-encoded, as it stands in better-auth's
cookie.
"""

from __future__ import annotations

import base64
import hmac
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import structlog
from django.conf import settings
from django.db import DatabaseError, DataError, InterfaceError
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from accounts.authentication.credentials import Login
from accounts.authentication.identities import user_of
from accounts.authentication.login_tables import tables
from accounts.authentication.profiles import is_kept, profile_of
from accounts.authentication.refusals import active, invalid_token
from accounts.models import User
from chatstore.http.logs import described
from chatstore.http.problems import Unavailable

RAW = re.compile(r"[A-Za-z0-9_-]{16,128}")
SIGNED = re.compile(r"([A-Za-z0-9_-]{16,128})\.([A-Za-z0-9+/]{43}=)")
MILLISECONDS_FROM = 10**11

log = structlog.get_logger("chatstore.authentication")


def person_of(text: str) -> tuple[User, Login] | None:
    if not settings.ENVIRONMENT.better_auth or not (token := raw_token(text)):
        return None
    return person_with(token=token)


def person_again(number: str) -> tuple[User, Login] | None:
    """Whose login has this id, if it is good still."""
    return person_with(id=number) if settings.ENVIRONMENT.better_auth else None


def raw_token(text: str) -> str | None:
    """The raw token in `text`; None where it is no token of better-auth's. 401 for a signature that is wrong,
    missing where it must not be, or cannot be checked without the secret."""
    if signed := SIGNED.fullmatch(unquote(text)):
        secret = settings.ENVIRONMENT.better_auth_signing_secret
        if not secret or not hmac.compare_digest(signature(signed[1], secret), signed[2]):
            raise invalid_token("The token's signature is not valid here.")
        return signed[1]
    if not RAW.fullmatch(text):
        return None
    if settings.ENVIRONMENT.better_auth_require_signature:
        raise invalid_token("The token must be signed.")
    return text


def signature(token: str, secret: bytes) -> str:
    return base64.b64encode(hmac.digest(secret, token.encode(), "sha256")).decode()


def person_with(**where: str) -> tuple[User, Login]:
    """Whose login this is. 401 where there is none, or it has expired, or its user is banned; 503 where
    better-auth's tables cannot be read."""
    login = next((login for login in logins(**where) if is_good(login)), None)
    if login is None:
        raise invalid_token("The login is unknown, ended or expired.")
    subject = str(login["user_id"])
    if not is_kept(subject):
        raise invalid_token("The login's user cannot be kept here.")
    profile = profile_of(login["user__name"], login["user__email"], login["user__email_verified"] in (True, 1))
    user = user_of(settings.ENVIRONMENT.better_auth_issuer, subject, profile)
    return active(user), Login(str(login["id"]))


def good_logins(ids: set[str]) -> set[str]:
    """Those of these ids of logins that are good; all of them while better-auth's tables cannot be read."""
    if not settings.ENVIRONMENT.better_auth:
        return set()
    try:
        return {str(login["id"]) for login in logins(id__in=sorted(ids)) if is_good(login)}
    except Unavailable:
        return ids


def logins(**where: Any) -> list[dict[str, Any]]:
    """Unavailable (503) where better-auth's tables cannot be read."""
    try:
        return tables(settings.ENVIRONMENT).find(**where)
    except DataError:  # A time that Python has not: this row's fault, and not the tables'.
        return []
    except (DatabaseError, InterfaceError) as error:
        log.error("better-auth's tables cannot be read", error=described(error.__cause__ or error))
        raise Unavailable("Logins cannot be looked up now; try again.") from None


def is_good(login: dict[str, Any]) -> bool:
    return not has_expired(login) and not is_banned(login)


def has_expired(login: dict[str, Any]) -> bool:
    until = time_of(login["expires_at"])
    return until is None or until <= timezone.now()


def is_banned(login: dict[str, Any]) -> bool:
    """For good, or until a time that is to come (better-auth's admin plugin)."""
    if not login.get("user__banned"):
        return False
    until = time_of(login.get("user__ban_expires"))
    return until is None or until > timezone.now()


def time_of(value: object) -> datetime | None:
    """A time as databases give it: as one (without a zone: UTC), as text, or as seconds or milliseconds. None
    where it cannot be read, or is empty or 0, which better-auth takes for none."""
    try:
        if isinstance(value, str):
            value = parse_datetime(value)
        elif isinstance(value, int | float) and value:
            value = datetime.fromtimestamp(value / 1000 if value > MILLISECONDS_FROM else value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
