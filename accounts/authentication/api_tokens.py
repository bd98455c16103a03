from __future__ import annotations

import re

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.models import ApiToken, User

# One scheme, one token: two Authorization headers arrive joined by a comma and match nothing.
BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([!-+\--~]+)")
API_TOKEN = re.compile(r"cst_[A-Za-z0-9_-]{43}")


class ApiTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer cst_...` (contract 6.2). None where there is no such header; 401 for any other
    bearer token, since no other kind is known."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        header = get_authorization_header(request).strip()
        if not header:
            return None
        bearer = BEARER.fullmatch(header)
        text = bearer[1].decode("ascii") if bearer else ""
        if not API_TOKEN.fullmatch(text):
            raise AuthenticationFailed(
                "The Authorization header holds no token of a known kind.", code="invalid_token"
            )
        token = ApiToken.objects.valid().of_text(text).select_related("user").first()
        if token is None:
            raise AuthenticationFailed("The token is unknown, revoked or expired.", code="invalid_token")
        token.note_use(timezone.now())
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
