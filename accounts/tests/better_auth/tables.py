"""Tables like better-auth's, with Ann and her login, in the tests' database."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection

TOKEN = "k7GnXq0aZbR4tYw9LmPs3VdHe8CjUf2N"
SECRET = "the-secret-of-better-auth-in-tests-mOVbZ5g3"
OLD_SECRET = "the-secret-that-was-before-it-in-tests-Qw8x"
WITH_ZONE = "timestamp with time zone"
BAN = 'banned boolean, "banExpires" timestamp with time zone'
HOUR = timedelta(hours=1)


def signature(token: str = TOKEN, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), token.encode(), "sha256")).decode()


SIGNATURE = signature()
SIGNED = f"{TOKEN}.{SIGNATURE}"


def from_now(span: timedelta) -> str:
    return (datetime.now(UTC) + span).isoformat()


def sql(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def insert(table: str, **values: Any) -> None:
    columns = ", ".join(f'"{name}"' for name in values)
    sql(f'INSERT INTO "{table}" ({columns}) VALUES ({", ".join(["%s"] * len(values))})', *values.values())


def make_tables(ids: str = "text", times: str = WITH_ZONE, user_extra: str = BAN) -> None:
    extra = f", {user_extra}" if user_extra else ""
    sql(f'CREATE TABLE "user" (id {ids} PRIMARY KEY, name text, email text, "emailVerified" boolean{extra})')
    sql(f'CREATE TABLE "session" (id {ids} PRIMARY KEY, token text, "userId" {ids}, "expiresAt" {times})')


ANN = {"id": "ann", "name": "Ann", "email": "ann@example.com", "emailVerified": True}
LOGIN = {"id": "login", "token": TOKEN, "userId": "ann"}


def add_user(**changes: Any) -> None:
    insert("user", **{**ANN, **changes})


def add_login(**changes: Any) -> None:
    insert("session", **{**LOGIN, "expiresAt": from_now(HOUR), **changes})
