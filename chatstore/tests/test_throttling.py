"""How often somebody may ask: 429 with `Retry-After` (contract 1, overload)."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from pytest_django import Settings

from accounts.models import ApiToken
from chatstore.tests.serving import fetch, free_port, own_database_url, serving
from chatstore.tests.test_problems import told
from conftest import Caller

BAD_TOKEN = "cst_" + "x" * 43
WITHOUT_REDIS = (
    "NOT TRIED: whether workers count requests together. It needs redis-server (apt-get install redis-server)."
)


@pytest.fixture(autouse=True)
def nothing_counted() -> Iterator[None]:
    """And a minute that does not end during the test."""
    cache.clear()
    if (left := 60 - time.time() % 60) < 10:
        time.sleep(left)
    yield
    cache.clear()


def limit(settings: Settings, **limits: Any) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update=limits)


def statuses(caller: Caller, times: int, **headers: str) -> list[int]:
    return [caller.get("/api/me/", **headers).status_code for _ in range(times)]


def test_it_works(alice: Caller, settings: Settings) -> None:
    limit(settings, max_requests_per_minute=3)
    assert statuses(alice, 3) == [200, 200, 200]
    answer = alice.get("/api/me/")
    told(answer, 429, "throttled")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


def test_each_credential_counts_for_itself(alice: Caller, mallory: Caller, settings: Settings) -> None:
    limit(settings, max_requests_per_minute=1)
    another = Caller(alice.user, ApiToken.objects.issue(alice.user)[1])
    assert [statuses(caller, 2) for caller in (alice, mallory, another)] == [[200, 429]] * 3


def test_the_next_minute_begins_anew(alice: Caller, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(settings, max_requests_per_minute=1)
    assert statuses(alice, 2) == [200, 429]
    later = time.time() + int(alice.get("/api/me/").headers["Retry-After"])
    monkeypatch.setattr(time, "time", lambda: later)
    assert statuses(alice, 1) == [200]


def test_there_is_no_limit_by_default(alice: Caller) -> None:
    assert set(statuses(alice, 100)) == {200}


def test_a_write_beyond_the_limit_stores_nothing(alice: Caller, settings: Settings) -> None:
    limit(settings, max_requests_per_minute=1)
    assert [alice.post("/api/sessions/", {}).status_code for _ in range(3)] == [201, 429, 429]
    limit(settings, max_requests_per_minute=None)
    assert len(alice.get("/api/sessions/").json()) == 1


@pytest.mark.parametrize("token", [BAD_TOKEN, "css_" + "x" * 43, "nonsense", "a.b.c", "two words"])
def test_bad_tokens_from_one_address_are_429_after_a_while(nobody: Caller, settings: Settings, token: str) -> None:
    limit(settings, max_failures_per_minute=2)
    nobody.token = token
    assert statuses(nobody, 2) == [401, 401]
    answer = nobody.get("/api/me/")
    told(answer, 429, "throttled")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


def test_a_good_token_is_let_in_from_the_same_address(alice: Caller, nobody: Caller, settings: Settings) -> None:
    limit(settings, max_failures_per_minute=1)
    nobody.token = BAD_TOKEN
    assert statuses(nobody, 3) == [401, 429, 429]
    assert statuses(alice, 1) == [200]


def test_no_token_at_all_is_no_failure(nobody: Caller, settings: Settings) -> None:
    limit(settings, max_failures_per_minute=1)
    assert set(statuses(nobody, 5)) == {401}


def test_zero_is_no_limit(nobody: Caller, settings: Settings) -> None:
    limit(settings, max_failures_per_minute=0)
    nobody.token = BAD_TOKEN
    assert set(statuses(nobody, 100)) == {401}


def from_address(nobody: Caller, address: str, forwarded: str = "") -> int:
    nobody.client.defaults["REMOTE_ADDR"] = address
    named = {"X_Forwarded_For": forwarded} if forwarded else {}
    status: int = nobody.get("/api/me/", Authorization=f"Bearer {BAD_TOKEN}", **named).status_code
    return status


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param("192.0.2.1", "192.0.2.2", 401, id="others"),
        pytest.param("2001:db8::1", "2001:db8::ffff:1", 429, id="same-64"),
        pytest.param("2001:db8:0:1::1", "2001:db8:0:2::1", 401, id="other-64"),
        pytest.param("", "not an address", 429, id="none-to-tell"),
        pytest.param("::ffff:192.0.2.1", "::ffff:192.0.2.2", 401, id="mapped-others"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", 429, id="mapped-same"),
        pytest.param("192.0.2.1:1024", "192.0.2.1:1025", 429, id="port-same"),
        pytest.param("192.0.2.1:1024", "192.0.2.2:1024", 401, id="port-others"),
        pytest.param("[2001:db8::1]:1024", "2001:db8::2", 429, id="port-of-ipv6"),
    ],
)
def test_each_address_counts_for_itself(
    nobody: Caller, settings: Settings, one: str, other: str, expected: int
) -> None:
    limit(settings, max_failures_per_minute=1)
    assert from_address(nobody, one) == 401
    assert from_address(nobody, other) == expected


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        pytest.param(0, ["192.0.2.1", "192.0.2.2"], 429, id="header-not-believed"),
        pytest.param(1, ["192.0.2.1", "192.0.2.2"], 401, id="one-proxy"),
        pytest.param(1, ["192.0.2.9, 192.0.2.1", "192.0.2.8, 192.0.2.1"], 429, id="made-up-by-the-client"),
    ],
)
def test_the_address_is_taken_from_as_many_proxies_as_there_are(
    nobody: Caller, settings: Settings, proxies: int, forwarded: list[str], expected: int
) -> None:
    limit(settings, max_failures_per_minute=1)
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": proxies}
    assert from_address(nobody, "10.0.0.1", forwarded[0]) == 401
    assert from_address(nobody, "10.0.0.1", forwarded[1]) == expected


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """A Redis of its own; gives its CACHE_URL."""
    program = shutil.which("redis-server")
    if not program:
        pytest.skip(WITHOUT_REDIS)
    address = tmp_path / "redis"
    options = [
        "--port",
        "0",
        "--unixsocket",
        str(address),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(tmp_path),
    ]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not address.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    yield f"unix://{address}"
    server.terminate()
    server.wait(10)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_workers_count_together_where_there_is_a_cache(alice: Caller, redis: str) -> None:
    limits = {"MAX_REQUESTS_PER_MINUTE": "10", "WEB_WORKERS": "2", "CACHE_URL": redis}
    bearer = f"Bearer {alice.token}"
    with serving(own_database_url(), **limits) as port:
        answers = [fetch(port, "GET", "/api/me/", Authorization=bearer)[0].status for _ in range(30)]
    assert Counter(answers) == {200: 10, 429: 20}


def test_a_cache_that_is_away_lets_everybody_pass(alice: Caller, settings: Settings) -> None:
    limit(settings, max_requests_per_minute=1)
    away = f"redis://127.0.0.1:{free_port()}/0"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": away}}
    assert statuses(alice, 3) == [200, 200, 200]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
