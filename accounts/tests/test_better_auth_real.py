"""Sessions of the real better-auth, which runs in node and makes its own tables (contract 6.4).

Its rules without node are in test_better_auth.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from django.db import connection
from pydantic import SecretStr
from pytest_django import Settings

from accounts.authentication.login_tables import tables
from accounts.models import Identity, User
from accounts.tests.better_auth.real import IS_INSTALLED, SCHEMA, URL, BetterAuth, Node, Signed, running
from accounts.tests.better_auth.tables import SECRET, sql
from accounts.tests.issuers import issuing
from chatstore.environment import OidcIssuer
from chatstore.tests.serving import fetch, own_database_url, serving
from conftest import Caller

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

if not IS_INSTALLED:
    pytest.skip(
        "THE REAL BETTER-AUTH WAS NOT TRIED: its npm package is not installed. "
        "`make test` installs it where there are node 20.19, npm and a way to the registry.",
        allow_module_level=True,
    )

NEW_SECRET = "the-secret-that-came-after-it-in-tests-Zk5u"
TABLES = {"account", "jwks", "session", "user", "verification"}

Changes = Callable[..., None]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with running() as do:
        yield do


@pytest.fixture
def clean(node: Node) -> Iterator[None]:
    """Nothing of better-auth, before and after."""
    tables.cache_clear()
    sql(f"CREATE SCHEMA {SCHEMA}")
    yield
    node({"end": True})
    sql(f"DROP SCHEMA {SCHEMA} CASCADE")
    tables.cache_clear()


@pytest.fixture
def ours(settings: Settings, clean: None) -> Changes:
    """Our settings: better-auth's tables as it makes them, with changes."""

    def change(**changes: Any) -> None:
        named = {"better_auth": True, "better_auth_schema": SCHEMA, "better_auth_session_table": "session"}
        secret = {"better_auth_secret": SecretStr(SECRET)}
        settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={**named, **secret, **changes})

    change()
    return change


@pytest.fixture
def better_auth(node: Node, ours: Changes) -> BetterAuth:
    return BetterAuth(node).migrated()


@pytest.fixture
def ann(better_auth: BetterAuth) -> Signed:
    return better_auth.sign_up()


def status(token: str) -> int:
    code: int = Caller(None, token).get("/api/sessions/").status_code
    return code


def everything() -> dict[str, list[tuple[Any, ...]]]:
    """Every row of better-auth's, with the transaction that wrote it."""
    found = [name for (name,) in sql("SELECT tablename FROM pg_tables WHERE schemaname = %s", SCHEMA)]
    return {name: sql(f'SELECT xmin::text, xmax::text, t::text FROM {SCHEMA}."{name}" t') for name in found}


@pytest.mark.parametrize("form", ["raw", "signed", "encoded"])
def test_it_works(ann: Signed, form: str) -> None:
    token: str = getattr(ann, form)
    assert status(token) == 200
    assert Identity.objects.values_list("issuer", "subject").get() == ("better-auth", ann.user)


@pytest.mark.parametrize("ids", [False, "serial", "uuid"], ids=["text", "serial", "uuid"])
def test_a_jwt_and_every_form_of_a_session_are_one_person(
    node: Node, ours: Changes, monkeypatch: pytest.MonkeyPatch, ids: str | bool
) -> None:
    how: dict[str, Any] = {"advanced": {"database": {"generateId": ids}}} if ids else {}
    better_auth = BetterAuth(node, **how).migrated()
    ann = better_auth.sign_up()
    token = better_auth.call("GET", "/token", token=ann.raw)["body"]["token"]
    keys = better_auth.call("GET", "/jwks")["body"]
    with issuing() as server:
        monkeypatch.setattr(server, "jwks", lambda: keys)
        issuer = OidcIssuer(issuer=URL, audience=URL, jwks_url=server.jwks_url, algorithms=("EdDSA",))
        ours(better_auth_issuer=URL, oidc_issuers=(issuer,))
        assert [status(text) for text in (token, ann.raw, ann.signed, ann.encoded)] == [200] * 4
    assert User.objects.count() == 1
    assert Identity.objects.values_list("issuer", "subject").get() == (URL, ann.user)


def test_the_name_is_taken_over_and_the_unverified_email_is_not(ann: Signed) -> None:
    assert status(ann.raw) == 200
    assert User.objects.values_list("name", "email").get() == ("Ann", "")


def test_two_sessions_of_one_person_are_one_user(better_auth: BetterAuth, ann: Signed) -> None:
    again = better_auth.sign("in")
    assert again.raw != ann.raw
    assert (status(ann.raw), status(again.signed)) == (200, 200)
    assert User.objects.count() == 1


