"""Sessions of better-auth (contract 6.4), in tables like its own. Tokens that it made itself are in
test_better_auth_real.py."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pydantic import SecretStr
from pytest_django import Settings

from accounts.authentication import better_auth
from accounts.authentication.login_tables import tables
from accounts.models import Identity, User
from accounts.tests.better_auth.tables import (
    HOUR,
    OLD_SECRET,
    SECRET,
    SIGNATURE,
    SIGNED,
    TOKEN,
    WITH_ZONE,
    add_login,
    add_user,
    from_now,
    make_tables,
    signature,
    sql,
)
from chatstore.tests.serving import fetch, free_port, own_database_url, serving
from conftest import Caller
from conversations.models import Session

Counted = Callable[[int], AbstractContextManager[Any]]
Changes = Callable[..., None]


@pytest.fixture(autouse=True)
def none_seen() -> Iterator[None]:
    tables.cache_clear()
    yield
    tables.cache_clear()


@pytest.fixture(autouse=True)
def ours(settings: Settings) -> Changes:
    """Our settings: better-auth's tables as it calls them, with changes."""

    def change(**changes: Any) -> None:
        named = {"better_auth": True, "better_auth_session_table": "session"}
        secret = {"better_auth_secret": SecretStr(SECRET)}
        settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={**named, **secret, **changes})

    change()
    return change


@pytest.fixture
def no_login(db: None) -> None:
    make_tables()


@pytest.fixture
def login(no_login: None) -> None:
    """Ann's, for an hour."""
    add_user()
    add_login()


def answer(token: str = TOKEN) -> Any:
    return Caller(None, token).get("/api/sessions/")


def status(token: str = TOKEN) -> int:
    code: int = answer(token).status_code
    return code


FORMS = {
    "raw": TOKEN,
    "signed": SIGNED,
    "encoded": quote(SIGNED, safe=""),
    "all of it": SIGNED.replace(".", "%2e"),
}


@pytest.mark.parametrize("token", FORMS.values(), ids=FORMS)
def test_it_works(login: None, token: str) -> None:
    assert status(token) == 200
    assert Identity.objects.values_list("issuer", "subject").get() == ("better-auth", "ann")


def test_every_form_is_the_same_user(login: None) -> None:
    assert [status(token) for token in FORMS.values()] == [200] * len(FORMS)
    assert User.objects.count() == 1


def test_what_one_makes_is_ones_own(login: None) -> None:
    assert Caller(None, TOKEN).post("/api/sessions/", {"title": "Mine"}).status_code == 201
    assert Session.objects.get().owner == User.objects.get()


def test_the_issuer_is_a_setting(login: None, ours: Changes) -> None:
    ours(better_auth_issuer="https://login.example.com")
    assert status() == 200
    assert Identity.objects.get().issuer == "https://login.example.com"


# Refusals

REFUSED = {
    "unknown": TOKEN[::-1],
    "in another case": TOKEN.swapcase(),
    "all and more": TOKEN + "a",
    "a pattern": "%" * 32,
    "too short": TOKEN[:15],
    "too long": "a" * 129,
    "unknown and signed": f"{TOKEN[::-1]}.{signature(TOKEN[::-1])}",
    "another's signature": f"{TOKEN}.{signature(TOKEN[::-1])}",
    "another secret's signature": f"{TOKEN}.{signature(secret=OLD_SECRET)}",
    "no signature": f"{TOKEN}.",
    "half a signature": f"{TOKEN}.{SIGNATURE[:20]}",
    "no padding": SIGNED.rstrip("="),
    "no padding, encoded": quote(SIGNED.rstrip("="), safe=""),
    "another alphabet": f"{TOKEN}.{base64.urlsafe_b64encode(base64.b64decode(SIGNATURE)).decode().rstrip('=')}",
    "hexadecimal": f"{TOKEN}.{base64.b64decode(SIGNATURE).hex()}",
    "encoded twice": quote(quote(SIGNED, safe=""), safe=""),
    "signed twice": f"{SIGNED}.{SIGNATURE}",
    "a NUL": f"{TOKEN}%00.{SIGNATURE}",
}


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused(login: None, token: str) -> None:
    refused = answer(token)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert refused.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert not User.objects.exists()


