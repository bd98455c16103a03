"""The cookie that opens event streams, for EventSource, which cannot send headers (contract 5)."""

from __future__ import annotations

import base64
import json
import time
from http.cookies import Morsel
from typing import Any

import pytest
from django.core import signing
from pydantic import SecretStr
from pytest_django import Settings

from accounts.authentication import event_cookie
from accounts.models import ApiToken, ServiceToken, User
from accounts.tests.issuers import issuing
from conftest import Caller

EVENTS = "/api/sessions/1/events/"
NAME = "chatstore_events"


@pytest.fixture(autouse=True)
def routes(settings: Settings) -> None:
    settings.ROOT_URLCONF = "accounts.tests.event_routes"


def got(caller: Caller) -> Morsel[str]:
    answer = caller.post("/auth/session")
    assert (answer.status_code, answer.content) == (204, b"")
    cookie: Morsel[str] = answer.cookies[NAME]
    return cookie


def browser(cookie: str) -> Caller:
    """A browser that holds the cookie and sends no header."""
    caller = Caller(None, "")
    caller.client.cookies[NAME] = cookie
    return caller


def test_it_works(alice: Caller) -> None:
    answer = browser(got(alice).value).get(EVENTS)
    assert (answer.status_code, answer.json()) == (200, {"user": str(alice.user.public_id)})


def test_it_is_for_browsers_event_streams_alone(alice: Caller) -> None:
    cookie = got(alice)
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/api/sessions/", True, "Strict")
    assert (cookie["max-age"], cookie["domain"], cookie["secure"]) == (600, "", "")


@pytest.mark.parametrize("env", ["staging", "production"])
def test_outside_development_it_travels_encrypted_only(alice: Caller, settings: Settings, env: str) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"env": env})
    assert got(alice)["secure"] is True


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/me/"),
        ("GET", "/api/sessions/"),
        ("POST", "/api/sessions/"),
        ("GET", "/api/sessions/1/messages/"),
        ("POST", EVENTS),
        ("POST", "/auth/session"),
        ("DELETE", "/auth/session"),
    ],
)
def test_it_opens_nothing_else(alice: Caller, method: str, path: str) -> None:
    answer = browser(got(alice).value).send(method, path)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


def test_the_header_goes_first(alice: Caller, mallory: Caller) -> None:
    mallory.client.cookies[NAME] = got(alice).value
    assert mallory.get(EVENTS).json() == {"user": str(mallory.user.public_id)}
    mallory.token = "cst_" + "x" * 43
    assert mallory.get(EVENTS).status_code == 401


def test_delete_clears_it(alice: Caller) -> None:
    answer = alice.delete("/auth/session")
    cookie = answer.cookies[NAME]
    assert (answer.status_code, cookie.value, cookie["max-age"], cookie["path"]) == (204, "", 0, "/api/sessions/")


def signed(ref: str, user: User, until: float, salt: str = event_cookie.SALT) -> str:
    return signing.dumps([ref, user.pk, until], salt=salt)


@pytest.mark.parametrize(
    "cookie",
    [
        pytest.param("", id="empty"),
        pytest.param("nonsense", id="nonsense"),
        pytest.param("a:b:c", id="three-parts"),
        pytest.param("{good}x", id="tampered"),
        pytest.param("{other_salt}", id="signed-for-something-else"),
        pytest.param("{ended}", id="ended"),
        pytest.param("{absent}", id="no-such-token"),
        pytest.param("{anothers}", id="number-given-to-somebody-else"),
    ],
)
def test_another_cookie_is_401(alice: Caller, mallory: Caller, cookie: str) -> None:
    good = got(alice).value
    ref = signing.loads(good, salt=event_cookie.SALT)[0]
    soon = time.time() + 60
    forms = {
        "good": good,
        "other_salt": signed(ref, alice.user, soon, "another"),
        "ended": signed(ref, alice.user, time.time() - 1),
        "absent": signed("api_token:0", alice.user, soon),
        "anothers": signed(ref, mallory.user, soon),
    }
    answer = browser(cookie.format(**forms)).get(EVENTS)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


