"""Ten failed logins to the admin with one user name from one address, and that address waits (docs/admin.md)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from axes.handlers.proxy import AxesProxyHandler
from django.apps import apps
from django.conf import settings as project
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.db import connection
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from conftest import Caller

PASSWORD = "correct horse battery staple"
WRONG = "Wrong-Quagmire-99"
HERE, ELSEWHERE = "192.0.2.1", "198.51.100.7"
LIMIT = 10

# What staff see is of the same code on either database; on SQLite a browser opens each page.
pytestmark = [pytest.mark.postgres, pytest.mark.django_db]


@pytest.fixture
def counted_from_nothing() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture(autouse=True)
def fast(counted_from_nothing: None, settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def paula(db: None) -> User:
    """Staff with a password."""
    return User.objects.create_user("paula", password=PASSWORD, is_staff=True)


def attempt(password: str = WRONG, name: str = "paula", address: str = HERE, **headers: str) -> Any:
    """The answer to one login, in a browser without cookies."""
    sent = {"username": name, "password": password}
    return Client().post("/admin/login/?next=/admin/", sent, REMOTE_ADDR=address, headers=headers)


def fail(times: int, **fields: Any) -> Any:
    """The answer to the last of so many failed logins."""
    return [attempt(**fields) for _ in range(times)][-1]


def test_it_works(paula: User) -> None:
    assert attempt(PASSWORD).status_code == 302
    assert fail(LIMIT - 1).status_code == 200
    assert fail(1).status_code == 429
    assert attempt(PASSWORD).status_code == 429


def test_the_answer_says_how_long(paula: User) -> None:
    page = fail(LIMIT)
    assert page.headers["Retry-After"] == "900"
    assert "no-store" in page.headers["Cache-Control"]
    assert page.headers["Content-Type"].startswith("text/html")
    assert "Try again in 15 minutes." in page.content.decode()
    assert "paula" not in page.content.decode()


def test_it_is_the_same_whether_there_is_such_a_user(paula: User) -> None:
    assert [attempt(name="nobody").status_code for _ in range(LIMIT)] == [200] * (LIMIT - 1) + [429]
    there, absent = fail(LIMIT), attempt(name="nobody")
    assert (there.status_code, absent.status_code) == (429, 429)
    assert there.content == absent.content


def test_another_address_logs_in_at_once(paula: User) -> None:
    fail(LIMIT)
    assert attempt(PASSWORD, address=ELSEWHERE).status_code == 302


def test_another_user_logs_in_from_the_same_address(paula: User) -> None:
    User.objects.create_user("dora", password=PASSWORD, is_staff=True)
    fail(LIMIT)
    assert attempt(PASSWORD, name="dora").status_code == 302


def test_a_right_password_forgets_the_failures(paula: User) -> None:
    fail(LIMIT - 1)
    assert attempt(PASSWORD).status_code == 302
    assert fail(LIMIT - 1).status_code == 200


def test_a_right_password_logs_in_again_after_the_time(paula: User, settings: Settings) -> None:
    settings.AXES_COOLOFF_TIME = timedelta(seconds=2)
    fail(LIMIT)
    time.sleep(1.2)
    assert attempt(PASSWORD).status_code == 429  # And does not begin the time anew.
    time.sleep(1)
    assert attempt(PASSWORD).status_code == 302


def test_who_is_logged_in_stays_so(staff: Client, sam: Caller) -> None:
    assert fail(LIMIT, name="sam").status_code == 429
    assert staff.get("/admin/", REMOTE_ADDR=HERE).status_code == 200


# The API


def test_a_locked_out_persons_token_opens_the_api(alice: Caller) -> None:
    alice.user.set_password(PASSWORD)
    alice.user.save()
    assert fail(LIMIT, name="alice", address="127.0.0.1").status_code == 429
    assert alice.get("/api/me/").status_code == 200


def test_bad_bearer_tokens_lock_nobody_out(paula: User, nobody: Caller) -> None:
    nobody.token = f"cst_{'x' * 43}"
    assert {nobody.get("/api/me/").status_code for _ in range(LIMIT + 2)} == {401}
    assert attempt(PASSWORD, address="127.0.0.1").status_code == 302


# Addresses


def behind(settings: Settings, proxies: int) -> None:
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": proxies}


def test_without_proxies_nobody_says_another_address(paula: User) -> None:
    assert project.REST_FRAMEWORK["NUM_PROXIES"] == project.ENVIRONMENT.num_proxies == 0
    answers = [attempt(X_Forwarded_For=f"203.0.113.{number}") for number in range(LIMIT)]
    assert answers[-1].status_code == 429


def forwarded(address: str) -> dict[str, str]:
    """As a proxy at HERE sends it: what a client made up stands before what the proxy has seen."""
    return {"X-Forwarded-For": f"203.0.113.9, {address}"}


def test_behind_a_proxy_the_address_is_the_one_that_it_saw(paula: User, settings: Settings) -> None:
    behind(settings, 1)
    assert fail(LIMIT, **forwarded("203.0.113.1")).status_code == 429
    assert attempt(PASSWORD, **forwarded("203.0.113.1")).status_code == 429
    assert attempt(PASSWORD, **forwarded("203.0.113.2")).status_code == 302


def test_a_network_of_ipv6_is_one_address(paula: User) -> None:
    answers = [attempt(address=f"2001:db8::{number}") for number in range(1, LIMIT + 1)]
    assert answers[-1].status_code == 429
    assert attempt(PASSWORD, address="2001:db8:0:1::1").status_code == 302


# What is kept and what is said


def test_there_are_no_tables_permissions_or_pages_of_it() -> None:
    assert apps.is_installed("axes")
    assert not [model for model in apps.get_models() if model._meta.app_label == "axes"]
    assert not [model for model in admin.site._registry if model._meta.app_label == "axes"]
    assert not Permission.objects.filter(content_type__app_label="axes").exists()
    assert not [name for name in connection.introspection.table_names() if name.startswith("axes")]


def test_no_log_line_has_what_was_typed(
    paula: User, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    typed = "Xylophone-7431"
    with caplog.at_level(logging.DEBUG):
        fail(LIMIT + 1, name=typed)
        attempt(PASSWORD)
    said = capfd.readouterr()
    lines = caplog.text + said.out + said.err
    assert "AXES: Locking out" in lines
    assert HERE in lines
    assert not [word for word in (typed, "paula", PASSWORD, WRONG) if word in lines]


def test_a_cache_that_is_away_lets_everybody_try(
    paula: User, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"}
    settings.CACHES = {"default": away}
    monkeypatch.setattr(AxesProxyHandler, "implementation", None)
    assert fail(LIMIT + 1).status_code == 200
    assert attempt(PASSWORD).status_code == 302


@pytest.mark.parametrize(("password", "logged_in"), [(PASSWORD, True), (WRONG, False)], ids=["right", "wrong"])
def test_the_test_clients_login_needs_no_request(paula: User, password: str, logged_in: bool) -> None:
    assert Client().login(username="paula", password=password) is logged_in