def test_where_a_signature_is_required_the_raw_token_is_refused(login: None, ours: Changes) -> None:
    ours(better_auth_require_signature=True)
    assert (status(TOKEN), status(SIGNED), status(quote(SIGNED, safe=""))) == (401, 200, 200)


def test_without_a_secret_what_is_signed_is_refused(login: None, ours: Changes) -> None:
    ours(better_auth_secret=None)
    assert (status(TOKEN), status(SIGNED), status(quote(SIGNED, safe=""))) == (200, 401, 401)


def test_an_empty_secret_is_none(login: None, ours: Changes) -> None:
    ours(better_auth_secret=SecretStr(""))
    assert status(f"{TOKEN}.{signature(secret='')}") == 401


def test_of_versioned_secrets_the_first_counts(login: None, ours: Changes) -> None:
    ours(better_auth_secrets=SecretStr(f"2:{SECRET},1:{OLD_SECRET}"), better_auth_secret=SecretStr(OLD_SECRET))
    assert (status(SIGNED), status(f"{TOKEN}.{signature(secret=OLD_SECRET)}")) == (200, 401)


def test_switched_off_it_opens_nothing(login: None, ours: Changes) -> None:
    assert (status(TOKEN), status(SIGNED)) == (200, 200)
    ours(better_auth=False)
    assert (status(TOKEN), status(SIGNED)) == (401, 401)


def test_a_session_that_is_gone_opens_nothing_from_the_next_request_on(login: None) -> None:
    assert status() == 200
    sql('DELETE FROM "session"')
    assert status() == 401


def test_a_session_without_its_user_opens_nothing(login: None) -> None:
    assert status() == 200
    sql('DELETE FROM "user"')
    assert status() == 401


def test_who_is_deactivated_here_stays_out(login: None) -> None:
    assert status() == 200
    User.objects.update(is_active=False)
    assert status() == 401


@pytest.mark.parametrize(("length", "code"), [(255, 200), (256, 401)])
def test_a_user_id_has_at_most_255_characters(no_login: None, length: int, code: int) -> None:
    add_user(id="a" * length)
    add_login(userId="a" * length)
    assert status() == code
    assert Identity.objects.count() == (code == 200)


# Bans


@pytest.mark.parametrize(
    ("banned", "ban_expires", "code"),
    [
        (None, None, 200),
        (False, None, 200),
        (False, HOUR, 200),
        (True, None, 401),
        (True, HOUR, 401),
        (True, -HOUR, 200),
        (None, -HOUR, 200),
    ],
    ids=["never", "lifted", "lifted early", "for good", "for an hour", "until an hour ago", "nonsense"],
)
def test_who_is_banned_stays_out(
    no_login: None, banned: bool | None, ban_expires: timedelta | None, code: int
) -> None:
    add_user(banned=banned, banExpires=None if ban_expires is None else from_now(ban_expires))
    add_login()
    assert status() == code


def test_a_ban_counts_from_the_next_request_on(login: None) -> None:
    assert status() == 200
    sql('UPDATE "user" SET banned = %s', True)
    assert status() == 401


@pytest.mark.parametrize("until", ["", "soon", "0", "tomorrow at 5"])
def test_a_ban_whose_end_cannot_be_read_has_none(db: None, until: str) -> None:
    make_tables(user_extra='banned boolean, "banExpires" text')
    add_user(banned=True, banExpires=until)
    add_login()
    assert status() == 401


@pytest.mark.parametrize(("extra", "code"), [("", 200), ("banned boolean DEFAULT TRUE", 401)], ids=["none", "one"])
def test_the_columns_of_bans_may_be_absent(db: None, extra: str, code: int) -> None:
    make_tables(user_extra=extra)
    add_user()
    add_login()
    assert status() == code


# Times

