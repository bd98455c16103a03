from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from accounts.models import ApiToken, Identity, User
from conftest import Caller

pytestmark = pytest.mark.django_db


def createtoken(email: str) -> str:
    """What the command prints on standard output."""
    out = io.StringIO()
    call_command("createtoken", email, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_it_works() -> None:
    printed = createtoken("someone@example.com")
    assert printed.endswith("\n")
    assert Caller(None, printed.strip()).get("/api/me/").json()["email"] == "someone@example.com"


def test_the_token_stands_alone_on_standard_output() -> None:
    assert len(createtoken("someone@example.com").split()) == 1


def test_the_same_email_in_any_case_is_the_same_person() -> None:
    createtoken("someone@example.com")
    createtoken(" Someone@Example.com")
    assert User.objects.count() == 1
    assert ApiToken.objects.count() == 2


def test_a_person_who_merely_has_the_email_is_somebody_else() -> None:
    other = User.objects.create_user("other", email="someone@example.com")
    createtoken("someone@example.com")
    assert Identity.objects.get(subject="someone@example.com").user != other


def test_a_new_person_has_a_personal_workspace() -> None:
    token = createtoken("someone@example.com").strip()
    workspaces = Caller(None, token).get("/api/me/").json()["workspaces"]
    assert [(w["role"], w["personal"]) for w in workspaces] == [("admin", True)]


def test_the_token_is_stored_as_a_digest_only() -> None:
    token = createtoken("someone@example.com").strip()
    stored = ApiToken.objects.values().get()
    assert token not in str(stored)
    assert stored["prefix"] == token[:12]


def test_what_is_no_email_is_refused() -> None:
    with pytest.raises(CommandError):
        createtoken("someone")
    assert not User.objects.exists()


def test_a_deactivated_person_gets_no_token() -> None:
    createtoken("someone@example.com")
    User.objects.update(is_active=False)
    with pytest.raises(CommandError):
        createtoken("someone@example.com")
    assert ApiToken.objects.count() == 1


def test_an_email_too_long_to_store_is_refused() -> None:
    with pytest.raises(CommandError):
        createtoken(f"{'a' * 64}@{'.'.join(['b' * 60] * 4)}.example")
    assert not User.objects.exists()
