"""Misconfiguration as system checks with stable ids; `chatstore.wsgi` refuses to start on an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections

from chatstore.environment import DEVELOPMENT_SECRET_KEY

LEAST_CHARACTERS = 32
LEAST_DIFFERENT = 12

log = structlog.get_logger("chatstore.checks")


def is_strong(secret: str) -> bool:
    """Whether it may have been made at random: of what people make up, most is shorter or repeats itself."""
    return len(secret) >= LEAST_CHARACTERS and len(set(secret)) >= LEAST_DIFFERENT


@register("chatstore")  # E001, E002, E004
def safe_outside_development(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    environment = settings.ENVIRONMENT
    if environment.is_development:
        return []
    errors: list[CheckMessage] = []
    if settings.SECRET_KEY == DEVELOPMENT_SECRET_KEY or not is_strong(settings.SECRET_KEY):
        hint = "python3 -c 'import secrets; print(secrets.token_urlsafe(64))' makes one."
        errors.append(
            Error(
                f"SECRET_KEY must be {LEAST_CHARACTERS} random characters or more where ENV={environment.env}.",
                hint=hint,
                id="chatstore.E001",
            )
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


@register("chatstore")  # E007
def service_token_is_strong(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Whoever guesses it acts for everybody."""
    environment = settings.ENVIRONMENT
    if environment.is_development or environment.service_auth_token is None:
        return []
    if is_strong(environment.service_auth_token.get_secret_value()):
        return []
    hint = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))' makes one."
    said = f"SERVICE_AUTH_TOKEN must be {LEAST_CHARACTERS} random characters or more where ENV={environment.env}."
    return [Error(said, hint=hint, id="chatstore.E007")]


@register("chatstore")  # E008, E009
def better_auth_makes_sense(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    environment = settings.ENVIRONMENT
    errors: list[CheckMessage] = []
    if not environment.better_auth:
        return errors
    if environment.better_auth_require_signature and not environment.better_auth_signing_secret:
        said = "BETTER_AUTH_REQUIRE_SIGNATURE needs BETTER_AUTH_SECRET: nobody could come in."
        errors.append(Error(said, id="chatstore.E008"))
    if environment.better_auth_issuer == "local":
        said = "BETTER_AUTH_ISSUER cannot be `local`: so identities of this installation's own are called."
        errors.append(Error(said, id="chatstore.E009"))
    return errors


@register("chatstore")  # W002
def keys_come_encrypted(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """A warning and no error: within one machine or cluster plain HTTP is usual."""
    environment = settings.ENVIRONMENT
    plain = [issuer.issuer for issuer in environment.oidc_issuers if issuer.keys_url.startswith("http://")]
    if environment.is_development or not plain:
        return []
    hint = "Whoever is between this server and the issuer can put in keys of their own."
    return [Warning(f"The keys of {', '.join(plain)} come over plain HTTP.", hint=hint, id="chatstore.W002")]


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
    """Raise ImproperlyConfigured where one of these checks finds an error; log what it warns of."""
    found = run_checks(tags=["chatstore"])
    connections.close_all()  # A check may have looked into a database; this thread has no more use for it.
    for message in found:
        if not message.is_serious():
            log.warning("system check", id=message.id, message=message.msg)
    if errors := [message for message in found if message.is_serious()]:
        raise ImproperlyConfigured("\n".join(str(error) for error in errors))
