from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.models import ServiceToken, Workspace
from conftest import Caller

pytestmark = pytest.mark.django_db


def createservicetoken(*arguments: str) -> tuple[str, str]:
    """What the command prints on standard output, and on standard error."""
    out, err = io.StringIO(), io.StringIO()
    call_command("createservicetoken", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_it_works(alice: Caller) -> None:
    printed, _ = createservicetoken("billing")
    me = Caller(None, printed.strip()).get("/api/me/", X_On_Behalf_Of=str(alice.user.public_id))
    assert me.json()["username"] == "alice"


def test_the_token_stands_alone_on_standard_output() -> None:
    printed, said = createservicetoken("billing")
    assert printed.endswith("\n")
    assert len(printed.split()) == 1
    assert printed.strip() not in said
    assert "(billing), to read write, for every user without powers, until revoked:" in said


def test_the_token_is_stored_as_a_digest_only() -> None:
    printed, _ = createservicetoken("billing")
    stored = ServiceToken.objects.values().get()
    assert printed.strip() not in str(stored)
    assert stored["prefix"] == printed[:12]


@pytest.mark.parametrize("scope", ["read", "write", "read write"])
def test_the_scope_is_the_one_asked_for(scope: str) -> None:
    createservicetoken("billing", "--scope", scope)
    assert ServiceToken.objects.get().scope == scope


def test_the_workspace_is_named_by_its_public_id_in_any_case(shared: Workspace) -> None:
    _, said = createservicetoken("billing", "--workspace", str(shared.public_id).upper())
    assert ServiceToken.objects.get().workspace == shared
    assert f"for members of {shared}" in said


def test_the_days_are_counted_from_now() -> None:
    createservicetoken("billing", "--expires-in-days", "30")
    expires_at = ServiceToken.objects.get().expires_at
    assert expires_at is not None
    assert timedelta(days=29, hours=23) < expires_at - timezone.now() <= timedelta(days=30)


REFUSED = {
    "empty-name": ([""], "1 to 255"),
    "blank-name": (["  "], "1 to 255"),
    "too-long-name": (["x" * 256], "1 to 255"),
    "name-of-two-lines": (["a\nb"], "printable"),
    "name-with-nul": (["a\0b"], "printable"),
    "unknown-scope": (["billing", "--scope", "admin"], "The scope must be"),
    "scope-the-wrong-way-round": (["billing", "--scope", "write read"], "The scope must be"),
    "empty-scope": (["billing", "--scope", ""], "The scope must be"),
    "malformed-workspace": (["billing", "--workspace", "1"], "a UUID"),
    "empty-workspace": (["billing", "--workspace", ""], "a UUID"),
    "unknown-workspace": (
        ["billing", "--workspace", "00000000-0000-7000-8000-000000000000"],
        "There is no workspace 00000000",
    ),
    "no-days": (["billing", "--expires-in-days", "0"], "The days must be"),
    "days-gone-by": (["billing", "--expires-in-days=-1"], "The days must be"),
    "absurdly-many-days": (["billing", "--expires-in-days", "36501"], "The days must be"),
    "days-beyond-all-bounds": (["billing", "--expires-in-days", "9" * 30], "The days must be"),
    "days-that-are-no-number": (["billing", "--expires-in-days", "soon"], "invalid int"),
    "no-name": ([], "required: name"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_refused_in_a_sentence(arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        createservicetoken(*arguments)
    assert not ServiceToken.objects.exists()
