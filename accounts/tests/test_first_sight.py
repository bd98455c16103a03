"""A user is made when an access token first shows them, once, whoever else is at it (contract 6)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import LOCAL_ISSUER, Identity, Membership, User, Workspace
from accounts.tests.issuers import Issuer, issuing
from chatstore.environment import OidcIssuer
from chatstore.tests.serving import fetch, own_database_url, serving
from conftest import Caller
from conversations.tests.test_concurrency import at_once

pytestmark = pytest.mark.django_db

EMAIL = "someone@example.com"
# Fewer than the pool has connections: who waits for one of these for too long is rightly told 503.
AT_ONCE = 12
VERIFIED: dict[str, Any] = {"email": EMAIL, "email_verified": True}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture(scope="module")
def another() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture(autouse=True)
def configured(settings: LazySettings, issuer: Issuer, another: Issuer) -> None:
    issuers: tuple[OidcIssuer, ...] = (issuer.configured(), another.configured())
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"oidc_issuers": issuers})


def me(token: str) -> dict[str, Any]:
    answer = Caller(None, token).get("/api/me/")
    assert answer.status_code == 200, answer.content
    shown: dict[str, Any] = answer.json()
    return shown


def made() -> tuple[int, ...]:
    """How many users, identities, workspaces and memberships there are."""
    return tuple(model._default_manager.count() for model in (User, Identity, Workspace, Membership))


def test_it_works(issuer: Issuer) -> None:
    shown = me(issuer.token(**VERIFIED, name="Alice"))
    assert (shown["name"], shown["email"]) == ("Alice", EMAIL)
    assert [(w["role"], w["personal"]) for w in shown["workspaces"]] == [("admin", True)]
    assert made() == (1, 1, 1, 1)


def test_a_user_made_at_first_sight_has_no_powers_and_no_password(issuer: Issuer) -> None:
    me(issuer.token(is_staff=True, is_superuser=True, roles=["admin"], permissions=["accounts.view_user"]))
    user = User.objects.get()
    assert (user.is_staff, user.is_superuser, user.get_all_permissions()) == (False, False, set())
    assert not user.has_usable_password()


def test_a_token_that_is_refused_makes_nobody(issuer: Issuer) -> None:
    assert Caller(None, issuer.token(aud="another")).get("/api/me/").status_code == 401
    assert made() == (0, 0, 0, 0)


def test_a_first_request_may_be_a_write(issuer: Issuer) -> None:
    assert Caller(None, issuer.token()).post("/api/sessions/", {"title": "First"}).status_code == 201
    assert made() == (1, 1, 1, 1)


# Who is who


def test_another_subject_is_another_user(issuer: Issuer) -> None:
    assert me(issuer.token(sub="auth0|alice"))["id"] != me(issuer.token(sub="auth0|bob"))["id"]


@pytest.mark.parametrize(
    "subject", ["auth0|Alice", "auth0|alice ", " auth0|alice", "auth0|\N{LATIN SMALL LETTER A WITH ACUTE}"]
)
def test_a_subject_is_itself_to_the_letter(issuer: Issuer, subject: str) -> None:
    assert me(issuer.token(sub="auth0|alice"))["id"] != me(issuer.token(sub=subject))["id"]
    assert me(issuer.token(sub=subject))["identities"][0]["subject"] == subject


def test_the_same_subject_at_two_issuers_is_two_users(issuer: Issuer, another: Issuer) -> None:
    assert me(issuer.token())["id"] != me(another.token())["id"]
    assert made() == (2, 2, 2, 2)


def test_the_same_email_at_two_issuers_is_two_users(issuer: Issuer, another: Issuer) -> None:
    shown = [me(issuer.token(**VERIFIED)), me(another.token(**VERIFIED))]
    assert [one["email"] for one in shown] == [EMAIL, EMAIL]
    assert made() == (2, 2, 2, 2)


def createtoken() -> str:
    """The token of a person known by email, made on the command line."""
    out = io.StringIO()
    call_command("createtoken", EMAIL, stdout=out, stderr=io.StringIO())
    return out.getvalue().strip()


def test_an_email_never_joins_a_person_made_by_createtoken(issuer: Issuer) -> None:
    local, seen = me(createtoken()), me(issuer.token(**VERIFIED))
    assert local["email"] == seen["email"] == EMAIL
    assert local["id"] != seen["id"]
    assert made() == (2, 2, 2, 2)


def test_createtoken_never_joins_a_person_seen_before(issuer: Issuer) -> None:
    seen, local = me(issuer.token(**VERIFIED)), me(createtoken())
    assert local["id"] != seen["id"]
    assert [one["issuer"] for one in local["identities"]] == [LOCAL_ISSUER]


def test_a_subject_that_is_an_email_never_joins_createtokens(issuer: Issuer) -> None:
    assert me(createtoken())["id"] != me(issuer.token(sub=EMAIL, **VERIFIED))["id"]


def test_a_username_is_not_an_identity(issuer: Issuer, alice: Caller) -> None:
    assert me(issuer.token(sub="alice", preferred_username="alice"))["id"] != alice.user.pk


def test_an_identity_added_by_hand_is_the_same_user(issuer: Issuer, alice: Caller) -> None:
    Identity.objects.create(user=alice.user, issuer=issuer.url, subject="auth0|alice")
    assert me(issuer.token())["id"] == alice.user.pk


# Second sight


def test_a_second_request_writes_nothing(issuer: Issuer) -> None:
    token = issuer.token()
    first = me(token)
    with CaptureQueriesContext(connection) as queries:
        assert me(token) == first
    assert [one["sql"] for one in queries if not one["sql"].startswith("SELECT")] == []


def test_a_later_name_or_email_changes_nothing(issuer: Issuer) -> None:
    me(issuer.token(**VERIFIED, name="Alice"))
    later = me(issuer.token(email="mallory@example.com", email_verified=True, name="Mallory"))
    assert (later["name"], later["email"]) == ("Alice", EMAIL)
    assert made() == (1, 1, 1, 1)


def test_an_email_verified_later_is_not_added(issuer: Issuer) -> None:
    me(issuer.token(email=EMAIL, email_verified=False))
    assert me(issuer.token(**VERIFIED))["email"] == ""


def test_what_a_user_changed_stays(issuer: Issuer) -> None:
    token = issuer.token(**VERIFIED, name="Alice")
    place = f"/api/users/{me(token)['id']}/"
    assert Caller(None, token).patch(place, {"name": "Al"}).status_code == 200
    assert me(token)["name"] == "Al"


def queries_of(token: str) -> list[str]:
    """The statements of a list of sessions, for somebody seen before."""
    me(token)
    with CaptureQueriesContext(connection) as queries:
        assert Caller(None, token).get("/api/sessions/").status_code == 200
    return [one["sql"] for one in queries]


def test_an_access_token_costs_one_query(issuer: Issuer) -> None:
    statements = queries_of(issuer.token())
    assert [statement for statement in statements if "accounts_identity" in statement] == statements[:1]
    assert [statement for statement in statements[1:] if '"accounts_user"."username"' in statement] == []


def test_an_access_token_costs_no_more_than_an_api_token(issuer: Issuer, alice: Caller) -> None:
    assert len(queries_of(issuer.token())) == len(queries_of(alice.token))


# At once


def ask(token: str, path: str = "/api/me/") -> Callable[[], Any]:
    """A job: a request by a client of its own."""
    return lambda: Caller(None, token).get(path)


@pytest.mark.django_db(transaction=True)
def test_many_first_requests_make_one_user(issuer: Issuer) -> None:
    answers = at_once([ask(issuer.token(**VERIFIED))] * 16, AT_ONCE)
    assert [answer.status_code for answer in answers] == [200] * 16
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert made() == (1, 1, 1, 1)


@pytest.mark.django_db(transaction=True)
def test_many_first_requests_of_several_make_one_user_each(issuer: Issuer, another: Issuer) -> None:
    tokens = [each.token(sub=f"auth0|{number}", **VERIFIED) for each in (issuer, another) for number in range(4)]
    answers = at_once([ask(token) for token in tokens * 4], AT_ONCE)
    assert [answer.status_code for answer in answers] == [200] * 32
    assert made() == (8, 8, 8, 8)


@pytest.mark.django_db(transaction=True)
def test_many_first_writes_store_each_session_once(issuer: Issuer) -> None:
    token = issuer.token()
    answers = at_once([lambda: Caller(None, token).post("/api/sessions/", {})] * 12, AT_ONCE)
    assert [answer.status_code for answer in answers] == [201] * 12
    assert len({answer.json()["workspace"] for answer in answers}) == 1
    assert made() == (1, 1, 1, 1)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_many_first_requests_to_two_workers_make_one_user(issuer: Issuer) -> None:
    said, token = json.dumps([issuer.configured().model_dump()]), issuer.token(**VERIFIED)
    with serving(own_database_url(), OIDC_ISSUERS=said, WEB_WORKERS="2") as port:
        before = issuer.fetches
        answers = at_once([lambda: fetch(port, "GET", "/api/me/", Authorization=f"Bearer {token}")] * 24, 16)
        workers = issuer.fetches - before
    assert [answer.status for answer, _ in answers] == [200] * 24
    assert len({json.loads(body)["id"] for _, body in answers}) == 1
    assert made() == (1, 1, 1, 1)
    assert workers in {1, 2}  # Each worker that was asked has fetched the keys once.
