"""How an issuer's keys are fetched, remembered and done without (contract 6.3)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from threading import Event
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from django.conf import LazySettings

from accounts.authentication import issuer_keys
from accounts.models import User
from accounts.tests.issuers import MAKERS, Answer, Issuer, issuing, reply
from chatstore.environment import OidcIssuer
from conftest import Caller
from conversations.tests.test_concurrency import at_once

pytestmark = [pytest.mark.once, pytest.mark.django_db]


@pytest.fixture(scope="module")
def key() -> Any:
    return MAKERS["RS256"]()


@pytest.fixture
def issuer(settings: LazySettings, key: Any) -> Iterator[Issuer]:
    with issuing(key) as running:
        configure(settings, running.configured())
        yield running


def configure(settings: LazySettings, *issuers: OidcIssuer) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"oidc_issuers": issuers})


class Clock:
    """The time that keys are remembered by."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.passed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (issuer_keys, jwt.jwks_client, jwt.jwk_set_cache, jwt.api_jwk):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def answer_to(token: str) -> Any:
    return Caller(None, token).get("/api/me/")


def status_of(token: str) -> int:
    status: int = answer_to(token).status_code
    return status


def unknown(issuer: Issuer, number: int = 0) -> str:
    """A token whose key nobody has published."""
    return issuer.token(headers={"kid": f"unknown-{number}"})


def test_it_works(issuer: Issuer) -> None:
    assert [status_of(issuer.token()) for _ in range(3)] == [200, 200, 200]
    assert issuer.fetches == 1


def test_nothing_is_fetched_before_a_token_comes(issuer: Issuer, alice: Caller) -> None:
    alice.get("/api/me/")
    assert issuer.fetches == 0


def test_keys_may_be_elsewhere(settings: LazySettings, issuer: Issuer) -> None:
    with issuing(issuer.private["key-1"]) as host:
        configure(settings, issuer.configured(jwks_url=f"{host.url}keys"))
        assert status_of(issuer.token()) == 200
        assert (issuer.fetches, host.fetches) == (0, 1)


def test_many_first_requests_fetch_once(transactional_db: None, issuer: Issuer) -> None:
    token = issuer.token()
    assert at_once([lambda: status_of(token)] * 12, 12) == [200] * 12
    assert issuer.fetches == 1


# Freshness


@pytest.mark.parametrize(("seconds", "fetches"), [(290, 1), (301, 2)])
def test_keys_are_fetched_again_after_five_minutes(
    issuer: Issuer, clock: Clock, seconds: int, fetches: int
) -> None:
    status_of(issuer.token())
    clock.passed = seconds
    assert status_of(issuer.token()) == 200
    assert issuer.fetches == fetches


def test_a_new_key_is_refused_within_the_cooldown_and_taken_after_it(issuer: Issuer, clock: Clock) -> None:
    status_of(issuer.token())
    issuer.add("key-2", "RS256")
    assert status_of(issuer.token("key-2")) == 401
    clock.passed = 31
    assert [status_of(issuer.token(kid)) for kid in ("key-2", "key-1")] == [200, 200]
    assert issuer.fetches == 2


def test_a_withdrawn_key_opens_until_keys_are_fetched_again(issuer: Issuer, clock: Clock) -> None:
    issuer.add("key-2", "RS256")
    old = issuer.token("key-1")
    status_of(old)
    issuer.withdraw("key-1")
    assert status_of(old) == 200
    clock.passed = 301
    assert status_of(old) == 401
    assert status_of(issuer.token("key-2")) == 200


def test_a_key_changed_under_its_name_is_taken_when_keys_are_fetched_again(issuer: Issuer, clock: Clock) -> None:
    old = issuer.token()
    status_of(old)
    issuer.add("key-1", "RS256")
    assert (status_of(old), status_of(issuer.token())) == (200, 401)
    clock.passed = 301
    assert (status_of(old), status_of(issuer.token())) == (401, 200)


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_thousand_unknown_keys_cause_one_fetch(issuer: Issuer, clock: Clock, warm: bool) -> None:
    if warm:
        status_of(issuer.token())
    token = issuer.token()
    clock.passed, before = 31.0 if warm else 0.0, issuer.fetches
    keys = issuer_keys.keys_at(issuer.configured().keys_url)
    for number in range(998):
        with pytest.raises(jwt.PyJWTError):
            keys.get_signing_key(f"unknown-{number}")
    assert [status_of(unknown(issuer, number)) for number in (998, 999)] == [401, 401]
    assert status_of(token) == 200
    assert issuer.fetches == before + 1


