"""Misconfiguration as system checks with stable ids; `chatstore.wsgi` refuses to start on an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from chatstore.environment import DEVELOPMENT_SECRET_KEY


@register("chatstore")  # E001, E002, E004
def safe_outside_development(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    environment = settings.ENVIRONMENT
    if environment.is_development:
        return []
    errors: list[CheckMessage] = []
    if settings.SECRET_KEY == DEVELOPMENT_SECRET_KEY:
        hint = "python3 -c 'import secrets; print(secrets.token_urlsafe(64))' makes one."
        errors.append(
            Error(f"SECRET_KEY must be set where ENV={environment.env}.", hint=hint, id="chatstore.E001")
        )
    if settings.DEBUG:
        errors.append(
            Error(
                f"DEBUG must be off where ENV={environment.env}.",
                hint="Its pages show settings and people's data.",
                id="chatstore.E002",
            )
        )
    if "*" in settings.ALLOWED_HOSTS:
        errors.append(
            Error(
                f"ALLOWED_HOSTS must name the hosts where ENV={environment.env}.",
                hint="With * anybody's host name ends up in the links of the answers.",
                id="chatstore.E004",
            )
        )
    return errors


@register("chatstore")  # E003
def no_credentials_for_every_origin(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if settings.CORS_ALLOW_ALL_ORIGINS and settings.CORS_ALLOW_CREDENTIALS:
        hint = "Name the origins, or leave CORS_ALLOW_CREDENTIALS off."
        return [Error("CORS_ORIGINS=* cannot go with CORS_ALLOW_CREDENTIALS.", hint=hint, id="chatstore.E003")]
    return []


@register("chatstore")  # E005
def pool_has_room(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    environment = settings.ENVIRONMENT
    if environment.db_pool_min > environment.db_pool_max:
        return [Error("DB_POOL_MIN is larger than DB_POOL_MAX.", id="chatstore.E005")]
    return []


@register("chatstore")  # E006
def sqlite_can_return_rows(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    if connection.vendor == "sqlite" and not connection.features.can_return_rows_from_bulk_insert:
        return [Error("SQLite is older than 3.35 (no RETURNING).", hint="Use PostgreSQL.", id="chatstore.E006")]
    return []


def refuse_errors() -> None:
    """Raise ImproperlyConfigured where one of these checks finds an error."""
    if errors := [message for message in run_checks(tags=["chatstore"]) if message.is_serious()]:
        raise ImproperlyConfigured("\n".join(str(error) for error in errors))
