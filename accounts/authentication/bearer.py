"""`Authorization: Bearer <token>`: who is calling, of the four kinds of contract section 6."""

from __future__ import annotations

import re
from collections.abc import Callable

import structlog
from rest_framework import HTTP_HEADER_ENCODING
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from accounts.authentication import api_tokens, better_auth, oidc, service_tokens
from accounts.authentication.credentials import Credential
from accounts.authentication.refusals import invalid_token
from accounts.models import User

# One scheme, one token: two Authorization headers arrive joined by a comma and match nothing.
BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([!-+\--~]{1,16384})")

# Each takes a token's text and returns the person and the credential; None where the token is of another kind;
# raises AuthenticationFailed where it is of this kind and opens nothing. The order is the contract's.
PersonOf = Callable[[str], tuple[User, Credential] | None]
KINDS: tuple[PersonOf, ...] = (api_tokens.person_of, oidc.person_of, better_auth.person_of)


def authorization_of(request: Request) -> bytes:
    """As DRF's `get_authorization_header`, which spells out all other headers, too."""
    return str(request.META.get("HTTP_AUTHORIZATION", "")).encode(HTTP_HEADER_ENCODING)


class BearerAuthentication(BaseAuthentication):
    """`request.user` is who is acted for, `request.auth` the credential. None where there is no such header,
    401 where it opens nothing, 403 where a service may not act for whom it names."""

    def authenticate(self, request: Request) -> tuple[User, Credential] | None:
        header = authorization_of(request).strip()
        if not header:
            return None
        bearer = BEARER.fullmatch(header)
        if not bearer:
            raise invalid_token("The Authorization header must be: Bearer, a space, one token.")
        text = bearer[1].decode("ascii")
        on_behalf_of = request.META.get("HTTP_X_ON_BEHALF_OF")
        if service := service_tokens.service_of(text):
            user = service_tokens.user_for(service, on_behalf_of)
            structlog.contextvars.bind_contextvars(service=service.name)
            return known(user, service)
        user, credential = person_of(text)
        if on_behalf_of is not None:
            raise PermissionDenied("Only a service token acts on behalf of others.", code="not_a_service")
        return known(user, credential)

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer error="invalid_token"' if authorization_of(request) else "Bearer"


def person_of(text: str) -> tuple[User, Credential]:
    for kind in KINDS:
        if found := kind(text):
            return found
    raise invalid_token("The token is of no known kind.")


def known(user: User, credential: Credential) -> tuple[User, Credential]:
    """The caller, named from now on in each line that this request logs."""
    structlog.contextvars.bind_contextvars(user=str(user.public_id), credential=credential.ref)
    return user, credential
