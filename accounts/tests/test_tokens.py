"""API tokens: what opens the API, and /api/me/tokens/ (contract 1, auth, and 6.2)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import ApiToken, User
from conftest import Caller, row

LATER = "2999-01-01T00:00:00.000000Z"
URL = "/api/me/tokens/"


def issued(caller: Caller, **fields: Any) -> Caller:
    """The same person with a token just made through the API."""
    made = caller.post(URL, fields)
    assert made.status_code == 201, made.json()
    return Caller(caller.user, made.json()["token"])


def own_token(caller: Caller) -> ApiToken:
    token: ApiToken = ApiToken.objects.of_text(caller.token).get()
    return token


def test_it_works(alice: Caller) -> None:
    assert issued(alice, name="laptop").get("/api/me/").json()["username"] == "alice"


def test_the_answer_tells_the_token_once(alice: Caller) -> None:
    made = alice.post(URL, {"name": "laptop", "expires_at": LATER}).json()
    text = made.pop("token")
    assert text.startswith("cst_")
    assert made == {
        "id": made["id"],
        "name": "laptop",
        "prefix": text[:12],
        "created_at": made["created_at"],
        "expires_at": LATER,
        "last_used_at": None,
        "revoked_at": None,
    }
    assert made in alice.get(URL).json()


def test_a_token_is_stored_as_a_digest(alice: Caller) -> None:
    made = alice.post(URL).json()
    assert made["token"] not in str(row(ApiToken, made["id"]))
    assert len(row(ApiToken, made["id"])["digest"]) == 64


def test_a_list_shows_no_digest(alice: Caller) -> None:
    assert own_token(alice).digest not in alice.get(URL).content.decode()


def test_a_list_shows_ones_own(alice: Caller, mallory: Caller) -> None:
    issued(mallory)
    assert [token["prefix"] for token in alice.get(URL).json()] == [alice.token[:12]]


def test_a_replay_does_not_tell_the_token(alice: Caller) -> None:
    first = alice.post(URL, {"name": "laptop", "expires_at": LATER}, Idempotency_Key="k").json()
    again = alice.post(URL, {"name": "laptop", "expires_at": LATER}, Idempotency_Key="k").json()
    assert again == first | {"token": None}


def test_the_key_stands_for_its_content(alice: Caller) -> None:
    alice.post(URL, {"name": "laptop"}, Idempotency_Key="k")
    assert alice.post(URL, {"name": "phone"}, Idempotency_Key="k").status_code == 422


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x" * 255}, {"expires_at": None}])
def test_name_and_expiry_are_optional(alice: Caller, body: dict[str, Any]) -> None:
    assert alice.post(URL, body).status_code == 201


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("name", value) for value in ("x" * 256, None, 5, "a\x00")),
        *(("expires_at", value) for value in ("2001-01-01T00:00:00Z", "soon", "", 5, True)),
        *(("expires_at", value) for value in ("9999-12-31T23:59:59-23:59", "2999-02-30T00:00:00Z")),
        *((name, "x") for name in ("user", "digest", "scopes")),
    ],
)
def test_what_cannot_be_is_refused(alice: Caller, name: str, value: Any) -> None:
    refused = alice.post(URL, {name: value})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", name])


# Revoke


def test_a_revoked_token_opens_nothing(alice: Caller) -> None:
    laptop = issued(alice)
    assert laptop.get("/api/me/").status_code == 200
    assert alice.delete(f"{URL}{own_token(laptop).pk}/").status_code == 204
    assert laptop.get("/api/me/").status_code == 401


def test_a_token_may_revoke_itself(alice: Caller) -> None:
    assert alice.delete(f"{URL}{own_token(alice).pk}/").status_code == 204
    assert alice.get(URL).status_code == 401


def test_revoking_again_changes_nothing(alice: Caller) -> None:
    token = own_token(issued(alice))
    alice.delete(f"{URL}{token.pk}/")
    before = row(ApiToken, token.pk)
    assert before["revoked_at"]
    assert alice.delete(f"{URL}{token.pk}/").status_code == 204
    assert row(ApiToken, token.pk) == before


def test_other_peoples_tokens_are_not_there(alice: Caller, sam: Caller) -> None:
    assert sam.delete(f"{URL}{own_token(alice).pk}/").status_code == 404
    assert alice.get("/api/me/").status_code == 200


@pytest.mark.parametrize("ref", ["0", "007", "x", "9223372036854775807", "9223372036854775808"])
def test_a_token_that_is_not_there_is_404(alice: Caller, ref: str) -> None:
    assert alice.delete(f"{URL}{ref}/").status_code == 404


@pytest.mark.parametrize("verb", ["GET", "PATCH", "PUT", "POST"])
def test_a_token_is_only_revoked(alice: Caller, verb: str) -> None:
    assert alice.send(verb, f"{URL}{own_token(alice).pk}/").status_code == 405


# What opens the API


def refused(caller: Caller, **headers: str) -> None:
    answer = caller.get("/api/me/", **headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].split()[0] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert isinstance(answer.json()["detail"], str)


def test_without_a_token_it_is_401(nobody: Caller) -> None:
    refused(nobody)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_has_no_case(alice: Caller, nobody: Caller, scheme: str) -> None:
    assert nobody.get("/api/me/", Authorization=f"{scheme} {alice.token}").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("Bearer", id="scheme alone"),
        pytest.param("{}", id="token alone"),
        pytest.param("Bearer{}", id="no space"),
        pytest.param("Token {}", id="another scheme"),
        pytest.param("Basic YWxpY2U6eA==", id="basic"),
        pytest.param("Bearer {} {}", id="two tokens"),
        pytest.param("Bearer {},Bearer {}", id="two headers as gunicorn joins them"),
        pytest.param("Bearer {}, Bearer {}", id="two headers as others join them"),
        pytest.param("Bearer {}x", id="one character more"),
        pytest.param("Bearer cst_", id="prefix alone"),
        pytest.param("Bearer cst_" + "A" * 43, id="unknown"),
        pytest.param("Bearer null", id="null"),
        pytest.param("Bearer caf\u00e9", id="not ASCII"),
        pytest.param('Bearer "{}"', id="quoted"),
        pytest.param("Bearer " + "x" * 5000, id="long"),
    ],
)
def test_anything_but_one_token_is_401(alice: Caller, nobody: Caller, header: str) -> None:
    refused(nobody, Authorization=header.replace("{}", alice.token))


def test_a_token_has_a_case(alice: Caller) -> None:
    refused(Caller(None, alice.token.swapcase()))


def test_a_token_in_the_query_opens_nothing(alice: Caller, nobody: Caller) -> None:
    assert nobody.get(f"/api/me/?access_token={alice.token}").status_code == 401


def test_a_staff_login_opens_nothing(sam: Caller, nobody: Caller) -> None:
    nobody.client.force_login(sam.user)
    refused(nobody)


def test_a_revoked_token_is_401(alice: Caller) -> None:
    own_token(alice).revoke()
    refused(alice)


@pytest.mark.parametrize(("seconds", "status"), [(-1, 401), (0, 401), (60, 200)])
def test_a_token_ends_when_it_expires(alice: Caller, seconds: int, status: int) -> None:
    ApiToken.objects.update(expires_at=timezone.now() + timedelta(seconds=seconds))
    assert alice.get("/api/me/").status_code == status


def test_the_token_of_a_deactivated_user_is_401(alice: Caller) -> None:
    User.objects.filter(pk=alice.user.pk).update(is_active=False)
    refused(alice)


def test_unknown_and_revoked_tokens_look_the_same(alice: Caller) -> None:
    unknown = Caller(None, "cst_" + "A" * 43).get("/api/me/").json()
    own_token(alice).revoke()
    known = alice.get("/api/me/").json()
    assert known | {"request_id": ""} == unknown | {"request_id": ""}


# Last used


def test_a_use_is_noted(alice: Caller) -> None:
    laptop = issued(alice)
    assert own_token(laptop).last_used_at is None
    laptop.get("/api/me/")
    noted = own_token(laptop).last_used_at
    assert noted is not None
    assert timezone.now() - noted < timedelta(seconds=10)


@pytest.mark.parametrize(("ago", "noted"), [(30, False), (61, True)], ids=["within a minute", "after a minute"])
def test_a_use_is_noted_once_a_minute(alice: Caller, ago: int, noted: bool) -> None:
    before = timezone.now() - timedelta(seconds=ago)
    ApiToken.objects.update(last_used_at=before)
    alice.get("/api/me/")
    assert (own_token(alice).last_used_at != before) is noted
