"""Which credentials are still good, many at once: for streams that are open while their credential may end."""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.conf import settings

from accounts.authentication.better_auth import good_logins
from accounts.authentication.credentials import AccessToken, Credential
from accounts.models import ApiToken, ServiceToken


def still_good(credentials: Iterable[Credential]) -> set[str]:
    """The refs of those that still open something; one query for each kind that is among them. Whether their users
    are active is not asked here."""
    by_kind: dict[str, set[str]] = {}
    good: set[str] = set()
    for credential in credentials:
        kind, _, number = credential.ref.partition(":")
        if isinstance(credential, AccessToken):
            good |= {credential.ref} if time.time() < credential.expires_at else set()
        else:
            by_kind.setdefault(kind, set()).add(number)
    for kind, numbers in by_kind.items():
        good |= {f"{kind}:{number}" for number in GOOD[kind](numbers)}
    return good


def good_api_tokens(numbers: set[str]) -> Iterable[str]:
    if not settings.ENVIRONMENT.api_tokens:
        return ()
    return map(str, ApiToken.objects.valid().filter(pk__in=numbers).values_list("pk", flat=True))


def good_service_tokens(numbers: set[str]) -> Iterable[str]:
    """0 is SERVICE_AUTH_TOKEN, which is good as long as this process lives."""
    if not settings.ENVIRONMENT.service_tokens:
        return ()
    rows = ServiceToken.objects.in_force().filter(pk__in=numbers - {"0"})
    return {"0", *map(str, rows.values_list("pk", flat=True))} & numbers


GOOD = {"api_token": good_api_tokens, "service_token": good_service_tokens, "better_auth": good_logins}
