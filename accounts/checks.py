"""What of the settings can only be told by looking: whether better-auth's tables are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Warning, register
from django.db import DatabaseError, InterfaceError

from accounts.authentication.login_tables import tables
from chatstore.http.logs import described


@register("chatstore")  # W001
def better_auth_can_be_read(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """A warning and no error: better-auth may make its tables later, and API tokens work without them."""
    if not settings.ENVIRONMENT.better_auth:
        return []
    try:
        tables(settings.ENVIRONMENT)
    except (DatabaseError, InterfaceError) as error:
        said = described(error.__cause__ or error)
        hint = "Until they can be, its tokens are answered 503. See BETTER_AUTH_* in docs/operations.md."
        return [Warning(f"better-auth's tables cannot be read ({said}).", hint=hint, id="chatstore.W001")]
    return []
