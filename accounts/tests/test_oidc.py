"""OIDC access tokens (contract 6.3): which open the API, which do not, and what is taken from them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import LazySettings
from pydantic import ValidationError

from accounts.models import Identity, User
from accounts.tests.issuers import AUDIENCE, Issuer, issuing, segment
from chatstore.environment import Environment, OidcIssuer
from chatstore.tests.serving import fetch, own_database_url, serving
from chatstore.tests.test_checks import start
from conftest import Caller

pytestmark = [pytest.mark.once, pytest.mark.django_db]

HEADER = {"alg": "RS256", "typ": "JWT", "kid": "key-1"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    """Nobody changes it; RSA keys take long to make."""
    with issuing() as running:
        yield running


@pytest.fixture(scope="module")
def another() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture(autouse=True)
def configured(settings: LazySettings, issuer: Issuer) -> None:
    configure(settings, issuer.configured())


def configure(settings: LazySettings, *issuers: OidcIssuer) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"oidc_issuers": issuers})


def answer_to(token: str) -> Any:
    return Caller(None, token).get("/api/me/")


def is_refused(token: str) -> bool:
    """Whether it opens nothing, is told so as RFC 6750 and the contract say, and leaves nothing behind."""
    answer = answer_to(token)
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert (answer["Content-Type"], answer.json()["code"]) == ("application/problem+json", "invalid_token")
    assert token not in answer.content.decode()
    return not User.objects.exists()


def passed(seconds: float) -> int:
    """A time that is at most so long ago, in whole seconds."""
    return math.ceil(time.time() - seconds)


def test_it_works(issuer: Issuer) -> None:
    answer = answer_to(issuer.token())
    assert answer.status_code == 200
    assert [(i["issuer"], i["subject"]) for i in answer.json()["identities"]] == [(issuer.url, "auth0|alice")]


# Algorithms


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_configured_algorithm_opens(settings: LazySettings, algorithm: str) -> None:
    with issuing() as issuer:
        issuer.add("key-2", algorithm)
        configure(settings, issuer.configured(algorithms=(algorithm,)))
        assert answer_to(issuer.token("key-2")).status_code == 200


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_an_algorithm_that_is_not_configured_is_refused(settings: LazySettings, algorithm: str) -> None:
    others = tuple({"RS256", "ES256", "EdDSA"} - {algorithm})
    with issuing() as issuer:
        issuer.add("key-2", algorithm)
        configure(settings, issuer.configured(algorithms=others))
        assert is_refused(issuer.token("key-2"))
        assert issuer.fetches == 0


def test_several_algorithms_may_be_configured(settings: LazySettings) -> None:
    with issuing() as issuer:
        issuer.add("key-2", "EdDSA")
        configure(settings, issuer.configured(algorithms=("RS256", "EdDSA")))
        assert [answer_to(issuer.token(kid)).status_code for kid in ("key-1", "key-2")] == [200, 200]


@pytest.mark.parametrize(
    "alg", ["PS256", "RS512", "ES256", "HS256", "none", "None", "rs256", "", None, 5, ["RS256"]]
)
def test_a_header_that_names_another_algorithm_than_the_keys_is_refused(issuer: Issuer, alg: Any) -> None:
    assert is_refused(issuer.spelled(HEADER | {"alg": alg}, issuer.claims()))


def test_a_configured_algorithm_that_is_not_the_keys_is_refused(settings: LazySettings, issuer: Issuer) -> None:
    configure(settings, issuer.configured(algorithms=("RS256", "ES256")))
    assert is_refused(issuer.spelled(HEADER | {"alg": "ES256"}, issuer.claims()))


@pytest.mark.parametrize("alg", ["none", "None", "RS256"])
def test_a_token_without_a_signature_is_refused(issuer: Issuer, alg: str) -> None:
    parts = segment(HEADER | {"alg": alg}), segment(issuer.claims())
    assert is_refused(b".".join([*parts, b""]).decode())


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_public_key_is_no_shared_secret(issuer: Issuer, encoding: Encoding) -> None:
    public = issuer.private["key-1"].public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    signing_input = b".".join([segment(HEADER | {"alg": "HS256"}), segment(issuer.claims())])
    signature = jwt.get_algorithm_by_name("HS256").sign(signing_input, public)
    assert is_refused(b".".join([signing_input, segment(signature)]).decode())


# Claims


def claims_that_open() -> dict[str, dict[str, Any]]:
    return {
        "audience-in-a-list": {"aud": [AUDIENCE, "https://example.com/userinfo"]},
        "expired-29-s-ago": {"exp": passed(29)},
        "not-before-20-s": {"nbf": passed(-20)},
        "issued-in-20-s": {"iat": passed(-20)},
        "no-time-of-issue": {"iat": None},
        "machine": {"sub": "client@clients", "gty": "client-credentials"},
        "255-characters": {"sub": "x" * 255},
        "unicode": {"sub": "\N{SNOWMAN}\N{GRINNING FACE}"},
    }


@pytest.mark.parametrize("name", claims_that_open())
def test_claims_that_open(issuer: Issuer, name: str) -> None:
    claims = claims_that_open()[name]
    answer = answer_to(issuer.token(**claims))
    assert answer.status_code == 200
    assert answer.json()["identities"][0]["subject"] == claims.get("sub", "auth0|alice")


def claims_that_do_not(issuer: Issuer) -> dict[str, dict[str, Any]]:
    return {
        "issuer-missing": {"iss": None},
        "issuer-without-its-slash": {"iss": issuer.url.rstrip("/")},
        "issuer-in-capitals": {"iss": issuer.url.upper()},
        "issuer-unknown": {"iss": "https://evil.example/"},
        "issuer-a-list": {"iss": [issuer.url]},
        "audience-missing": {"aud": None},
        "audience-wrong": {"aud": "https://other.example.com/api"},
        "audience-a-part": {"aud": f"{AUDIENCE}/more"},
        "audience-wrong-list": {"aud": ["https://other.example.com/api"]},
        "audience-empty-list": {"aud": []},
        "audience-an-object": {"aud": {AUDIENCE: True}},
        "audience-mixed-list": {"aud": [AUDIENCE, 5]},
        "expiry-missing": {"exp": None},
        "expired-31-s-ago": {"exp": passed(32)},
        "expiry-a-word": {"exp": "never"},
        "expiry-true": {"exp": True},
        "expiry-a-list": {"exp": [passed(-600)]},
        "expiry-infinite": {"exp": math.inf},
        "expiry-no-number": {"exp": math.nan},
        "expiry-beyond-floats": {"exp": 10**400},
        "not-before-60-s": {"nbf": passed(-60)},
        "not-before-infinite": {"nbf": math.inf},
        "issued-in-60-s": {"iat": passed(-60)},
        "issued-infinitely-late": {"iat": math.inf},
        "issued-a-word": {"iat": "now"},
        "subject-missing": {"sub": None},
        "subject-an-integer": {"sub": 5},
        "subject-a-list": {"sub": ["auth0|alice"]},
        "subject-empty": {"sub": ""},
        "subject-256-characters": {"sub": "x" * 256},
        "subject-with-nul": {"sub": "auth0|\0"},
        "subject-with-a-lone-surrogate": {"sub": "auth0|\ud800"},
    }


# The names alone, which need no running issuer.
CLAIMS_THAT_DO_NOT = list(claims_that_do_not(Issuer(1)))


@pytest.mark.parametrize("name", CLAIMS_THAT_DO_NOT)
def test_claims_that_do_not(issuer: Issuer, name: str) -> None:
    claims = issuer.claims(**claims_that_do_not(issuer)[name])
    assert is_refused(issuer.spelled(HEADER, claims))


@pytest.mark.parametrize("of", [int, str, float], ids=["number", "in-quotes", "fraction"])
def test_a_cookie_lives_no_longer_than_its_token(issuer: Issuer, of: type) -> None:
    caller = Caller(None, issuer.spelled(HEADER, issuer.claims(exp=of(passed(-300)))))
    answer = caller.post("/auth/session")
    assert answer.status_code == 204
    assert 290 <= int(answer.cookies["chatstore_events"]["max-age"]) <= 300


@pytest.mark.parametrize("audience", [AUDIENCE, "https://second.example.com/"])
def test_several_audiences_may_be_configured(settings: LazySettings, issuer: Issuer, audience: str) -> None:
    taken = issuer.configured().model_copy(update={"audience": (AUDIENCE, "https://second.example.com/")})
    configure(settings, taken)
    assert answer_to(issuer.token(aud=audience)).status_code == 200


# Forms


def forms_that_do_not(issuer: Issuer) -> dict[str, str]:
    header, claims, good = segment(HEADER).decode(), issuer.claims(), issuer.token()
    first, second, third = good.split(".")
    deep = b'{"a":' + b"[" * 4000 + b"]" * 4000
    return {
        "header-not-base64": f"{header[:-1]}.{second}.{third}",
        "payload-not-base64": f"{first}.a.{third}",
        "signature-not-base64": f"{first}.{second}.a",
        "signature-of-other-claims": f"{first}.{segment(issuer.claims(sub='auth0|bob')).decode()}.{third}",
        "signature-shortened": good[:-4],
        "padded": f"{first}.{second}.{third}==",
        "percent-encoded": f"{first}%2E{second}%2E{third}",
        "two-parts": f"{first}.{second}",
        "four-parts": f"{good}.{third}",
        "five-parts": f"{good}.{second}.{third}",
        "empty-parts": "..",
        "header-a-list": issuer.spelled(b"[]", claims),
        "header-a-word": issuer.spelled(b'"RS256"', claims),
        "header-not-json": issuer.spelled(b"{", claims),
        "header-not-utf-8": issuer.spelled(b'{"alg":"\xff"}', claims),
        "header-deep": issuer.spelled(deep + b',"alg":"RS256","kid":"key-1"}', b"{}"),
        "payload-a-list": issuer.spelled(HEADER, b"[]"),
        "payload-a-number": issuer.spelled(HEADER, b"5"),
        "payload-null": issuer.spelled(HEADER, b"null"),
        "payload-not-json": issuer.spelled(HEADER, b"{"),
        "payload-not-utf-8": issuer.spelled(HEADER, b'{"sub":"\xff"}'),
        "payload-deep": issuer.spelled(HEADER, deep + b"}"),
        "payload-a-huge-number": issuer.spelled(HEADER, b'{"exp":' + b"9" * 5000 + b"}"),
        "payload-detached": issuer.spelled(HEADER | {"b64": False, "crit": ["b64"]}, b""),
        "kid-missing": issuer.spelled({"alg": "RS256"}, claims),
        "kid-empty": issuer.spelled(HEADER | {"kid": ""}, claims),
        "kid-null": issuer.spelled(HEADER | {"kid": None}, claims),
        "kid-a-number": issuer.spelled(HEADER | {"kid": 1}, claims),
        "kid-a-list": issuer.spelled(HEADER | {"kid": ["key-1"]}, claims),
        "kid-an-object": issuer.spelled(HEADER | {"kid": {}}, claims),
        "kid-unknown": issuer.spelled(HEADER | {"kid": "key-9"}, claims),
        "kid-a-path": issuer.spelled(HEADER | {"kid": "../../../dev/null"}, claims),
        "crit-unknown": issuer.spelled(HEADER | {"crit": ["exp"]}, claims),
        "crit-empty": issuer.spelled(HEADER | {"crit": []}, claims),
        "crit-a-word": issuer.spelled(HEADER | {"crit": "b64"}, claims),
        "a-megabyte": issuer.token(padding="x" * 1024 * 1024),
        "encrypted": issuer.spelled(HEADER | {"alg": "RSA-OAEP", "enc": "A256GCM"}, claims),
    }


class Unmade(Issuer):
    """For the names of the forms."""

    def spelled(self, *parts: Any) -> str:
        return ""


FORMS_THAT_DO_NOT = list(forms_that_do_not(Unmade(1)))


@pytest.fixture(scope="module")
def forms(issuer: Issuer) -> dict[str, str]:
    return forms_that_do_not(issuer)


@pytest.mark.parametrize("name", FORMS_THAT_DO_NOT)
def test_forms_that_do_not(forms: dict[str, str], name: str) -> None:
    assert is_refused(forms[name])


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_no_key_comes_from_where_a_token_says(issuer: Issuer, another: Issuer, name: str) -> None:
    """The token is signed with the key it brings or points to, under a kid that is known here."""
    said: dict[str, Any] = {
        "jku": another.jwks_url,
        "x5u": another.jwks_url,
        "jwk": another.jwks()["keys"][0],
        "x5c": ["AA=="],
    }
    before = another.fetches
    assert is_refused(another.spelled(HEADER | {name: said[name]}, issuer.claims()))
    assert another.fetches == before


@pytest.mark.parametrize("name", ["jku", "x5u"])
def test_a_good_token_that_says_where_keys_are_opens_all_the_same(
    issuer: Issuer, another: Issuer, name: str
) -> None:
    before = another.fetches
    assert answer_to(issuer.token(headers={name: another.jwks_url})).status_code == 200
    assert another.fetches == before


# Issuers


def test_two_issuers_open_with_their_own_keys(settings: LazySettings, issuer: Issuer, another: Issuer) -> None:
    configure(settings, issuer.configured(), another.configured())
    assert [answer_to(each.token()).status_code for each in (issuer, another)] == [200, 200]


def test_a_token_of_one_issuer_signed_by_the_other_is_refused(
    settings: LazySettings, issuer: Issuer, another: Issuer
) -> None:
    configure(settings, issuer.configured(), another.configured())
    assert is_refused(another.token(iss=issuer.url))
    assert is_refused(issuer.token(iss=another.url))


def test_the_audience_of_one_issuer_is_not_the_others(
    settings: LazySettings, issuer: Issuer, another: Issuer
) -> None:
    elsewhere = another.configured().model_copy(update={"audience": "https://other.example.com/"})
    configure(settings, issuer.configured(), elsewhere)
    assert is_refused(another.token())
    assert is_refused(issuer.token(aud="https://other.example.com/"))


def test_without_issuers_no_access_token_is_taken(settings: LazySettings, issuer: Issuer) -> None:
    configure(settings)
    assert is_refused(issuer.token())


def test_a_deactivated_user_is_refused(issuer: Issuer) -> None:
    answer_to(issuer.token())
    User.objects.update(is_active=False)
    answer = answer_to(issuer.token())
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert answer["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_a_person_acts_on_nobodys_behalf(issuer: Issuer) -> None:
    answer = Caller(None, issuer.token()).get("/api/me/", X_On_Behalf_Of=f"{issuer.url}|auth0|bob")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_a_service")


# Names and emails

VERIFIED: dict[str, Any] = {"email": "alice@example.com", "email_verified": True}


def profile(token: str) -> tuple[str, str]:
    """The name and the email of the user that this token makes."""
    answer = answer_to(token)
    assert answer.status_code == 200, answer.content
    user = User.objects.get()
    return user.name, user.email


def test_name_and_verified_email_are_taken(issuer: Issuer) -> None:
    token = issuer.token(**VERIFIED, name="Alice \N{SNOWMAN}")
    assert profile(token) == ("Alice \N{SNOWMAN}", "alice@example.com")


def test_a_user_may_have_neither(issuer: Issuer) -> None:
    assert profile(issuer.token()) == ("", "")


@pytest.mark.parametrize("said", [None, False, "true", "True", 1, 1.0, [True], {"is": True}, "yes", ""])
def test_an_email_that_is_not_exactly_verified_is_not_taken(issuer: Issuer, said: Any) -> None:
    assert profile(issuer.token(email="alice@example.com", email_verified=said)) == ("", "")


EMAILS: dict[str, Any] = {
    "a-number": 5,
    "true": True,
    "a-list": ["alice@example.com"],
    "a-list-with-an-at": ["@"],
    "an-object": {"@": "alice@example.com"},
    "empty": "",
    "no-at": "alice",
    "markup": "<script>@example.com",
    "a-line-break": "alice@example.com\n",
    "a-header": "alice@example.com\r\nBcc: mallory@example.com",
    "nul": "alice\0@example.com",
    "a-lone-surrogate": "\ud800@example.com",
    "a-surrogate-in-the-domain": "alice@\ud800.example",
    "too-long": f"alice@{'.'.join(['b' * 60] * 4)}.example",
    "huge": "a" * 10_000,
}


@pytest.mark.parametrize("email", EMAILS.values(), ids=EMAILS.keys())
def test_an_email_that_is_none_is_dropped(issuer: Issuer, email: Any) -> None:
    assert profile(issuer.token(email=email, email_verified=True, name="Alice")) == ("Alice", "")


NAMES: dict[str, Any] = {
    "a-number": 5,
    "a-list": ["Alice"],
    "an-object": {"first": "Alice"},
    "nul": "Alice\0",
    "a-lone-surrogate": "Alice \udfff",
    "too-long": "x" * 256,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_name_that_cannot_be_kept_is_dropped(issuer: Issuer, name: Any) -> None:
    assert profile(issuer.token(**VERIFIED, name=name)) == ("", "alice@example.com")


NAMESPACED = {
    "email_claim": "https://api.example.com/email",
    "email_verified_claim": "https://api.example.com/email_verified",
}


@pytest.mark.parametrize(("verified", "email"), [(True, "alice@example.com"), (False, ""), ("true", "")])
def test_the_claims_of_the_email_may_have_other_names(
    settings: LazySettings, issuer: Issuer, verified: Any, email: str
) -> None:
    configure(settings, issuer.configured(**NAMESPACED))
    said: dict[str, Any] = {
        NAMESPACED["email_claim"]: "alice@example.com",
        NAMESPACED["email_verified_claim"]: verified,
    }
    assert profile(issuer.token(**said)) == ("", email)


def test_with_other_names_the_usual_claims_say_nothing(settings: LazySettings, issuer: Issuer) -> None:
    configure(settings, issuer.configured(**NAMESPACED))
    assert profile(issuer.token(**VERIFIED)) == ("", "")


# OIDC_ISSUERS


@pytest.mark.django_db(transaction=True)
def test_the_environment_configures_a_server(issuer: Issuer) -> None:
    said = json.dumps([issuer.configured().model_dump()])
    with serving(own_database_url(), OIDC_ISSUERS=said) as port:
        good, body = fetch(port, "GET", "/api/me/", Authorization=f"Bearer {issuer.token()}")
        bad, _ = fetch(port, "GET", "/api/me/", Authorization=f"Bearer {issuer.token(aud='another')}")
        long, _ = fetch(port, "GET", "/api/me/", Authorization=f"Bearer {issuer.token(permissions='x' * 10_000)}")
    assert (good.status, bad.status, long.status) == (200, 401, 200)
    assert json.loads(body)["identities"] == [{"issuer": issuer.url, "subject": "auth0|alice"}]
    assert Identity.objects.get().subject == "auth0|alice"


ISSUER = {"issuer": "https://hunter2.example/", "audience": "hunter2"}
REFUSED: dict[str, tuple[Any, str]] = {
    "bad-algorithm": ([ISSUER | {"algorithms": ["hunter2"]}], "OIDC_ISSUERS.0.ALGORITHMS"),
    "shared-secrets": ([ISSUER | {"algorithms": ["RS256", "HS256"]}], "OIDC_ISSUERS.0.ALGORITHMS"),
    "no-algorithm": ([ISSUER | {"algorithms": []}], "OIDC_ISSUERS.0.ALGORITHMS"),
    "no-audience": ([{"issuer": "https://hunter2.example/"}], "OIDC_ISSUERS.0.AUDIENCE"),
    "empty-audience": ([ISSUER | {"audience": ""}], "OIDC_ISSUERS.0.AUDIENCE"),
    "empty-audiences": ([ISSUER | {"audience": []}], "OIDC_ISSUERS.0.AUDIENCE"),
    "no-issuer": ([{"audience": "hunter2"}], "OIDC_ISSUERS.0.ISSUER"),
    "issuer-not-http": ([ISSUER | {"issuer": "hunter2.example"}], "OIDC_ISSUERS.0.ISSUER"),
    "keys-not-http": ([ISSUER | {"jwks_url": "file:///hunter2"}], "OIDC_ISSUERS.0.JWKS_URL"),
    "unknown-key": ([ISSUER | {"secret": "hunter2"}], "OIDC_ISSUERS.0.SECRET"),
    "one-object": (ISSUER, "OIDC_ISSUERS"),
    "second-of-two": ([ISSUER, {"issuer": "https://hunter2.example/"}], "OIDC_ISSUERS.1.AUDIENCE"),
}


@pytest.mark.parametrize(("issuers", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_issuer_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, issuers: Any, named: str) -> None:
    monkeypatch.setenv("OIDC_ISSUERS", json.dumps(issuers))
    with pytest.raises(ValidationError) as refused:
        Environment()
    assert ".".join(map(str, refused.value.errors()[0]["loc"])).upper().startswith(named)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["bad-algorithm", "no-audience", "issuer-not-http", "unknown-key", "not-json"])
def test_a_wrong_issuer_stops_the_start(name: str) -> None:
    issuers, named = REFUSED.get(name, ("hunter2", "OIDC_ISSUERS"))
    done = start("-m django check", OIDC_ISSUERS=issuers if name == "not-json" else json.dumps(issuers))
    assert done.returncode != 0
    assert named in done.stderr.upper()
    assert "hunter2" not in done.stdout + done.stderr
