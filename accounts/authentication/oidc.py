"""OIDC access tokens (contract 6.3): JWTs of configured issuers, verified with their published keys.

RFC 7519, RFC 9068. Which keys, algorithms and audience count is configured; nothing of a token says where to look
(`jku` and `x5u` are not read).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jwt
import structlog
from django.conf import settings
from jwt.exceptions import (
    ExpiredSignatureError,
    InvalidAlgorithmError,
    InvalidSubjectError,
    PyJWKClientConnectionError,
    PyJWTError,
)

from accounts.authentication.credentials import AccessToken
from accounts.authentication.identities import user_of
from accounts.authentication.issuer_keys import keys_at
from accounts.authentication.profiles import is_kept, profile_of
from accounts.authentication.refusals import active, invalid_token
from accounts.models import User
from chatstore.environment import OidcIssuer
from chatstore.http.problems import Unavailable

SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
LEEWAY_SECONDS = 30
REQUIRED = ["iss", "aud", "exp", "sub"]

log = structlog.get_logger("chatstore.authentication")


def person_of(text: str) -> tuple[User, AccessToken] | None:
    issuers = settings.ENVIRONMENT.oidc_issuers
    if not issuers or not SHAPE.fullmatch(text):
        return None
    issuer, claims = verified(text, issuers)
    verified_email = claims.get(issuer.email_verified_claim) is True
    profile = profile_of(claims.get("name"), claims.get(issuer.email_claim), verified_email)
    user = user_of(issuer.issuer, claims["sub"], profile)
    return active(user), AccessToken(user.pk, claims["exp"])


def person_again(number: str) -> tuple[User, AccessToken] | None:
    """The user with this primary key, if still active. An access token cannot be revoked; when it expires, the
    cookie made with it does."""
    user = User.objects.filter(pk=number, is_active=True).first() if settings.ENVIRONMENT.oidc_issuers else None
    return (user, AccessToken(user.pk, 0)) if user else None


def verified(text: str, issuers: tuple[OidcIssuer, ...]) -> tuple[OidcIssuer, dict[str, Any]]:
    """The claims of a token that holds in every respect, and whose they are. 401 for any other; 503 where the
    issuer's keys are needed, cannot be fetched and were not fetched before."""
    said = "an issuer that is not configured"
    try:
        token = jwt.decode_complete(text, options={"verify_signature": False})
        issuer = next(known for known in issuers if known.issuer == token["payload"].get("iss"))
        said = issuer.issuer
        return issuer, claims_of(text, token["header"], issuer)
    except PyJWKClientConnectionError:
        raise Unavailable("The keys of the token's issuer cannot be fetched; try again.") from None
    except ExpiredSignatureError:
        raise invalid_token("The access token has expired.") from None
    except (PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError, StopIteration) as error:
        log.info("access token refused", issuer=said, reason=type(error).__name__)
        raise invalid_token("The access token is not valid here.") from None


def claims_of(text: str, header: Mapping[str, Any], issuer: OidcIssuer) -> dict[str, Any]:
    if header.get("alg") not in issuer.algorithms:  # Before anything is fetched for it.
        raise InvalidAlgorithmError
    claims: dict[str, Any] = jwt.decode(
        text,
        keys_at(issuer.keys_url).get_signing_key(header.get("kid", "")),
        algorithms=issuer.algorithms,
        audience=issuer.audience,
        issuer=issuer.issuer,
        leeway=LEEWAY_SECONDS,
        options={"require": REQUIRED},
    )
    if not is_kept(claims["sub"]):
        raise InvalidSubjectError
    # PyJWT takes a number in quotes, and one that no float holds.
    return claims | {"exp": float(claims["exp"])}
