"""Service tokens: who may act for whom, within what, and what the log says of it (contract 6.1)."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from http.client import HTTPConnection
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.utils import timezone
from pydantic import SecretStr
from pytest_django import Settings

from accounts.models import Identity, Membership, ServiceToken, User, Workspace
from chatstore.tests.serving import own_database_url, serving
from conftest import Caller, caller, new_session
from conversations.models import Session

OF_THE_SETTINGS = "of-the-settings-0123456789-abcdefghijklmnop"
ISSUER = "https://x.auth0.com/"
ME = "/api/me/"
SESSIONS = "/api/sessions/"

pytestmark = pytest.mark.django_db


def service(**fields: Any) -> Caller:
    """A service called billing with a token of its own, just used."""
    _, text = ServiceToken.objects.issue(name="billing", **{"last_used_at": timezone.now(), **fields})
    return Caller(None, text)


@pytest.fixture
def billing(db: None) -> Caller:
    return service()


@pytest.fixture
def operator(settings: Settings) -> Caller:
    """Who has SERVICE_AUTH_TOKEN."""
    chosen = {"service_auth_token": SecretStr(OF_THE_SETTINGS)}
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update=chosen)
    return Caller(None, OF_THE_SETTINGS)


@pytest.fixture(params=["billing", "operator"])
def either(request: pytest.FixtureRequest) -> Caller:
    found: Caller = request.getfixturevalue(request.param)
    return found


def acting_for(user: User) -> dict[str, str]:
    return {"X_On_Behalf_Of": str(user.public_id)}


def name_of(service: Caller) -> str:
    return "SERVICE_AUTH_TOKEN" if service.token == OF_THE_SETTINGS else "billing"


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_it_works(either: Caller, alice: Caller) -> None:
    assert either.get(ME, **acting_for(alice.user)).json()["username"] == "alice"


@pytest.mark.parametrize("spelled", [str.upper, str.lower], ids=["upper", "lower"])
def test_a_public_id_is_taken_in_any_case(billing: Caller, alice: Caller, spelled: Callable[[str], str]) -> None:
    named = spelled(str(alice.user.public_id))
    assert billing.get(ME, X_On_Behalf_Of=named).json()["username"] == "alice"


SUBJECTS = {"plain": "123", "bar": "auth0|123", "bars": "|a||b|", "non-ascii": "zoë-日本", "space": "a b"}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS.keys())
def test_a_user_is_named_by_issuer_and_subject(either: Caller, alice: Caller, subject: str) -> None:
    Identity.objects.create(user=alice.user, issuer=ISSUER, subject=subject)
    sent = f"{ISSUER}|{subject}".encode().decode("latin-1")  # As WSGI hands on what came in UTF-8.
    assert either.get(ME, X_On_Behalf_Of=sent).json()["username"] == "alice"


def test_an_identity_is_one_issuers(billing: Caller, alice: Caller, mallory: Caller) -> None:
    Identity.objects.create(user=alice.user, issuer=ISSUER, subject="1")
    Identity.objects.create(user=mallory.user, issuer="https://other.example", subject="2")
    assert code_of(billing.get(ME, X_On_Behalf_Of=f"{ISSUER}|2")) == (403, "on_behalf_of_refused")


def test_what_a_service_stores_belongs_to_the_user(either: Caller, alice: Caller) -> None:
    made = either.post(SESSIONS, {"title": "Invoice"}, **acting_for(alice.user))
    assert made.status_code == 201
    assert Session.objects.get().owner == alice.user
    message = {"role": "user", "content": "Hello!"}
    path = f"{SESSIONS}{made.json()['id']}/messages/"
    assert either.post(path, message, **acting_for(alice.user)).status_code == 201
    assert [found["content"] for found in alice.get(path).json()] == ["Hello!"]


def test_a_service_reaches_no_more_than_the_user(either: Caller, alice: Caller, mallory: Caller) -> None:
    session = new_session(alice)
    path = f"{SESSIONS}{session.pk}/"
    assert either.get(path, **acting_for(alice.user)).status_code == 200
    assert either.get(path, **acting_for(mallory.user)).status_code == 403


# Whom it may not act for


def flagged(**flags: bool) -> Callable[[User], str]:
    """What sets these flags of a user and names them."""

    def prepare(user: User) -> str:
        User.objects.filter(pk=user.pk).update(**flags)
        return str(user.public_id)

    return prepare


def grouped(user: User) -> str:
    user.groups.add(Group.objects.create(name="Provisioning"))
    return str(user.public_id)


def permitted(user: User) -> str:
    user.user_permissions.add(Permission.objects.get(codename="view_user"))
    return str(user.public_id)


POWERS = "holds powers over the site"
REFUSED: dict[str, tuple[Callable[[User], str], str]] = {
    "absent": (lambda user: str(uuid.uuid4()), "absent"),
    "absent-identity": (lambda user: f"{ISSUER}|nobody", "absent"),
    "empty": (lambda user: "", "absent"),
    "user-name": (lambda user: user.username, "absent"),
    "row-id": (lambda user: str(user.pk), "absent"),
    "nul": (lambda user: f"{ISSUER}|\0", "absent"),
    "invalid-utf-8": (lambda user: f"{ISSUER}|\xff", "absent"),
    "two": (lambda user: f"{user.public_id},{user.public_id}", "more than one"),
    "two-and-one-is-empty": (lambda user: f",{user.public_id}", "more than one"),
    "deactivated": (flagged(is_active=False), "deactivated"),
    "staff": (flagged(is_staff=True), POWERS),
    "superuser": (flagged(is_superuser=True), POWERS),
    "grouped": (grouped, POWERS),
    "permitted": (permitted, POWERS),
}


def warnings(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the log warns of."""
    return [record.msg for record in caplog.records if record.levelno >= logging.WARNING]  # type: ignore[misc]