TIMES: dict[str, tuple[str, Callable[[datetime], Any]]] = {
    "a time with a zone": (WITH_ZONE, datetime.isoformat),
    "a time without a zone": ("timestamp", lambda at: at.replace(tzinfo=None).isoformat(" ")),
    "text": ("text", lambda at: at.isoformat(timespec="milliseconds").replace("+00:00", "Z")),
    "text with another zone": ("text", lambda at: at.astimezone(timezone(timedelta(hours=9))).isoformat()),
    "text without a zone": ("text", lambda at: at.replace(tzinfo=None).isoformat(" ")),
    "milliseconds": ("bigint", lambda at: int(at.timestamp() * 1000)),
    "milliseconds with a fraction": ("double precision", lambda at: at.timestamp() * 1000),
    "seconds": ("bigint", lambda at: int(at.timestamp())),
}


@pytest.mark.parametrize(("span", "code"), [(HOUR, 200), (-HOUR, 401)], ids=["to come", "past"])
@pytest.mark.parametrize(("kind", "written"), TIMES.values(), ids=TIMES)
def test_a_session_lasts_until_it_expires(
    db: None, kind: str, written: Callable[[datetime], Any], span: timedelta, code: int
) -> None:
    make_tables(times=kind)
    add_user()
    add_login(expiresAt=written(datetime.now(UTC) + span))
    assert status() == code


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's columns are of any type")
@pytest.mark.parametrize("name", ["text", "milliseconds"])
@pytest.mark.parametrize("kind", ["date", "timestamp"])
@pytest.mark.parametrize(("span", "code"), [(HOUR, 200), (-HOUR, 401)], ids=["to come", "past"])
def test_sqlite_may_call_them_what_it_likes(db: None, kind: str, name: str, span: timedelta, code: int) -> None:
    """better-auth declares them `date` there, which Python's driver would cut off after the day."""
    make_tables(times=kind)
    add_user()
    add_login(expiresAt=TIMES[name][1](datetime.now(UTC) + span))
    assert status() == code


@pytest.mark.parametrize("written", ["", "soon", "2999-13-01T00:00:00Z", "99999-01-01T00:00:00Z"])
def test_a_time_that_cannot_be_read_is_past(db: None, written: str) -> None:
    make_tables(times="text")
    add_user()
    add_login(expiresAt=written)
    assert status() == 401


@pytest.mark.parametrize("written", [0, -1, 2**62])
def test_a_number_that_is_no_time_is_past(db: None, written: int) -> None:
    make_tables(times="bigint")
    add_user()
    add_login(expiresAt=written)
    assert status() == 401


# Who it is

UUID = "0192f3c4-5b6a-7c8d-9e0f-a1b2c3d4e5f6"


@pytest.mark.parametrize(
    ("kind", "user", "number"), [("text", "ann", "l1"), ("integer", 7, 12), ("uuid", UUID, UUID)]
)
def test_an_id_is_kept_as_text(db: None, kind: str, user: Any, number: Any) -> None:
    make_tables(ids=kind)
    add_user(id=user)
    add_login(id=number, userId=user)
    assert (status(TOKEN), status(SIGNED)) == (200, 200)
    assert Identity.objects.get().subject == str(user)
    person, credential = better_auth.person_again(str(number)) or pytest.fail("nobody")
    assert (person, credential.ref) == (User.objects.get(), f"better_auth:{number}")


@pytest.mark.parametrize(("verified", "email"), [(True, "ann@example.com"), (False, ""), (None, "")])
def test_only_a_verified_email_is_taken_over(no_login: None, verified: bool | None, email: str) -> None:
    add_user(emailVerified=verified)
    add_login()
    assert status() == 200
    assert User.objects.values_list("name", "email").get() == ("Ann", email)


def test_the_same_email_joins_nobody(login: None, alice: Caller) -> None:
    sql('UPDATE "user" SET email = %s', alice.user.email)
    assert status() == 200
    assert User.objects.filter(email=alice.user.email).count() == 2


