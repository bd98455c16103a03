"""/api/users/ for callers with Django's permission for the verb; everybody else has themselves (contract 6)."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.test import Client

from accounts.models import ApiToken, User
from conftest import Caller, row

URL = "/api/users/"


@pytest.fixture
def clerk(mallory: Caller) -> Caller:
    """Somebody who may do everything with users, and is no superuser."""
    permit(mallory, "view", "add", "change", "delete")
    return mallory


def permit(caller: Caller, *verbs: str) -> None:
    names = [f"{verb}_user" for verb in verbs]
    caller.user.user_permissions.set(Permission.objects.filter(codename__in=names))


def of(caller: Caller) -> str:
    return f"{URL}{caller.user.pk}/"


def test_it_works(clerk: Caller) -> None:
    made = clerk.post(URL, {"username": "new", "name": "New", "email": "new@example.com"})
    assert made.status_code == 201
    assert made.json() == clerk.get(f"{URL}{made.json()['id']}/").json()
    assert made.json() in clerk.get(URL).json()


def test_an_answer_holds_nothing_secret(alice: Caller) -> None:
    shown = alice.get(of(alice)).json()
    assert set(shown) == {"id", "public_id", "username", "name", "email", "is_active", "created_at"}


def test_a_new_user_has_a_workspace_and_no_password(clerk: Caller) -> None:
    made = User.objects.get(pk=clerk.post(URL, {}).json()["id"])
    assert made.memberships.filter(workspace__personal_of=made, role="admin").exists()
    assert not made.has_usable_password()
    assert (made.is_staff, made.is_superuser) == (False, False)


def test_without_a_username_the_public_id_is_it(clerk: Caller) -> None:
    made = clerk.post(URL, {}).json()
    assert made["username"] == made["public_id"]


def test_users_are_listed_in_order_of_id(clerk: Caller, alice: Caller) -> None:
    listed = [user["id"] for user in clerk.get(URL).json()]
    assert listed == sorted(listed)
    assert {alice.user.pk, clerk.user.pk} <= set(listed)


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "search=x", "cursor=x", "skip=-1"])
def test_a_parameter_that_cannot_be_is_refused(clerk: Caller, query: str) -> None:
    assert clerk.get(f"{URL}?{query}").status_code == 422


# Who may


@pytest.mark.parametrize(
    ("verb", "path", "permission"),
    [
        ("GET", URL, "view"),
        ("POST", URL, "add"),
        ("GET", "{}", "view"),
        ("PATCH", "{}", "change"),
        ("DELETE", "{}", "delete"),
    ],
)
def test_each_verb_has_its_permission(
    alice: Caller, mallory: Caller, verb: str, path: str, permission: str
) -> None:
    path = path.format(of(alice))
    others = {"view", "add", "change", "delete"} - {permission}
    permit(mallory, *others)
    assert mallory.send(verb, path, {} if verb in ("POST", "PATCH") else None).status_code == 403
    permit(mallory, permission)
    assert mallory.send(verb, path, {} if verb in ("POST", "PATCH") else None).status_code in (200, 201, 204)


def test_staff_alone_may_nothing(alice: Caller, mallory: Caller) -> None:
    User.objects.filter(pk=mallory.user.pk).update(is_staff=True)
    assert mallory.get(of(alice)).status_code == 403


def test_a_user_that_is_not_there_is_404(alice: Caller) -> None:
    assert alice.get(f"{URL}9223372036854775807/").status_code == 404


@pytest.mark.parametrize("ref", ["0", "007", "x", "9223372036854775808"])
@pytest.mark.parametrize("verb", ["GET", "PATCH", "DELETE"])
def test_a_malformed_id_is_404(clerk: Caller, ref: str, verb: str) -> None:
    assert clerk.send(verb, f"{URL}{ref}/").status_code == 404


def test_everybody_reads_themselves(alice: Caller) -> None:
    assert alice.get(of(alice)).json()["username"] == "alice"


@pytest.mark.parametrize("body", [{"name": "Alice"}, {"email": "new@example.com"}, {"name": ""}, {"email": ""}])
def test_everybody_changes_their_name_and_email(alice: Caller, body: dict[str, str]) -> None:
    before = alice.get(of(alice)).json()
    assert alice.patch(of(alice), body).json() == before | body
    assert alice.get(of(alice)).json() == before | body


@pytest.mark.parametrize("active", [True, False])
def test_nobody_switches_themselves_on_or_off(alice: Caller, active: bool) -> None:
    assert alice.patch(of(alice), {"is_active": active}).status_code == 403
    assert alice.delete(of(alice)).status_code == 403


@pytest.mark.parametrize("name", ["is_staff", "is_superuser", "password", "user_permissions", "groups"])
@pytest.mark.parametrize("verb", ["POST", "PATCH"])
def test_power_cannot_be_asked_for(clerk: Caller, name: str, verb: str) -> None:
    refused = clerk.send(verb, URL if verb == "POST" else of(clerk), {name: True})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", name])


@pytest.mark.parametrize("name", ["id", "public_id", "created_at"])
def test_what_only_the_answer_has_is_ignored(alice: Caller, name: str) -> None:
    before = row(User, alice.user.pk)
    assert alice.patch(of(alice), {name: "x"}).status_code == 200
    assert row(User, alice.user.pk) == before


@pytest.mark.parametrize("verb", ["PATCH", "DELETE"])
def test_superusers_are_for_superusers(clerk: Caller, sam: Caller, verb: str) -> None:
    assert clerk.send(verb, of(sam), {"email": "mine@example.com"}).status_code == 403
    assert row(User, sam.user.pk)["is_active"]


# What is refused


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("username", value) for value in ("", "x" * 151, "a b", "a/b", None, 5, "a\x00")),
        *(("name", value) for value in ("x" * 256, None, 5, "\ud800")),
        *(("email", value) for value in ("nobody", "x" * 250 + "@a.b", None, 5, "a\x00@example.com")),
        *(("is_active", value) for value in ("true", 1, 0, None, "")),
    ],
)
def test_what_cannot_be_is_refused(clerk: Caller, name: str, value: Any) -> None:
    refused = clerk.post(URL, {name: value})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", name])


def test_a_username_is_taken_once(clerk: Caller, alice: Caller) -> None:
    refused = clerk.post(URL, {"username": "alice"})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "username"])


def test_a_username_cannot_change(alice: Caller) -> None:
    assert alice.patch(of(alice), {"username": "other"}).status_code == 422
    assert alice.patch(of(alice), {"username": "alice"}).status_code == 200


def test_an_email_may_be_shared(clerk: Caller, alice: Caller) -> None:
    assert clerk.post(URL, {"email": "alice@example.com"}).status_code == 201


# Deactivate


def test_a_deactivated_user_is_out_at_once(clerk: Caller, alice: Caller) -> None:
    assert clerk.delete(of(alice)).status_code == 204
    assert alice.get("/api/me/").status_code == 401
    assert clerk.get(of(alice)).json()["is_active"] is False


def test_a_deactivated_user_can_come_back(clerk: Caller, alice: Caller) -> None:
    clerk.delete(of(alice))
    assert clerk.patch(of(alice), {"is_active": True}).json()["is_active"] is True
    assert alice.get("/api/me/").status_code == 200


def test_deactivating_deletes_nothing(clerk: Caller, alice: Caller) -> None:
    made = alice.post("/api/sessions/").json()
    clerk.delete(of(alice))
    assert ApiToken.objects.filter(user=alice.user, revoked_at=None).exists()
    User.objects.filter(pk=alice.user.pk).update(is_active=True)
    assert alice.get(f"/api/sessions/{made['id']}/").json() == made


# Again, with the same key


def test_a_replay_gives_the_same_user(clerk: Caller) -> None:
    first = clerk.post(URL, {"username": "new"}, Idempotency_Key="k")
    again = clerk.post(URL, {"username": "new"}, Idempotency_Key="k")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"


def test_the_key_stands_for_its_content(clerk: Caller) -> None:
    clerk.post(URL, {"username": "new"}, Idempotency_Key="k")
    refused = clerk.post(URL, {"username": "newer"}, Idempotency_Key="k")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")


def test_keys_belong_to_who_made_them(clerk: Caller, sam: Caller) -> None:
    clerk.post(URL, {"username": "new"}, Idempotency_Key="k")
    assert sam.post(URL, {"username": "newer"}, Idempotency_Key="k").status_code == 201


@pytest.fixture
def manager(alice: Caller) -> Caller:
    """Alice, who may change and deactivate people."""
    alice.user.user_permissions.set(Permission.objects.filter(codename__in=["change_user", "delete_user"]))
    return alice


@pytest.mark.parametrize("powers", ["is_staff", "is_superuser"])
def test_people_with_powers_are_changed_by_superusers_only(manager: Caller, mallory: Caller, powers: str) -> None:
    User.objects.filter(pk=mallory.user.pk).update(**{powers: True})
    path = f"/api/users/{mallory.user.pk}/"
    assert manager.patch(path, {"email": "alice@example.com"}).status_code == 403
    assert manager.delete(path).status_code == 403


def test_people_without_powers_are_changed_by_permission(manager: Caller, mallory: Caller) -> None:
    path = f"/api/users/{mallory.user.pk}/"
    assert manager.patch(path, {"is_active": False}).json()["is_active"] is False


@pytest.mark.django_db
def test_createsuperuser_makes_staff_with_a_personal_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "correct horse battery staple")
    call_command("createsuperuser", "--noinput", username="root", email="root@example.com", verbosity=0)
    root = User.objects.get()
    assert (root.is_staff, root.is_superuser, root.memberships.get().role) == (True, True, "admin")
    assert Client().login(username="root", password="correct horse battery staple")