def test_unknown_keys_do_not_put_off_a_refresh(issuer: Issuer, clock: Clock) -> None:
    """Asked for without pause, they never keep a new key out for longer than the cooldown."""
    status_of(issuer.token())
    issuer.add("key-2", "RS256")
    for second in range(0, 36, 5):
        clock.passed = second
        status_of(unknown(issuer, second))
    assert status_of(issuer.token("key-2")) == 200
    assert issuer.fetches == 2


# Failures


def down(handler: BaseHTTPRequestHandler) -> None:
    reply(handler, b"", 500)


def refused_connection(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()


def body_of(body: bytes) -> Answer:
    return lambda handler: reply(handler, body)


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    """Fewer bytes than announced."""
    reply(handler, b'{"keys":', 200, **{"Content-Length": "1000"})
    handler.close_connection = True


def chunks_cut_off(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{")
    handler.close_connection = True


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"nonsense\r\n\r\n")
    handler.close_connection = True


def keys_of(*keys: Any) -> Answer:
    return body_of(json.dumps({"keys": keys}).encode())


WRONG: dict[str, Answer] = {
    "error-500": down,
    "error-404": lambda handler: reply(handler, b"{}", 404),
    "connection-closed": refused_connection,
    "cut-off": cut_off,
    "chunks-cut-off": chunks_cut_off,
    "not-http": nonsense,
    "nothing": body_of(b""),
    "not-json": body_of(b"<html>"),
    "not-utf-8": body_of(b'{"keys": "\xff"}'),
    "a-list": body_of(b"[]"),
    "null": body_of(b"null"),
    "no-keys": body_of(b"{}"),
    "empty-keys": keys_of(),
    "keys-a-word": body_of(b'{"keys": "key-1"}'),
    "keys-an-object": body_of(b'{"keys": {"key-1": {}}}'),
    "keys-of-words": keys_of("key-1", 5, None, []),
    "empty-key": keys_of({}),
    "unknown-kind": keys_of({"kty": "XYZ", "kid": "key-1"}),
    "kind-a-list": keys_of({"kty": ["RSA"], "kid": "key-1"}),
    "algorithm-a-list": keys_of({"kty": "RSA", "alg": ["RS256"], "kid": "key-1"}),
    "algorithm-an-object": keys_of({"kty": "RSA", "alg": {"a": 1}, "kid": "key-1"}),
    "numbers-for-text": keys_of({"kty": "RSA", "alg": "RS256", "kid": "key-1", "n": 5, "e": 3}),
    "lists-for-text": keys_of({"kty": "EC", "crv": ["P-256"], "kid": "key-1", "x": [], "y": []}),
    "point-not-on-the-curve": keys_of({"kty": "EC", "crv": "P-256", "kid": "key-1", "x": "AA", "y": "AA"}),
    "prime-list": keys_of({"kty": "RSA", "kid": "key-1", "n": "AQAB", "e": "AQAB", "d": 5, "oth": 5}),
    "deep": body_of(b'{"keys":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "huge": body_of(b'{"keys": [' + b" " * 20_000_000 + b"]}"),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_without_keys_it_is_503(issuer: Issuer, answer: Answer) -> None:
    issuer.answer = answer
    told = answer_to(issuer.token())
    assert (told.status_code, told["Content-Type"]) == (503, "application/problem+json")
    assert told.json()["code"] == "service_unavailable"
    assert int(told["Retry-After"]) > 0
    assert not User.objects.exists()


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_with_the_keys_of_before_it_goes_on(issuer: Issuer, clock: Clock, answer: Answer) -> None:
    good = issuer.token()
    status_of(good)
    issuer.answer = answer
    clock.passed = 301
    assert status_of(good) == 200
    assert status_of(unknown(issuer)) == 401
    assert issuer.fetches == 2


def test_a_good_set_that_is_too_large_is_not_read(issuer: Issuer) -> None:
    padded = json.dumps(issuer.jwks() | {"padding": "x" * 2_000_000}).encode()
    issuer.answer = body_of(padded)
    assert status_of(issuer.token()) == 503


def test_one_bad_key_does_not_spoil_the_set(issuer: Issuer) -> None:
    bad = {"kty": "EC", "crv": "P-256", "kid": "key-0", "x": "AA", "y": "AA"}
    issuer.answer = keys_of(5, bad, {"kty": "XYZ"}, *issuer.jwks()["keys"])
    assert status_of(issuer.token()) == 200


@pytest.mark.parametrize("change", [{"use": "enc"}, {"kid": None}], ids=["for-encryption", "without-name"])
def test_a_key_that_is_not_for_this_is_not_used(issuer: Issuer, change: dict[str, Any]) -> None:
    issuer.answer = keys_of(issuer.jwks()["keys"][0] | change)
    assert status_of(issuer.token()) == 401


def test_nobody_listens(settings: LazySettings) -> None:
    with issuing() as issuer:
        configure(settings, issuer.configured())
    assert status_of(issuer.token()) == 503


def test_a_redirect_is_not_followed(issuer: Issuer) -> None:
    with issuing(issuer.private["key-1"]) as other:
        issuer.answer = lambda handler: reply(handler, b"", 302, Location=other.jwks_url)
        assert status_of(issuer.token()) == 503
        assert (issuer.fetches, other.fetches) == (1, 0)


@pytest.mark.parametrize(("seconds", "status"), [(3, 503), (6, 200)])
def test_an_issuer_that_was_down_is_asked_again_after_five_seconds(
    issuer: Issuer, clock: Clock, seconds: int, status: int
) -> None:
    issuer.answer = down
    assert [status_of(issuer.token()) for _ in range(3)] == [503] * 3
    assert issuer.fetches == 1
    issuer.answer = issuer.publish
    clock.passed = seconds
    assert status_of(issuer.token()) == status


def test_the_keys_of_before_count_for_an_hour(issuer: Issuer, clock: Clock) -> None:
    good = issuer.token()
    status_of(good)
    issuer.answer = down
    clock.passed = 3500
    assert status_of(good) == 200
    clock.passed = 3601
    assert status_of(good) == 503


def test_after_an_outage_the_keys_are_fetched_again(issuer: Issuer, clock: Clock) -> None:
    """Within the cooldown, although the keys of before would do for longer."""
    issuer.add("key-2", "RS256")
    old = issuer.token("key-1")
    status_of(old)
    issuer.answer = down
    clock.passed = 301
    assert status_of(old) == 200
    issuer.withdraw("key-1")
    issuer.answer = issuer.publish
    clock.passed = 335
    assert status_of(old) == 401


def test_one_issuer_that_is_down_is_not_the_others_matter(settings: LazySettings, issuer: Issuer) -> None:
    with issuing() as other:
        configure(settings, issuer.configured(), other.configured())
        other.answer = down
        assert (status_of(other.token()), status_of(issuer.token())) == (503, 200)


# Silence


@pytest.fixture
def silence() -> Iterator[Event]:
    """Ends with the test."""
    ended = Event()
    yield ended
    ended.set()


def trickle(silence: Event) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not silence.wait(0.1):
            handler.wfile.write(b" ")

    return answer


def hanging(silence: Event) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        silence.wait(30)

    return answer


def stalling(silence: Event) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, b'{"keys":', 200, **{"Content-Length": "1000"})
        silence.wait(30)

    return answer


@pytest.mark.parametrize("kind", [hanging, stalling, trickle])
def test_an_issuer_that_hangs_is_not_waited_for(
    transactional_db: None,
    issuer: Issuer,
    silence: Event,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[Event], Answer],
) -> None:
    """Nor does each of many callers wait in turn."""
    monkeypatch.setattr(issuer_keys, "TIMEOUT_SECONDS", 0.5)
    issuer.answer = kind(silence)
    token, begun = issuer.token(), time.monotonic()
    assert at_once([lambda: status_of(token)] * 8, 8) == [503] * 8
    assert time.monotonic() - begun < 3
    assert issuer.fetches == 1


def test_an_issuer_is_waited_for_three_seconds_at_most() -> None:
    assert issuer_keys.TIMEOUT_SECONDS <= 3


def trickled_headers(handler: BaseHTTPRequestHandler) -> None:
    """A header line now and then, without end: no read ever takes long."""
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
        for number in range(100):
            handler.wfile.write(f"X-{number}: y\r\n".encode())
            time.sleep(0.2)


def test_an_issuer_that_trickles_its_headers_holds_nobody_up_for_long(
    transactional_db: None, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "TIMEOUT_SECONDS", 1)
    issuer.answer = trickled_headers
    token = issuer.token()
    started = time.monotonic()
    assert at_once([lambda: status_of(token)] * 6, 6) == [503] * 6
    assert time.monotonic() - started < 4
    assert issuer.fetches == 1
