"""The cookie with which a browser's EventSource reads event streams (contract 5).

Signed, for ten minutes at most, and bound to the credential that it was made with: whatever ends that, a sign-out
or a revoked token, ends the cookie at once. Only views that name EventCookieAuthentication take it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from django.conf import settings
from django.core import signing
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import api_tokens, better_auth, oidc
from accounts.authentication.bearer import known
from accounts.authentication.credentials import AccessToken, Credential
from accounts.authentication.refusals import invalid_token
from accounts.models import User

NAME = "chatstore_events"
PATH = "/api/sessions/"
SALT = "chatstore.event-cookie"
LIFETIME_SECONDS = 600

# Each takes the number of a credential of its kind, and returns its person if it is still good.
AGAIN: dict[str, Callable[[str], tuple[User, Credential] | None]] = {
    "api_token": api_tokens.person_again,
    "oidc": oidc.person_again,
    "better_auth": better_auth.person_again,
}


def put(response: Response, user: User, credential: Credential) -> None:
    lifetime = LIFETIME_SECONDS
    if isinstance(credential, AccessToken):
        lifetime = min(lifetime, int(credential.expires_at - time.time()))
    value = signing.dumps([credential.ref, user.pk, int(time.time()) + lifetime], salt=SALT)
    response.set_cookie(
        NAME,
        value,
        max_age=max(lifetime, 0),
        path=PATH,
        secure=not settings.ENVIRONMENT.is_development,
        httponly=True,
        samesite="Strict",
    )


def clear(response: Response) -> None:
    response.delete_cookie(NAME, path=PATH, samesite="Strict")


class EventCookieAuthentication(BaseAuthentication):
    """The cookie, to read. Stands after BearerAuthentication: whoever sends a token is who the token says."""

    def authenticate(self, request: Request) -> tuple[User, Credential] | None:
        value = request.COOKIES.get(NAME)
        if request.method != "GET" or value is None:
            return None
        try:
            ref, user_id, until = signing.loads(value, salt=SALT)
        except signing.BadSignature:
            raise invalid_token("The event cookie is not valid.") from None
        kind, _, number = ref.partition(":")
        again = AGAIN[kind](number) if time.time() < until else None
        if again is None or again[0].pk != user_id:  # A database may give a login's id again.
            raise invalid_token("The event cookie has expired.")
        return known(*again)