def test_two_people_are_two_users(better_auth: BetterAuth, ann: Signed) -> None:
    assert (status(ann.raw), status(better_auth.sign_up("Ben").raw)) == (200, 200)
    assert User.objects.count() == 2


@pytest.mark.parametrize("form", ["raw", "signed", "encoded"])
def test_a_sign_out_counts_from_the_next_request_on(better_auth: BetterAuth, ann: Signed, form: str) -> None:
    token: str = getattr(ann, form)
    assert status(token) == 200
    better_auth.call("POST", "/sign-out", {}, token=ann.raw)
    assert status(token) == 401


CHANGED: dict[str, Callable[[str], str]] = {
    "another signature": lambda signed: signed[:-3] + ("B" if signed[-3] == "A" else "A") + signed[-2:],
    "another token": lambda signed: ("B" if signed[0] == "A" else "A") + signed[1:],
    "without padding": lambda signed: signed.rstrip("="),
    "without padding, encoded": lambda signed: quote(signed.rstrip("="), safe=""),
    "an empty signature": lambda signed: signed.partition(".")[0] + ".",
    "an unknown token": lambda signed: signed.partition(".")[0][::-1],
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_what_better_auth_does_not_take_is_refused(
    better_auth: BetterAuth, ann: Signed, change: Callable[[str], str]
) -> None:
    assert better_auth.takes(ann.signed)
    assert not better_auth.takes(change(ann.signed))
    assert (status(ann.signed), status(change(ann.signed))) == (200, 401)


def test_another_secret_opens_nothing_that_is_signed(ours: Changes, ann: Signed) -> None:
    assert status(ann.signed) == 200
    ours(better_auth_secret=SecretStr(NEW_SECRET))
    assert (status(ann.signed), status(ann.encoded), status(ann.raw)) == (401, 401, 200)


def test_an_expired_session_is_refused_and_left_alone(ann: Signed) -> None:
    assert status(ann.signed) == 200
    sql(f"""UPDATE {SCHEMA}.session SET "expiresAt" = now() - interval '1 second'""")
    before = everything()
    assert len(before["session"]) == 1
    assert (status(ann.signed), status(ann.raw)) == (401, 401)
    assert everything() == before


def test_a_session_that_better_auth_would_prolong_is_left_alone(better_auth: BetterAuth, ann: Signed) -> None:
    sql(f"""UPDATE {SCHEMA}.session SET "expiresAt" = now() + interval '1 day'""")
    before = everything()
    assert set(before) == TABLES
    assert (status(ann.signed), status(ann.raw)) == (200, 200)
    assert everything() == before
    assert better_auth.takes(ann.raw)
    assert everything() != before


class Banned(NamedTuple):
    better_auth: BetterAuth
    ann: Signed
    root: Signed

    def ban(self, **how: Any) -> None:
        """By the admin plugin, which also ends their sessions: here they survive, so that only the ban counts."""
        sql(f"CREATE TABLE {SCHEMA}.kept AS TABLE {SCHEMA}.session")
        self.better_auth.call("POST", "/admin/ban-user", {"userId": self.ann.user, **how}, token=self.root.raw)
        sql(f"INSERT INTO {SCHEMA}.session SELECT * FROM {SCHEMA}.kept ON CONFLICT DO NOTHING")


@pytest.fixture
def bannable(node: Node, ours: Changes) -> Banned:
    better_auth = BetterAuth(node, plugins=("admin", "bearer")).migrated()
    found = Banned(better_auth, better_auth.sign_up(), better_auth.sign_up("Root"))
    sql(f"""UPDATE {SCHEMA}."user" SET role = 'admin' WHERE id = %s""", found.root.user)
    assert status(found.ann.raw) == 200
    return found


@pytest.mark.parametrize("how", [{}, {"banExpiresIn": 60}], ids=["for good", "for a minute"])
def test_a_ban_counts_from_the_next_request_on(bannable: Banned, how: dict[str, int]) -> None:
    bannable.ban(**how)
    assert sql(f"SELECT count(*) FROM {SCHEMA}.session WHERE token = %s", bannable.ann.raw) == [(1,)]
    assert (status(bannable.ann.raw), status(bannable.ann.signed)) == (401, 401)
    assert status(bannable.root.raw) == 200


def test_a_ban_that_has_run_out_counts_no_longer(bannable: Banned) -> None:
    bannable.ban(banExpiresIn=60)
    assert status(bannable.ann.raw) == 401
    sql(f"""UPDATE {SCHEMA}."user" SET "banExpires" = "banExpires" - interval '61 seconds'""")
    assert sql(f"""SELECT banned FROM {SCHEMA}."user" WHERE id = %s""", bannable.ann.user) == [(True,)]
    assert status(bannable.ann.raw) == 200


def test_a_ban_that_is_lifted_counts_no_longer(bannable: Banned) -> None:
    bannable.ban()
    bannable.better_auth.call("POST", "/admin/unban-user", {"userId": bannable.ann.user}, token=bannable.root.raw)
    assert status(bannable.ann.raw) == 200


# Other names, places and secrets

SESSION_FIELDS = {"token": "session_token", "userId": "user_id", "expiresAt": "expires_at"}
USER_FIELDS = {"name": "full_name", "email": "mail", "emailVerified": "email_verified"}
RENAMED: dict[str, Any] = {
    "session": {"modelName": "user_sessions", "fields": SESSION_FIELDS},
    "user": {"modelName": "users", "fields": USER_FIELDS},
}


def test_every_name_may_be_another(node: Node, ours: Changes) -> None:
    ann = BetterAuth(node, **RENAMED).migrated().sign_up()
    assert {"user_sessions", "users"} < set(everything())
    ours(
        better_auth_session_table="user_sessions",
        better_auth_session_fields=tuple(SESSION_FIELDS.items()),
        better_auth_user_table="users",
        better_auth_user_fields=tuple(USER_FIELDS.items()),
    )
    assert (status(ann.raw), status(ann.signed)) == (200, 200)
    assert User.objects.values_list("name", "email").get() == ("Ann", "")


@pytest.fixture
def in_the_search_path(clean: None) -> Iterator[None]:
    before = public_tables()
    yield
    for name in public_tables() - before:
        sql(f'DROP TABLE public."{name}" CASCADE')


def public_tables() -> set[str]:
    return {name for (name,) in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def test_without_a_schema_the_search_path_counts(node: Node, ours: Changes, in_the_search_path: None) -> None:
    ann = BetterAuth(node, schema="").migrated().sign_up()
    assert public_tables() > TABLES
    assert status(ann.raw) == 503
    ours(better_auth_schema="")
    assert (status(ann.raw), status(ann.signed)) == (200, 200)
    node({"end": True})


def test_of_versioned_secrets_the_first_counts(node: Node, ours: Changes, better_auth: BetterAuth) -> None:
    secrets = f"2:{NEW_SECRET},1:{SECRET}"
    rotated = BetterAuth(node, environment={"BETTER_AUTH_SECRETS": secrets})
    old, new = better_auth.sign_up(), rotated.sign_up("Ben")
    ours(better_auth_secret=None, better_auth_secrets=SecretStr(secrets))
    assert (rotated.takes(new.signed), rotated.takes(old.signed)) == (True, False)
    assert (status(new.signed), status(new.encoded)) == (200, 200)
    assert (status(old.signed), status(old.raw)) == (401, 200)


# Through a real server, with its tables in another database

ELSEWHERE = "better_auth_elsewhere"


@pytest.fixture
def elsewhere(node: Node, clean: None) -> Iterator[BetterAuth]:
    sql(f"CREATE DATABASE {ELSEWHERE}")
    yield BetterAuth(node, schema="", database=ELSEWHERE, **RENAMED).migrated()
    node({"end": True})
    sql(f"DROP DATABASE {ELSEWHERE} WITH (FORCE)")


def test_a_server_reads_them_where_its_environment_says(elsewhere: BetterAuth) -> None:
    ann = elsewhere.sign_up()
    place = own_database_url().replace(f"/{connection.settings_dict['NAME']}?", f"/{ELSEWHERE}?")
    assert place != own_database_url()
    environment = {
        "BETTER_AUTH": "true",
        "BETTER_AUTH_DATABASE_URL": place,
        "BETTER_AUTH_SESSION_FIELDS": ",".join(f"{ours}={column}" for ours, column in SESSION_FIELDS.items()),
        "BETTER_AUTH_USER_TABLE": "users",
        "BETTER_AUTH_USER_FIELDS": json.dumps(USER_FIELDS),
        "BETTER_AUTH_SECRET": SECRET,
    }
    with serving(own_database_url(), **environment) as port:

        def served(token: str) -> int:
            return fetch(port, "GET", "/api/sessions/", Authorization=f"Bearer {token}")[0].status

        assert [served(token) for token in (ann.raw, ann.signed, ann.encoded)] == [200] * 3
        assert served(ann.signed.rstrip("=")) == 401
        elsewhere.call("POST", "/sign-out", {}, token=ann.raw)
        assert (served(ann.raw), served(ann.signed)) == (401, 401)
    assert Identity.objects.values_list("issuer", "subject").get() == ("better-auth", ann.user)