def assert_warned(caplog: pytest.LogCaptureFixture, **expected: str) -> None:
    (warning,) = warnings(caplog)
    assert warning["event"] == "may not act on behalf"
    assert {key: warning[key] for key in expected} == expected


@pytest.mark.parametrize(("prepare", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_it_may_not_act_for(
    either: Caller, alice: Caller, caplog: pytest.LogCaptureFixture, prepare: Callable[[User], str], reason: str
) -> None:
    named = prepare(alice.user)
    answer = either.get(ME, X_On_Behalf_Of=named)
    assert code_of(answer) == (403, "on_behalf_of_refused")
    assert answer.json()["detail"] == "The service may not act for this user."  # Whatever the reason.
    logged = named.replace("\xff", "\N{REPLACEMENT CHARACTER}")
    assert_warned(caplog, service=name_of(either), on_behalf_of=logged, reason=reason)


def test_it_must_say_for_whom(either: Caller, alice: Caller, caplog: pytest.LogCaptureFixture) -> None:
    assert code_of(either.get(ME)) == (403, "on_behalf_of_missing")
    assert_warned(caplog, service=name_of(either), on_behalf_of="", reason="no header")


def test_a_long_name_is_logged_in_part(billing: Caller, caplog: pytest.LogCaptureFixture) -> None:
    billing.get(ME, X_On_Behalf_Of=f"{ISSUER}|{'x' * 5000}")
    assert len(warnings(caplog)[0]["on_behalf_of"]) == 512


def test_powers_count_from_the_next_request(billing: Caller, alice: Caller) -> None:
    assert billing.get(ME, **acting_for(alice.user)).status_code == 200
    flagged(is_staff=True)(alice.user)
    assert billing.get(ME, **acting_for(alice.user)).status_code == 403


def test_a_good_requests_line_names_both(either: Caller, alice: Caller, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        either.get(ME, **acting_for(alice.user))
    (line,) = [record.msg for record in caplog.records if record.name == "chatstore.request"]
    assert isinstance(line, dict)
    assert (line["service"], line["user"], line["status"]) == (name_of(either), str(alice.user.public_id), 200)
    assert either.token not in caplog.text


# Over the wire


@pytest.fixture
def wire(transactional_db: None, tmp_path: Any) -> Iterator[tuple[int, Any]]:
    """A real server's port, and its log."""
    log = tmp_path / "log"
    with log.open("wb") as file, serving(own_database_url(), file, ENV="development") as port:
        yield port, log


def ask(port: int, token: str, *headers: tuple[str, bytes]) -> tuple[int, dict[str, Any]]:
    """GET /api/me/ with these headers, each as often as it is given."""
    link = HTTPConnection("127.0.0.1", port, timeout=20)
    link.putrequest("GET", ME)
    link.putheader("Authorization", f"Bearer {token}")
    for name, value in headers:
        link.putheader(name, value)
    link.endheaders()
    answer = link.getresponse()
    body = json.loads(answer.read())
    link.close()
    return answer.status, body


def test_a_real_server_is_told_one_name_once(wire: tuple[int, Any]) -> None:
    port, log = wire
    alice, bob, billing = caller("alice"), caller("bob"), service()
    Identity.objects.create(user=alice.user, issuer=ISSUER, subject="auth0|zoë")
    first, second = (str(user.public_id).encode() for user in (alice.user, bob.user))
    one, two = ("X-On-Behalf-Of", first), ("x-on-behalf-of", second)
    assert ask(port, billing.token, one)[1]["username"] == "alice"
    named = ("X-On-Behalf-Of", f"{ISSUER}|auth0|zoë".encode())
    assert ask(port, billing.token, named)[1]["username"] == "alice"
    codes = [ask(port, billing.token, *headers)[1]["code"] for headers in [(one, two), (one, one), ()]]
    assert codes == ["on_behalf_of_refused", "on_behalf_of_refused", "on_behalf_of_missing"]
    # Another spelling of the header's name, which WSGI would make the same, is none.
    assert ask(port, billing.token, ("X_On_Behalf_Of", second))[0] == 403
    assert ask(port, billing.token, one, ("X_On_Behalf_Of", second))[1]["username"] == "alice"
    written = log.read_text()
    assert written.count("'more than one'") == 2
    assert billing.token not in written


# Scopes and the workspace


@pytest.mark.parametrize("verb", ["GET", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("scope", ["read", "write", "read write"])
def test_a_token_does_what_its_scope_says(alice: Caller, scope: str, verb: str) -> None:
    path = SESSIONS if verb == "POST" else f"{SESSIONS}{new_session(alice).pk}/"
    body = None if verb in ("GET", "DELETE") else {"title": "Changed"}
    answer = service(scope=scope).send(verb, path, body, **acting_for(alice.user))
    if ("read" if verb == "GET" else "write") in scope:
        assert answer.status_code in (200, 201, 204)
    else:
        assert code_of(answer) == (403, "insufficient_scope")
        assert not Session.objects.filter(title="Changed").exists()
        assert Session.objects.filter(deleted_at=None).count() == (0 if verb == "POST" else 1)


@pytest.fixture
def bound(shared: Workspace) -> Caller:
    """A service of the workspace that alice and bob share."""
    return service(workspace=shared)


def test_a_bound_token_acts_for_members(
    bound: Caller, bob: Caller, mallory: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    assert bound.get(ME, **acting_for(bob.user)).status_code == 200
    assert code_of(bound.get(ME, **acting_for(mallory.user))) == (403, "on_behalf_of_refused")
    assert_warned(caplog, service="billing", reason="not of the token's workspace")


def test_a_bound_token_ends_with_the_membership(bound: Caller, bob: Caller) -> None:
    Membership.objects.filter(user=bob.user, workspace__personal_of=None).delete()
    assert bound.get(ME, **acting_for(bob.user)).status_code == 403


def test_a_bound_token_sees_its_workspace_alone(bound: Caller, alice: Caller, session: Session) -> None:
    elsewhere = new_session(alice)
    assert len(alice.get(SESSIONS).json()) == 2
    acting = acting_for(alice.user)
    assert [found["id"] for found in bound.get(SESSIONS, **acting).json()] == [session.pk]
    assert bound.get(f"{SESSIONS}{session.pk}/", **acting).status_code == 200
    assert bound.get(f"{SESSIONS}{elsewhere.pk}/", **acting).status_code == 403
    assert bound.delete(f"{SESSIONS}{elsewhere.pk}/", **acting).status_code == 403
    assert [found["name"] for found in bound.get(ME, **acting).json()["workspaces"]] == ["Shared"]


def test_a_bound_token_stores_in_its_workspace(bound: Caller, alice: Caller, shared: Workspace) -> None:
    acting = acting_for(alice.user)
    assert bound.post(SESSIONS, {}, **acting).status_code == 201
    own = str(alice.user.personal_workspace().public_id)
    assert bound.post(SESSIONS, {"workspace_id": own}, **acting).status_code == 422
    assert Session.objects.get().workspace_id == shared.public_id


# Tokens that open nothing


CLOSED: dict[str, dict[str, datetime]] = {
    "revoked": {"revoked_at": timezone.now()},
    "expired": {"expires_at": timezone.now() - timedelta(seconds=1)},
}


@pytest.mark.parametrize("fields", CLOSED.values(), ids=CLOSED.keys())
def test_a_token_out_of_force_opens_nothing(alice: Caller, fields: dict[str, datetime]) -> None:
    assert code_of(service(**fields).get(ME, **acting_for(alice.user))) == (401, "invalid_token")


def test_a_token_opens_until_it_expires(alice: Caller) -> None:
    soon = timezone.now() + timedelta(minutes=1)
    assert service(expires_at=soon).get(ME, **acting_for(alice.user)).status_code == 200


@pytest.mark.parametrize("tail", ["x" * 42, "x" * 44, "", "!" * 43], ids=["short", "long", "empty", "odd"])
def test_a_malformed_token_costs_no_query(
    alice: Caller, tail: str, django_assert_num_queries: Callable[[int], AbstractContextManager[Any]]
) -> None:
    with django_assert_num_queries(0):
        answer = Caller(None, f"css_{tail}").get(ME, **acting_for(alice.user))
    assert code_of(answer) == (401, "invalid_token")


@pytest.mark.parametrize(
    "guess", [OF_THE_SETTINGS[:-1], f"{OF_THE_SETTINGS}x", OF_THE_SETTINGS.upper()], ids=["less", "more", "case"]
)
def test_the_settings_token_is_compared_whole(operator: Caller, alice: Caller, guess: str) -> None:
    assert Caller(None, guess).get(ME, **acting_for(alice.user)).status_code == 401


def test_service_tokens_can_be_off(either: Caller, alice: Caller, settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"service_tokens": False})
    assert code_of(either.get(ME, **acting_for(alice.user))) == (401, "invalid_token")
    assert alice.get(ME).status_code == 200


@pytest.mark.parametrize("name", ["alice", "mallory"])
def test_a_user_is_no_service(alice: Caller, mallory: Caller, name: str) -> None:
    named = User.objects.get(username=name)
    assert code_of(alice.get(ME, **acting_for(named))) == (403, "not_a_service")


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/api/me/tokens/"),
        ("POST", "/api/me/tokens/"),
        ("DELETE", "/api/me/tokens/1/"),
        ("POST", "/auth/session"),
        ("DELETE", "/auth/session"),
    ],
)
def test_it_gets_no_credentials_of_the_user(either: Caller, alice: Caller, verb: str, path: str) -> None:
    answer = either.send(verb, path, **acting_for(alice.user))
    assert code_of(answer) == (403, "permission_denied")
    assert alice.user.api_tokens.count() == 1
    assert not answer.cookies


# What it costs


def used(token: Caller) -> datetime | None:
    found: datetime | None = ServiceToken.objects.of_text(token.token).get().last_used_at
    return found


@pytest.mark.parametrize(("age", "noted"), [(None, True), (50, False), (61, True)], ids=["first", "soon", "later"])
def test_the_last_use_is_noted_at_most_once_a_minute(alice: Caller, age: int | None, noted: bool) -> None:
    before = timezone.now() - timedelta(seconds=age) if age else None
    token = service(last_used_at=before)
    token.get(ME, **acting_for(alice.user))
    assert (used(token) != before) is noted


def test_a_refused_request_is_a_use_too(alice: Caller) -> None:
    token = service(last_used_at=None)
    assert token.get(ME).status_code == 403
    assert used(token) is not None


@pytest.mark.parametrize(("who", "identity"), [("billing", 2), ("operator", 1), ("bound", 2)])
def test_to_know_the_caller_costs(
    request: pytest.FixtureRequest,
    alice: Caller,
    session: Session,
    who: str,
    identity: int,
    django_assert_num_queries: Callable[[int], AbstractContextManager[Any]],
) -> None:
    token: Caller = request.getfixturevalue(who)
    with django_assert_num_queries(identity + 1):
        assert len(token.get(SESSIONS, **acting_for(alice.user)).json()) == 1


def test_a_name_that_is_no_utf_8_names_nobody(alice: Caller) -> None:
    """Decoded leniently it would be the name of somebody else."""
    Identity.objects.create(user=alice.user, issuer=ISSUER, subject="M\ufffdller")
    service = Caller(None, ServiceToken.objects.issue(name="billing")[1])
    assert service.get("/api/me/", X_On_Behalf_Of=f"{ISSUER}|M\xfcller").status_code == 403
