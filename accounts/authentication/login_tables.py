"""better-auth's tables, read and never written, through the least of models.

They are not ours: a registry of their own keeps them out of migrations and the admin (as Django's own
`MigrationRecorder` does). What better-auth calls a session is a Login here.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from django.apps.registry import Apps
from django.db import connections, models
from django.db.models.sql.compiler import SQLCompiler

from chatstore.environment import Environment


class Tables(NamedTuple):
    """Where better-auth's rows are: the database's alias, the model of its sessions, and the optional columns of
    its users that the table has (the ban's come with a plugin)."""

    alias: str
    logins: type[models.Model]
    user_fields: tuple[str, ...]

    def find(self, **where: Any) -> list[dict[str, Any]]:
        """The logins for which `where` holds, each with its user's `user_fields`, but for those that have no user;
        one query."""
        columns = ["id", "user_id", "expires_at", *(f"user__{name}" for name in self.user_fields)]
        return list(self.logins._default_manager.using(self.alias).filter(**where).values(*columns))


# Our names of the columns, and better-auth's.
SESSION_FIELDS = {"id": "id", "token": "token", "user_id": "userId", "expires_at": "expiresAt"}
USER_FIELDS = {
    "name": "name",
    "email": "email",
    "email_verified": "emailVerified",
    "banned": "banned",
    "ban_expires": "banExpires",
}
PLUGINS_FIELDS = {"banned", "ban_expires"}


@cache
def tables(environment: Environment) -> Tables:
    """The tables as the settings name them. DatabaseError where they cannot be read as they are named."""
    alias = "better_auth" if environment.better_auth_database_url else "default"
    users = table_of(environment, environment.better_auth_user_table)
    there = columns_of(alias, users)
    renamed: dict[str, str] = dict(environment.better_auth_user_fields)
    columns = {ours: renamed.get(theirs, theirs) for ours, theirs in USER_FIELDS.items()}
    kept = {ours: column for ours, column in columns.items() if column in there or ours not in PLUGINS_FIELDS}
    found = Tables(alias, login_model(environment, users, kept), tuple(kept))
    found.find(token="")  # Raises where a column is missing.
    return found


def table_of(environment: Environment, name: str) -> str:
    """A name for `db_table`. Django takes one in quotes as it is, which is how it can name a schema."""
    schema = environment.better_auth_schema.replace('"', '""')
    quoted = name.replace('"', '""')
    return f'"{schema}"."{quoted}"' if schema else name


def columns_of(alias: str, table: str) -> set[str]:
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)} WHERE 1 = 0")  # noqa: S608
        return {column[0] for column in cursor.description}


class Untouched(models.TextField):
    """Read as the database has it: ids may be text, integers or UUIDs, times may lack a zone. The + keeps
    Python's SQLite driver from parsing what is declared as `date`, as better-auth declares its times there."""

    def select_format(self, compiler: SQLCompiler, sql: str, params: Any) -> tuple[str, Any]:
        return (f"+{sql}" if compiler.connection.vendor == "sqlite" else sql), params


def login_model(environment: Environment, users: str, user_columns: dict[str, str]) -> type[models.Model]:
    registry = Apps()

    def model(name: str, table: str, fields: dict[str, models.Field[Any, Any]]) -> type[models.Model]:
        meta = type(
            "Meta", (), {"apps": registry, "app_label": "better_auth", "managed": False, "db_table": table}
        )
        return type(name, (models.Model,), {"__module__": __name__, "Meta": meta, **fields})

    user_key = dict(environment.better_auth_user_fields).get("id", "id")
    user = model(
        "LoginUser",
        users,
        {
            "id": Untouched(primary_key=True, db_column=user_key),
            **{ours: Untouched(db_column=column) for ours, column in user_columns.items()},
        },
    )
    renamed: dict[str, str] = dict(environment.better_auth_session_fields)
    columns = {ours: renamed.get(theirs, theirs) for ours, theirs in SESSION_FIELDS.items()}
    return model(
        "Login",
        table_of(environment, environment.better_auth_session_table),
        {
            "id": Untouched(primary_key=True, db_column=columns["id"]),
            "token": Untouched(db_column=columns["token"]),
            "expires_at": Untouched(db_column=columns["expires_at"]),
            "user": models.ForeignKey(user, models.DO_NOTHING, db_column=columns["user_id"], related_name="+"),
        },
    )