def test_what_is_no_profile_is_left_out(no_login: None) -> None:
    add_user(name="a" * 256, email="nobody")
    add_login()
    assert status() == 200
    assert User.objects.values_list("name", "email").get() == ("", "")


# Other names and places

SESSION_FIELDS = {"id": "key", "token": "session_token", "userId": "user_id", "expiresAt": "expires_at"}
USER_FIELDS = {
    "id": "key",
    "name": "full_name",
    "email": "mail",
    "emailVerified": "is_verified",
    "banned": "is_banned",
}


def rename(table: str, name: str, fields: Mapping[str, str]) -> None:
    for column, renamed in fields.items():
        sql(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{renamed}"')
    sql(f'ALTER TABLE "{table}" RENAME TO "{name}"')


@pytest.mark.parametrize(("banned", "code"), [(False, 200), (True, 401)])
def test_every_name_may_be_another(no_login: None, ours: Changes, banned: bool, code: int) -> None:
    add_user(banned=banned)
    add_login()
    rename("session", "user_sessions", SESSION_FIELDS)
    rename("user", "App users", USER_FIELDS)
    ours(
        better_auth_session_table="user_sessions",
        better_auth_session_fields=tuple(SESSION_FIELDS.items()),
        better_auth_user_table="App users",
        better_auth_user_fields=tuple(USER_FIELDS.items()),
    )
    assert (status(TOKEN), status(SIGNED)) == (code, code)


@pytest.mark.postgres
@pytest.mark.parametrize("schema", ["logins", "Our logins"])
def test_a_schema_of_postgresql_may_be_named(login: None, ours: Changes, schema: str) -> None:
    sql(f'CREATE SCHEMA "{schema}"')
    sql(f'ALTER TABLE "session" SET SCHEMA "{schema}"')
    sql(f'ALTER TABLE "user" SET SCHEMA "{schema}"')
    ours(better_auth_schema=schema)
    assert (status(TOKEN), status(SIGNED)) == (200, 200)


@pytest.mark.django_db(transaction=True)
def test_they_may_be_in_a_database_of_their_own(tmp_path: Path) -> None:
    """As better-auth makes them on SQLite."""
    place = tmp_path / "logins.sqlite3"
    with closing(sqlite3.connect(place)) as link:
        link.executescript(f"""
            CREATE TABLE "user" ("id" text, "name" text, "email" text, "emailVerified" integer);
            CREATE TABLE "session" ("id" text, "token" text, "userId" text, "expiresAt" date);
            INSERT INTO "user" VALUES ('ann', 'Ann', 'ann@example.com', 1);
            INSERT INTO "session" VALUES ('login', '{TOKEN}', 'ann', '{from_now(HOUR)}');
        """)
    environment = {"BETTER_AUTH_SESSION_TABLE": "session", "BETTER_AUTH_DATABASE_URL": f"sqlite:///{place}"}
    with serving(own_database_url(), BETTER_AUTH="true", BETTER_AUTH_SECRET=SECRET, **environment) as port:
        found, _ = fetch(port, "GET", "/api/sessions/", Authorization=f"Bearer {SIGNED}")
    assert found.status == 200
    assert User.objects.values_list("name", "email").get() == ("Ann", "ann@example.com")


# When the tables cannot be read


def is_unavailable(found: Any) -> bool:
    told = (found.status_code, found.headers["Retry-After"], found.headers["Content-Type"], found.json()["code"])
    return told == (503, "1", "application/problem+json", "service_unavailable")


@pytest.mark.parametrize("token", [TOKEN, SIGNED], ids=["raw", "signed"])
def test_without_its_tables_the_answer_is_503(db: None, token: str) -> None:
    assert is_unavailable(answer(token))


COLUMNS = [
    *(("session", name) for name in ("token", "userId", "expiresAt")),
    *(("user", name) for name in ("name", "email", "emailVerified")),
]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_without_a_column_the_answer_is_503(login: None, table: str, column: str) -> None:
    sql(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO other')
    assert is_unavailable(answer())


@pytest.mark.parametrize("table", ["session", "user"])
@pytest.mark.django_db(transaction=True)
def test_a_table_that_goes_and_comes_back_is_read_again(table: str) -> None:
    make_tables()
    try:
        add_user()
        add_login()
        assert status() == 200
        sql(f'ALTER TABLE "{table}" RENAME TO other')
        assert is_unavailable(answer())
        sql(f'ALTER TABLE other RENAME TO "{table}"')
        assert status() == 200
    finally:
        sql('DROP TABLE IF EXISTS "session"')
        sql('DROP TABLE IF EXISTS "user"')
        sql("DROP TABLE IF EXISTS other")


def test_other_tokens_need_none_of_it(alice: Caller) -> None:
    assert alice.get("/api/sessions/").status_code == 200


UNREACHABLE = {
    "PostgreSQL": lambda _: f"postgresql://nobody:hunter2@127.0.0.1:{free_port()}/none",
    "SQLite": lambda folder: f"sqlite:///{folder}/none/hunter2.sqlite3",
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", UNREACHABLE.values(), ids=UNREACHABLE)
def test_without_its_database_the_answer_is_503(tmp_path: Path, url: Callable[[Path], str]) -> None:
    environment = {"BETTER_AUTH": "true", "BETTER_AUTH_DATABASE_URL": url(tmp_path), "BETTER_AUTH_SECRET": SECRET}
    with serving(own_database_url(), **environment) as port:
        found, body = fetch(port, "GET", "/api/sessions/", Authorization=f"Bearer {SIGNED}")
        assert (found.status, found.headers["Retry-After"]) == (503, "1")
        assert found.headers["Content-Type"] == "application/problem+json"
        assert json.loads(body)["code"] == "service_unavailable"
        assert b"hunter2" not in body
        assert fetch(port, "GET", "/health")[0].status == 200


# What it costs, and what it leaves alone


@pytest.mark.parametrize("token", [TOKEN, SIGNED], ids=["raw", "signed"])
def test_who_it_is_takes_two_queries(login: None, django_assert_num_queries: Counted, token: str) -> None:
    assert status(token) == 200
    with django_assert_num_queries(2 + 1):
        assert status(token) == 200


def test_a_wrong_signature_takes_none(login: None, django_assert_num_queries: Counted) -> None:
    with django_assert_num_queries(0):
        assert status(f"{TOKEN}.{signature(secret=OLD_SECRET)}") == 401


CHANGES = {
    "good": "SELECT 1",
    "expired": """UPDATE "session" SET "expiresAt" = '2020-01-01T00:00:00Z'""",
    "banned": 'UPDATE "user" SET banned = TRUE',
    "ban run out": """UPDATE "user" SET banned = TRUE, "banExpires" = '2020-01-01T00:00:00Z'""",
    "no user": 'DELETE FROM "user"',
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_its_tables_are_only_read(login: None, change: str) -> None:
    sql(change)
    before = sql('SELECT * FROM "session"'), sql('SELECT * FROM "user"')
    with CaptureQueriesContext(connection) as seen:
        assert {status(TOKEN), status(SIGNED)} <= {200, 401}
    theirs = [query["sql"] for query in seen if '"session"' in query["sql"] or '"user"' in query["sql"]]
    assert len(theirs) >= 3
    assert [statement for statement in theirs if not statement.startswith("SELECT")] == []
    assert (sql('SELECT * FROM "session"'), sql('SELECT * FROM "user"')) == before


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's columns are of any type")
@pytest.mark.parametrize("said", ["false", "true", "", 2])
def test_an_email_is_verified_by_true_alone(no_login: None, said: Any) -> None:
    add_user(emailVerified=said)
    add_login()
    assert status() == 200
    assert User.objects.get().email == ""


@pytest.mark.postgres
@pytest.mark.parametrize("until", ["infinity", "20000-01-01", "0044-03-15 BC"])
def test_a_time_that_python_has_not_is_401(no_login: None, until: str) -> None:
    add_user()
    add_login(expiresAt=until)
    assert status() == 401
