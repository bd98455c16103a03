"""GET /api/me/: the caller, identities, workspaces with roles (contract 6)."""

from __future__ import annotations

import pytest

from accounts.models import Identity, Membership, Workspace
from conftest import Caller


def test_it_works(alice: Caller) -> None:
    me = alice.get("/api/me/")
    assert me.status_code == 200
    assert (me.json()["id"], me.json()["public_id"]) == (alice.user.pk, str(alice.user.public_id))
    assert (me.json()["username"], me.json()["email"]) == ("alice", "alice@example.com")


def test_everybody_has_a_personal_workspace(alice: Caller) -> None:
    home = str(alice.user.personal_workspace().public_id)
    assert alice.get("/api/me/").json()["workspaces"] == [
        {"id": home, "name": "Personal", "role": "admin", "personal": True}
    ]


@pytest.mark.parametrize(("who", "role"), [("alice", "member"), ("carol", "admin")])
def test_a_shared_workspace_shows_ones_role(
    request: pytest.FixtureRequest, shared: Workspace, who: str, role: str
) -> None:
    caller: Caller = request.getfixturevalue(who)
    entry = {"id": str(shared.public_id), "name": "Shared", "role": role, "personal": False}
    assert entry in caller.get("/api/me/").json()["workspaces"]


def test_a_membership_that_ended_is_not_shown(alice: Caller, shared: Workspace) -> None:
    assert len(alice.get("/api/me/").json()["workspaces"]) == 2
    Membership.objects.filter(workspace=shared).delete()
    assert len(alice.get("/api/me/").json()["workspaces"]) == 1


def test_identities_are_ones_own(alice: Caller, mallory: Caller) -> None:
    Identity.objects.create(user=alice.user, issuer="https://issuer.example/", subject="a|1")
    Identity.objects.create(user=mallory.user, issuer="https://issuer.example/", subject="m|1")
    assert alice.get("/api/me/").json()["identities"] == [{"issuer": "https://issuer.example/", "subject": "a|1"}]


def test_nothing_secret_is_shown(alice: Caller) -> None:
    shown = alice.get("/api/me/").json()
    assert set(shown) == {
        *("id", "public_id", "username", "name", "email", "is_active", "created_at"),
        *("identities", "workspaces"),
    }


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_it_is_only_read(alice: Caller, verb: str) -> None:
    refused = alice.send(verb, "/api/me/")
    assert refused.status_code == 405
    assert "GET" in refused.headers["Allow"]


def test_it_takes_no_parameter(alice: Caller) -> None:
    assert alice.get("/api/me/?limit=1").status_code == 422


def test_nobody_is_nobody(nobody: Caller) -> None:
    assert nobody.get("/api/me/").status_code == 401