def test_it_lasts_ten_minutes(alice: Caller) -> None:
    until = signing.loads(got(alice).value, salt=event_cookie.SALT)[2]
    assert 590 <= until - time.time() <= 600


def test_it_holds_no_secret(alice: Caller) -> None:
    said = base64.urlsafe_b64decode(got(alice).value.partition(":")[0] + "==")
    ref, user_id, _ = json.loads(said)
    assert (ref, user_id) == (f"api_token:{alice.user.api_tokens.get().pk}", alice.user.pk)


@pytest.mark.parametrize("end", ["revoke", "deactivate", "expire", "switch-off"])
def test_it_ends_with_the_token_that_it_was_got_with(alice: Caller, settings: Settings, end: str) -> None:
    viewer = browser(got(alice).value)
    assert viewer.get(EVENTS).status_code == 200
    token = ApiToken.objects.get(user=alice.user)
    ends: dict[str, Any] = {
        "revoke": token.revoke,
        "deactivate": lambda: User.objects.update(is_active=False),
        "expire": lambda: ApiToken.objects.update(expires_at="2020-01-01T00:00:00Z"),
        "switch-off": lambda: setattr(
            settings, "ENVIRONMENT", settings.ENVIRONMENT.model_copy(update={"api_tokens": False})
        ),
    }
    ends[end]()
    assert viewer.get(EVENTS).status_code == 401


def test_another_token_of_the_same_user_does_not_keep_it(alice: Caller) -> None:
    viewer = browser(got(alice).value)
    token = ApiToken.objects.get(user=alice.user)
    ApiToken.objects.issue(alice.user)
    token.revoke()
    assert viewer.get(EVENTS).status_code == 401


def test_one_got_with_an_access_token_lives_no_longer_than_that(nobody: Caller, settings: Settings) -> None:
    with issuing() as issuer:
        settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"oidc_issuers": (issuer.configured(),)})
        nobody.token = issuer.token(exp=int(time.time()) + 100)
        cookie = got(nobody)
    assert 90 <= cookie["max-age"] <= 100
    viewer = browser(cookie.value)
    assert viewer.get(EVENTS).status_code == 200
    User.objects.update(is_active=False)
    assert viewer.get(EVENTS).status_code == 401


def test_one_got_within_the_leeway_of_an_expired_access_token_opens_nothing(
    nobody: Caller, settings: Settings
) -> None:
    with issuing() as issuer:
        settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"oidc_issuers": (issuer.configured(),)})
        nobody.token = issuer.token(exp=int(time.time()) - 10)
        cookie = got(nobody)
    assert cookie["max-age"] == 0
    assert browser(cookie.value).get(EVENTS).status_code == 401


@pytest.mark.parametrize("which", ["row", "settings"])
def test_a_service_gets_none(alice: Caller, settings: Settings, which: str) -> None:
    text = "service-auth-token-of-the-tests-0123456789"
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"service_auth_token": SecretStr(text)})
    service = Caller(None, ServiceToken.objects.issue(name="back end")[1] if which == "row" else text)
    answer = service.post("/auth/session", X_On_Behalf_Of=str(alice.user.public_id))
    assert answer.status_code == 403
    assert not answer.cookies


@pytest.mark.parametrize("path", ["/auth/session", "/auth/session/"])
def test_it_answers_with_and_without_a_slash(alice: Caller, path: str) -> None:
    assert alice.post(path).status_code == 204


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_without_a_token_it_is_401(nobody: Caller, method: str) -> None:
    answer = nobody.send(method, "/auth/session")
    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")
    assert not answer.cookies


def test_another_method_is_405(alice: Caller) -> None:
    assert alice.get("/auth/session").status_code == 405
