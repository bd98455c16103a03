"""The settings an operator can change, read from the environment and from `.env` (or the file ENV_FILE names).

Each field's description is the one source of `.env.example` and of the table in
`docs/operations.md` (`manage.py generated` writes both, `make check` holds them to it).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import dj_database_url
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.connection import parse_url

BASE_DIR = Path(__file__).resolve().parent.parent
DEVELOPMENT_SECRET_KEY = "development-only-secret-key-never-use-it-where-others-can-reach-you"  # noqa: S105

Name = Annotated[str, Field(min_length=1)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]
SessionField = Literal["id", "token", "userId", "expiresAt"]
UserField = Literal["id", "name", "email", "emailVerified", "banned", "banExpires"]
TraceKind = Literal["hex", "uuid", "openai", "other"]


class OidcIssuer(BaseModel):
    """Whose access tokens are taken (docs/auth.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    issuer: str = Field(max_length=255, pattern=r"^https?://[^|]+$")
    audience: Name | Annotated[tuple[Name, ...], Field(min_length=1)]
    jwks_url: str = Field("", pattern="^(https?://.*)?$")
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = Field(("RS256",), min_length=1)
    email_claim: str = "email"
    email_verified_claim: str = "email_verified"

    @property
    def keys_url(self) -> str:
        """Where the issuer's keys are; Auth0's place where none is said."""
        return self.jwks_url or f"{self.issuer.rstrip('/')}/.well-known/jwks.json"


class Environment(BaseSettings):
    """What the environment says, typed. A value of the wrong type raises pydantic's ValidationError,
    which names the variable and, since values may be secrets, never repeats them."""

    model_config = SettingsConfigDict(
        env_file=os.environ.get("ENV_FILE", BASE_DIR / ".env"),
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        frozen=True,
    )

    # Django's settings ask each value that they hand out whether it says otherwise, and pydantic takes long to say
    # that it has no such attribute.
    _mask_wrapped: ClassVar[bool] = True

    env: Literal["development", "staging", "production"] = Field(
        "development",
        description="Where this runs. Outside development the unsafe defaults are refused at start.",
    )
    debug: bool = Field(False, description="Django's debug pages. Refused outside development.")
    secret_key: SecretStr | None = Field(
        None,
        description="Signs staff logins, event cookies and page cursors. Has a default in development; at least "
        "32 random characters elsewhere.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="The lowest level logged.")
    log_sql: bool = Field(False, description="Log every SQL statement with its time, without its parameters.")

    host: str = Field("127.0.0.1", description="The address to listen on; 0.0.0.0 for all.")
    port: int = Field(8000, ge=1, le=65535, description="The port to listen on.")
    web_workers: int = Field(2, ge=1, description="gunicorn's worker processes.")
    web_threads: int = Field(
        200, ge=1, description="Threads in each worker; an open stream holds one. They cost little memory."
    )
    web_cpu_affinity: bool = Field(
        False,
        description="Keep each worker on one processor: over a quarter less work where many stream at once. For a"
        " machine that serves little else; Linux only.",
    )
    allowed_hosts: CommaSeparated = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host names this site answers to, separated by commas.",
    )
    behind_tls_proxy: bool = Field(
        False,
        description="A proxy in front ends TLS and sets X-Forwarded-Proto itself: trust that header, "
        "redirect plain HTTP, send HSTS and secure cookies.",
    )
    csrf_trusted_origins: CommaSeparated = Field(
        (),
        description="Origins (with scheme) from which staff may log in through a proxy, separated by commas.",
    )
    cors_origins: CommaSeparated = Field(
        ("http://localhost:5173",),
        description="Origins of browser front ends that may call the API, separated by commas; * for any.",
    )
    cors_allow_credentials: bool = Field(
        False, description="Let those origins send cookies. Cannot go with CORS_ORIGINS=*."
    )

    num_proxies: int = Field(
        0,
        ge=0,
        description="Proxies in front that append to X-Forwarded-For: the client's address is that many from "
        "its end. 0: the address that the connection comes from.",
    )
    cache_url: SecretStr | None = Field(
        None,
        description="redis://host:6379/0, where all workers count requests together. Not set: each worker "
        "process counts for itself.",
    )
    max_requests_per_minute: int | None = Field(
        None, ge=1, description="Requests with one credential; beyond it 429. Not set: no limit."
    )
    max_failures_per_minute: int = Field(
        60,
        ge=0,
        description="Requests with a bad token from one address that are answered 401; beyond it 429. "
        "0: no limit.",
    )

    api_tokens: bool = Field(True, description="Take API tokens (cst_...).")
    service_tokens: bool = Field(True, description="Take service tokens (css_...) and SERVICE_AUTH_TOKEN.")
    service_auth_token: SecretStr | None = Field(
        None,
        description="A service token that may do everything on behalf of every user without powers. At least "
        "32 random characters outside development.",
    )
    oidc_issuers: Annotated[tuple[OidcIssuer, ...], NoDecode] = Field(
        (),
        description="Issuers of OIDC access tokens, a JSON list of objects: issuer, audience, jwks_url, "
        "algorithms, email_claim, email_verified_claim (docs/auth.md).",
    )
    better_auth: bool = Field(False, description="Take the sessions of better-auth, from its own tables.")
    better_auth_database_url: SecretStr | None = Field(
        None, description="The database with better-auth's tables, in the forms of DATABASE_URL. Not set: ours."
    )
    better_auth_schema: str = Field("", description="The PostgreSQL schema of its tables. Empty: the search path.")
    better_auth_session_table: str = Field(
        "user_sessions", min_length=1, description="Its session table (session.modelName)."
    )
    better_auth_session_fields: Annotated[tuple[tuple[SessionField, str], ...], NoDecode] = Field(
        (),
        description="The columns that are renamed (session.fields): userId=user_id,expiresAt=expires_at. "
        "Of id, token, userId, expiresAt.",
    )
    better_auth_user_table: str = Field("user", min_length=1, description="Its user table (user.modelName).")
    better_auth_user_fields: Annotated[tuple[tuple[UserField, str], ...], NoDecode] = Field(
        (),
        description="The columns that are renamed (user.fields). Of id, name, email, emailVerified, banned, "
        "banExpires.",
    )
    better_auth_secret: SecretStr | None = Field(
        None, description="Its secret, without which signed tokens are refused."
    )
    better_auth_secrets: SecretStr | None = Field(
        None, description="Its versioned secrets (2:new,1:old), in place of the one: the first is the one in use."
    )
    better_auth_require_signature: bool = Field(False, description="Refuse its tokens without a signature.")
    better_auth_issuer: str = Field(
        "better-auth",
        pattern=r"^[^|]+$",
        max_length=255,
        description="What identities call it. The issuer of its JWTs, where both are used: then they are one "
        "person.",
    )

    database_url: SecretStr | None = Field(
        None,
        description="postgresql://user:password@host:port/name?sslmode=require, also as an SQLAlchemy URL "
        "(postgresql+asyncpg://...?ssl=require). Not set: the file chatstore.sqlite3.",
    )
    db_pool_min: int = Field(2, ge=0, description="PostgreSQL connections each worker keeps open.")
    db_pool_max: int = Field(15, ge=1, description="PostgreSQL connections each worker may open.")
    db_pool_timeout: float = Field(
        1.5, gt=0, description="Seconds a request waits for a connection before it is answered 503."
    )
    db_pool_max_lifetime: float = Field(3600, gt=0, description="Seconds after which a connection is replaced.")
    db_pooler: Literal["none", "transaction"] = Field(
        "none",
        description="transaction: behind PgBouncer in transaction mode. No connection options are sent, "
        "prepared statements and server-side cursors are off.",
    )
    db_statement_timeout: float = Field(
        10, ge=0, description="Seconds a statement may run on PostgreSQL; 0 for no limit (long migrations)."
    )
    db_lock_timeout: float = Field(
        1.5, ge=0, description="Seconds a statement may wait for a lock on PostgreSQL; 0 for no limit."
    )

    service_name: str = Field("chatstore", description="What /health calls this service.")
    api_title: str = Field("Chatstore API", description="The title of the OpenAPI document.")
    api_version: str = Field("1.0.0", description="The version in the OpenAPI document.")

    auto_title: bool = Field(
        False, description="Name a session after its first user message where nobody gave a title."
    )
    max_sessions_per_user: int | None = Field(
        None, ge=1, description="Live sessions a user may own; one more is answered 400. Not set: no limit."
    )
    search_index: bool = Field(
        False,
        description="Search among all messages by the index that `manage.py searchindex` makes; PostgreSQL only. "
        "Off: among the newest 50,000 (docs/operations.md).",
    )
    purge_after_days: int | None = Field(
        None,
        ge=0,
        le=36_500,
        description="Days in the trash after which `manage.py maintain` deletes for good. Not set: never.",
    )
    assistant: str = Field(
        "conversations.chat.assistants.Echo",
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
        description="Who answers: the dotted path of a class or function that makes an assistant (docs/chat.md).",
    )
    openai_agent: str = Field(
        "",
        pattern=r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)+)?$",
        description="With ASSISTANT=conversations.chat.openai_agents.OpenAIAgents: the dotted path of a function "
        "without arguments that returns an agents.Agent (docs/chat.md).",
    )
    stream_share: float = Field(
        0.9, gt=0, le=1, description="The share of a worker's threads that may stream; beyond it 503."
    )
    max_content_bytes: int = Field(
        1024 * 1024, ge=1, le=4 * 1024 * 1024, description="The largest message content, in UTF-8 bytes."
    )
    trace_url_templates: Annotated[tuple[tuple[TraceKind, str], ...], NoDecode] = Field(
        (),
        description="Where the tracing system shows a trace, for the links of staff: a JSON object of addresses "
        "by the kind of the trace id, `hex` (32 hex digits), `uuid`, `openai` (`trace_` and 32 hex digits), "
        "`other`. In the path or query stand `{trace_id}`, `{trace_id_hex}` (not for `other`) and `{span_id}`.",
    )

    access_reason_required: bool = Field(
        False,
        description="Staff say why before they read or export a conversation; the access log keeps it "
        "(docs/admin.md).",
    )

    @field_validator("allowed_hosts", "csrf_trusted_origins", "cors_origins", mode="before")
    @classmethod
    def split_commas(cls, value: Any) -> Any:
        """Take `a,b` as well as the JSON list that other services' `.env` files hold."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return tuple(json.loads(value))
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("oidc_issuers", mode="before")
    @classmethod
    def read_json(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("oidc_issuers")
    @classmethod
    def must_name_each_once(cls, value: tuple[OidcIssuer, ...]) -> tuple[OidcIssuer, ...]:
        if len({issuer.issuer for issuer in value}) < len(value):
            raise ValueError("names an issuer twice")
        return value

    @field_validator("better_auth_session_fields", "better_auth_user_fields", mode="before")
    @classmethod
    def split_pairs(cls, value: Any) -> Any:
        """Take `a=b,c=d` as well as a JSON object."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("{"):
            return tuple(json.loads(value).items())
        pairs = (part.partition("=") for part in value.split(",") if part.strip())
        return tuple((name.strip(), column.strip()) for name, _, column in pairs)

    @field_validator("better_auth_session_fields", "better_auth_user_fields")
    @classmethod
    def must_name_columns(cls, value: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        if not all(column for _, column in value):
            raise ValueError("must say a column for each field: userId=user_id,expiresAt=expires_at")
        return value

    @field_validator("trace_url_templates", mode="before")
    @classmethod
    def read_object(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        read = json.loads(value)
        if not isinstance(read, dict):
            raise ValueError("must be a JSON object: kinds of trace ids, and an address for each")
        return tuple(read.items())

    @field_validator("trace_url_templates")
    @classmethod
    def must_lead_to_pages(cls, value: tuple[tuple[TraceKind, str], ...]) -> tuple[tuple[TraceKind, str], ...]:
        for kind, template in value:
            check_trace_url(kind, template)
        return value

    @field_validator("service_auth_token")
    @classmethod
    def must_fit_in_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-+\--~]{1,1024}", value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces and commas")
        return value

    @field_validator("cache_url")
    @classmethod
    def must_be_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        try:
            parse_url(value.get_secret_value() if value else "redis://")  # type: ignore[no-untyped-call]
        except ValueError:
            raise ValueError("cannot be read: redis://user:password@host:port/0") from None
        return value

    @field_validator("database_url", "better_auth_database_url")
    @classmethod
    def must_be_a_known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_database_url(value.get_secret_value())
        return value

    @property
    def better_auth_signing_secret(self) -> bytes | None:
        """The secret that better-auth signs with now: of several, the first."""
        if self.better_auth_secrets:
            first = self.better_auth_secrets.get_secret_value().split(",")[0].strip()
            version, colon, secret = first.partition(":")
            return (secret if colon and version.isdigit() else first).encode()
        return self.better_auth_secret.get_secret_value().encode() if self.better_auth_secret else None

    @property
    def is_development(self) -> bool:
        return self.env == "development"


def check_trace_url(kind: str, template: str) -> None:
    """ValueError where `template` is no address of a web page, or where an id could choose its host."""
    try:
        fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
        parts = urlsplit(template)
        host = parts.hostname
    except ValueError:
        raise ValueError(f"{kind}: the address cannot be read") from None
    known = {"trace_id", "span_id"} if kind == "other" else {"trace_id", "trace_id_hex", "span_id"}
    if any(name not in known or spec or conversion for name, spec, conversion in fields):
        raise ValueError(f"{kind}: knows {', '.join(f'{{{name}}}' for name in sorted(known))} and no other braces")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{kind}: must begin with http:// or https:// and a host")
    if "{" in parts.netloc:
        raise ValueError(f"{kind}: ids stand in the path or the query, after the host")


# Options of the async drivers' own that libpq would refuse.
DRIVER_ONLY_OPTIONS = {"prepared_statement_cache_size", "statement_cache_size", "command_timeout", "timeout"}
SSL_MODES = {"true": "require", "1": "require", "false": "disable", "0": "disable"}


def parse_database_url(url: str) -> dict[str, Any]:
    """Django's DATABASES entry for `url`, in the forms of libpq, Heroku and SQLAlchemy.

    The `+driver` of an SQLAlchemy URL is dropped, asyncpg's `ssl` becomes libpq's `sslmode`.
    ValueError for anything but PostgreSQL and SQLite; the message does not repeat the URL.
    """
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower().partition("+")[0]
    if scheme not in ("postgres", "postgresql", "sqlite") or not separator:
        raise ValueError("must begin with postgresql:// or sqlite:///")
    bare, _, query = rest.partition("?")
    if scheme == "sqlite":
        return dict(dj_database_url.parse(f"sqlite://{bare}"))
    options = dict(parse_qsl(query, keep_blank_values=True))
    if "ssl" in options:
        mode = options.pop("ssl").lower()
        options.setdefault("sslmode", SSL_MODES.get(mode, mode))
    kept = {name: value for name, value in options.items() if name not in DRIVER_ONLY_OPTIONS}
    normal = f"{scheme}://{bare}" + (f"?{urlencode(kept)}" if kept else "")
    if not urlsplit(normal).path.strip("/"):
        raise ValueError("names no database: postgresql://user:password@host/NAME")
    return dict(dj_database_url.parse(normal))


def databases(environment: Environment) -> dict[str, dict[str, Any]]:
    """Django's `DATABASES` for this environment. `better_auth` is there where its tables are elsewhere."""
    found = {"default": database(environment, environment.database_url)}
    if environment.better_auth_database_url:
        found["better_auth"] = read_only(database(environment, environment.better_auth_database_url))
    return found


def read_only(entry: dict[str, Any]) -> dict[str, Any]:
    """The same database, where nothing can be written."""
    if entry["ENGINE"].endswith("sqlite3"):
        return entry | {"NAME": f"file:{quote(str(entry['NAME']))}?mode=ro", "OPTIONS": {"timeout": 20}}
    if timeouts := entry["OPTIONS"].get("options"):  # A pooler takes no options.
        entry["OPTIONS"]["options"] = f"{timeouts} -c default_transaction_read_only=on"
    return entry


def database(environment: Environment, url: SecretStr | None) -> dict[str, Any]:
    """The entry of one database; SQLite's file where there is no URL."""
    if url is None:
        entry: dict[str, Any] = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": BASE_DIR / "chatstore.sqlite3",
        }
    else:
        entry = parse_database_url(url.get_secret_value())
    if entry["ENGINE"].endswith("sqlite3"):
        return entry | {"OPTIONS": SQLITE_OPTIONS, "CONN_MAX_AGE": 600}
    return entry | postgresql(environment, entry.get("OPTIONS", {}))


