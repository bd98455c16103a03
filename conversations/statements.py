"""The SQL that the ORM has no words for: what counts up and appends, what inserts or leaves what is there.

Django 5.2's ORM has no `UPDATE ... RETURNING`, no `WITH` that writes and no way to read what a conflict left out.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.models import CharField, Field, Model, TextField

from chatstore.compiled import fetched
from conversations.models import Message, Session

TEXT = (CharField, TextField)


class Counted(NamedTuple):
    """A session's counters after an append."""

    last_position: int
    version: int


class Appended(NamedTuple):
    """The row of an append, and what the session's counters gave it."""

    id: int
    position: int
    version: int


def quoted(name: str | None) -> str:
    return connection.ops.quote_name(str(name))


def columns(model: type[Model]) -> dict[str, str]:
    """A model's columns, quoted, by field."""
    return {field.name: quoted(field.column) for field in written(model)} | {"id": quoted("id")}


@cache
def written(model: type[Model]) -> list[Field[Any, Any]]:
    """The fields that an INSERT gives: all but the key."""
    return [field for field in model._meta.concrete_fields if not field.primary_key]


def prepared(fields: list[Field[Any, Any]], row: Model) -> list[Any]:
    """A row's values as the driver takes them. Text is as it goes, and so is nothing."""
    values, backend = vars(row), connections[DEFAULT_DB_ALIAS]
    return [
        value if value is None or isinstance(field, TEXT) else field.get_db_prep_save(value, backend)
        for field in fields
        for value in (values[field.attname],)
    ]


# The lock and the counters of an append


def count_up(session_id: int, count: int, tokens: int, now: datetime) -> Counted | None:
    """Lock the live session and count `count` messages of `tokens` in all; None where there is none."""
    rows = fetched(count_up_sql(connection.vendor), counters(session_id, count, tokens, now))
    return Counted(*rows[0]) if rows else None


def counters(session_id: int, count: int, tokens: int, now: datetime) -> list[Any]:
    """The parameters of `count_up_sql`."""
    big, moment = connection.ops.adapt_integerfield_value, connection.ops.adapt_datetimefield_value(now)
    added = [big(number, "BigIntegerField") for number in (count, count, tokens)]
    return [*added, moment, moment, big(session_id, "BigIntegerField")]


@cache
def count_up_sql(vendor: str, condition: str = "") -> str:
    name = columns(Session)
    later = "GREATEST" if vendor == "postgresql" else "MAX"
    return (
        f"UPDATE {quoted(Session._meta.db_table)} SET"
        f" {name['last_position']} = {name['last_position']} + %s,"
        f" {name['message_count']} = {name['message_count']} + %s,"
        f" {name['tokens']} = {name['tokens']} + %s,"
        f" {name['version']} = {name['version']} + 1,"
        f" {name['last_activity']} = {later}({name['last_activity']}, %s),"
        f" {name['updated_at']} = {later}({name['updated_at']}, %s)"
        f" WHERE {name['id']} = %s AND {name['deleted_at']} IS NULL{condition}"
        f" RETURNING {name['last_position']}, {name['version']}"
    )


# An append of one message, on PostgreSQL


GIVEN_BY_SESSION = ("position", "version")


def append_one(message: Message) -> Appended | None:
    """Lock the live session, count up and insert, in one statement. None where the session is not live, or where
    the message's key has made a row before. IntegrityError where that happens in this very moment."""
    parameters = counters(message.session_id, 1, message.tokens, message.created_at)
    if message.idempotency_key:
        parameters += [parameters[-1], message.idempotency_key]
    parameters += prepared(given_by_message(), message)
    rows = fetched(append_one_sql(has_key=bool(message.idempotency_key)), parameters)
    return Appended(*rows[0]) if rows else None


@cache
def given_by_message() -> list[Field[Any, Any]]:
    """All but what the session's counters give."""
    return [field for field in written(Message) if field.name not in GIVEN_BY_SESSION]


def type_of(field: Field[Any, Any]) -> str:
    """Without a length, which a CAST cuts to: a column refuses what is too long."""
    return str(field.db_type(connection)).partition("(")[0]


@cache
def append_one_sql(*, has_key: bool) -> str:
    name, table, fields = columns(Message), quoted(Message._meta.db_table), given_by_message()
    by_key = f"{name['session']} = %s AND {name['idempotency_key']} = %s"
    condition = f" AND NOT EXISTS (SELECT 1 FROM {table} WHERE {by_key})" if has_key else ""
    given = ", ".join(f"CAST(%s AS {type_of(field)})" for field in fields)
    counted = ", ".join(quoted(counter) for counter in Counted._fields)
    into = ", ".join(name[field] for field in (*(field.name for field in fields), *GIVEN_BY_SESSION))
    return (
        f"WITH counted AS ({count_up_sql(connection.vendor, condition)}) INSERT INTO {table} ({into})"
        f" SELECT {given}, {counted} FROM counted"
        f" RETURNING {', '.join(name[returned] for returned in Appended._fields)}"
    )


# A session


def insert_session(session: Session) -> bool:
    """Insert the row, which gets its id; False where its owner's key has made one before."""
    fields = written(Session)
    rows = fetched(insert_session_sql(connection.vendor), prepared(fields, session))
    if rows:
        session.pk = rows[0][0]
        session._state.adding = False
    return bool(rows)


@cache
def insert_session_sql(vendor: str) -> str:
    name = columns(Session)
    fields = written(Session)
    key = f"({name['owner']}, {name['idempotency_key']}) WHERE {name['idempotency_key']} IS NOT NULL"
    return (
        f"INSERT INTO {quoted(Session._meta.db_table)} ({', '.join(name[field.name] for field in fields)})"
        f" VALUES ({', '.join(['%s'] * len(fields))}) ON CONFLICT {key} DO NOTHING RETURNING {name['id']}"
    )