# Measured in design.md section 5: with these, 16 writers never see "database is locked".
SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
}


# A connection that is never made ends after two seconds. Where the network has swallowed one, what was sent is
# given up after five, and one that waits or is idle after some fifteen. On a Unix socket they count for nothing.
TCP_OPTIONS = {
    "connect_timeout": 2,
    "tcp_user_timeout": 5000,  # Milliseconds.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}


def postgresql(environment: Environment, options: dict[str, Any]) -> dict[str, Any]:
    """The backend, the pool and timeouts, merged into what DATABASE_URL already asks for."""
    through_pooler = environment.db_pooler == "transaction"
    merged = options | {
        "pool": {
            "min_size": environment.db_pool_min,
            "max_size": environment.db_pool_max,
            "timeout": environment.db_pool_timeout,
            "max_lifetime": environment.db_pool_max_lifetime,
            # By itself the pool tries again after 1, 2, 4, 8 ... seconds, for five minutes: requests would go on
            # failing once PostgreSQL is back. Having given up, it tries again for the next request.
            "reconnect_timeout": 1,
        },
        "prepare_threshold": None,  # What is to be prepared, the backend knows.
    }
    for name, value in TCP_OPTIONS.items():
        merged.setdefault(name, value)
    merged.setdefault("application_name", environment.service_name)
    if not through_pooler:
        timeouts = (
            f"-c statement_timeout={int(environment.db_statement_timeout * 1000)}"
            f" -c lock_timeout={int(environment.db_lock_timeout * 1000)}"
            " -c jit=off"  # Compiling takes longer than anything that is asked here.
        )
        merged["options"] = f"{options.get('options', '')} {timeouts}".strip()
    return {
        "ENGINE": "chatstore.postgresql",
        "OPTIONS": merged,
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False,  # The backend has its own.
        "DISABLE_SERVER_SIDE_CURSORS": through_pooler,
    }
