"""Service tokens in the admin: superusers issue and revoke them, whoever may view them looks (contract 6.1, 8)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from accounts.models import SHOWN_CHARACTERS, ApiToken, ServiceToken, User, Workspace
from accounts.tests.test_admin import act, everything_stored, found, page_of, statements
from conftest import Caller

LIST = "/admin/accounts/servicetoken/"
FORM = f"{LIST}add/"
COMPLETE = "/admin/autocomplete/?app_label=accounts&model_name=servicetoken&field_name=workspace"


def issue(client: Client, **fields: Any) -> Any:
    return client.post(FORM, {"name": "billing", "scope": "read write", **fields})


def at(when: timedelta) -> dict[str, str]:
    moment = timezone.now() + when
    return {"expires_at_0": f"{moment:%Y-%m-%d}", "expires_at_1": f"{moment:%H:%M:%S}"}


def opens(text: str, user: User) -> int:
    status: int = Caller(None, text).get("/api/me/", X_On_Behalf_Of=str(user.public_id)).status_code
    return status


@pytest.fixture
def token(db: None, shared: Workspace) -> ServiceToken:
    """A token of the shared workspace."""
    return issued(shared)[0]


def issued(workspace: Workspace | None = None) -> tuple[ServiceToken, str]:
    made: tuple[ServiceToken, str] = ServiceToken.objects.issue(name="billing", workspace=workspace)
    return made


def colleague(*codenames: str) -> Client:
    """Staff who are no superusers, with these permissions."""
    vera = User.objects.create_user("vera", is_staff=True)
    vera.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(vera)
    return client


def test_it_works(staff: Client, alice: Caller) -> None:
    assert opens(issue(staff).context["text"], alice.user) == 200


def test_a_token_is_shown_once_and_stored_nowhere(
    staff: Client, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    page = issue(staff)
    secret = page.context["text"][SHOWN_CHARACTERS:]
    assert page.status_code == 200
    assert page.content.decode().count(secret) == 1
    assert "Service token (billing):" in page.content.decode()
    assert "no-store" in page.headers["Cache-Control"]

    token = ServiceToken.objects.get()
    assert LogEntry.objects.get().object_repr == str(token)
    said = capfd.readouterr()
    kept = [everything_stored(), str(staff.cookies), caplog.text, said.out, said.err]
    kept += [staff.get(path).content.decode() for path in (LIST, page_of(token), "/admin/")]
    assert token.prefix in kept[0]
    assert not [place for place in kept if secret in place]


def test_no_page_shows_the_digest(staff: Client, token: ServiceToken) -> None:
    pages = (LIST, f"{LIST}?q=billing", page_of(token), f"{LIST}{token.pk}/history/", FORM)
    shown = "".join(staff.get(path).content.decode() for path in pages)
    assert token.prefix in shown
    assert token.digest[:8] not in shown


def test_it_has_what_was_asked_for(staff: Client, shared: Workspace) -> None:
    issue(staff, scope="read", workspace=str(shared.public_id), **at(timedelta(hours=1)))
    token = ServiceToken.objects.get()
    assert (token.name, token.scope, token.workspace) == ("billing", "read", shared)
    assert token.expires_at is not None


REFUSED = {
    "no-name": ({"name": " "}, "This field is required."),
    "too-long-name": ({"name": "x" * 256}, "at most 255 characters"),
    "unknown-scope": ({"scope": "admin"}, "Select a valid choice"),
    "no-scope": ({"scope": ""}, "This field is required."),
    "unknown-workspace": ({"workspace": "00000000-0000-7000-8000-000000000000"}, "Select a valid choice"),
    "malformed-workspace": ({"workspace": "1"}, "is not a valid"),
    "past": (at(-timedelta(days=1)), "This time is past."),
}


@pytest.mark.parametrize(("fields", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_refused(staff: Client, fields: dict[str, str], said: str) -> None:
    page = issue(staff, **fields)
    assert said in page.content.decode()
    assert not ServiceToken.objects.exists()


def test_any_workspace_can_be_picked(staff: Client, alice: Caller, shared: Workspace) -> None:
    offered = {shown["id"] for shown in staff.get(COMPLETE).json()["results"]}
    assert {str(shared.public_id), str(alice.user.personal_workspace().public_id)} <= offered


def test_a_token_does_not_change_and_is_not_deleted(staff: Client, token: ServiceToken) -> None:
    before = ServiceToken.objects.values().get()
    assert staff.get(page_of(token)).status_code == 200
    assert staff.post(page_of(token), {"name": "changed", "scope": "read"}).status_code == 403
    assert staff.post(f"{LIST}{token.pk}/delete/", {"post": "yes"}).status_code == 403
    act(staff, LIST, "delete_selected", token)
    assert ServiceToken.objects.values().get() == before


def test_a_revoked_token_opens_nothing(staff: Client, alice: Caller) -> None:
    token, text = issued()
    assert opens(text, alice.user) == 200
    assert "1 revoked." in act(staff, LIST, "revoke", token).content.decode()
    assert opens(text, alice.user) == 401
    assert LogEntry.objects.get().change_message == "Revoked."


def test_to_revoke_again_changes_nothing(staff: Client, token: ServiceToken) -> None:
    act(staff, LIST, "revoke", token)
    before = ServiceToken.objects.values().get()
    assert before["revoked_at"] is not None
    assert "0 revoked." in act(staff, LIST, "revoke", token).content.decode()
    assert ServiceToken.objects.values().get() == before
    assert LogEntry.objects.count() == 1


ALL_PERMISSIONS = [f"{verb}_servicetoken" for verb in ("view", "add", "change", "delete")]


@pytest.mark.parametrize("codenames", [["view_servicetoken"], ALL_PERMISSIONS], ids=["view", "all"])
def test_who_is_no_superuser_only_looks(token: ServiceToken, codenames: list[str]) -> None:
    client = colleague(*codenames)
    assert found(client, LIST, "billing") == [token.pk]
    assert client.get(page_of(token)).status_code == 200
    assert client.get(FORM).status_code == issue(client).status_code == 403
    assert client.post(page_of(token), {"name": "changed", "scope": "read"}).status_code == 403
    act(client, LIST, "revoke", token)
    assert ServiceToken.objects.in_force().get().name == "billing"


def test_who_has_no_permission_sees_nothing(token: ServiceToken) -> None:
    client = colleague("view_apitoken")
    assert client.get(LIST).status_code == 403
    assert client.get(page_of(token)).status_code == 403
    assert "servicetoken" not in client.get("/admin/").content.decode()


BY: dict[str, Callable[[ServiceToken], str]] = {
    "id": lambda token: str(token.pk),
    "name": lambda token: " billing ",
    "workspace": lambda token: str(token.workspace_id).upper(),
}


@pytest.mark.parametrize("term", BY.values(), ids=BY.keys())
def test_a_token_is_found_by(staff: Client, token: ServiceToken, term: Callable[[ServiceToken], str]) -> None:
    ServiceToken.objects.issue(name="other")
    assert found(staff, LIST, term(token)) == [token.pk]


@pytest.mark.parametrize("term", ["bill", "Billing", "css_", "%", "9" * 5000])
def test_a_token_is_not_found_by_less(staff: Client, token: ServiceToken, term: str) -> None:
    assert found(staff, LIST, term) == []


@pytest.mark.parametrize("query", ["digest=1", "workspace=1", "name__startswith=b", "digest__startswith=a"])
def test_a_list_is_filtered_by_nothing_else(staff: Client, token: ServiceToken, query: str) -> None:
    assert staff.get(f"{LIST}?{query}").status_code == 400


@pytest.mark.parametrize("path", [LIST, f"{LIST}?q=billing", FORM, COMPLETE])
def test_a_page_costs_the_same_for_one_row_and_for_fifty(staff: Client, shared: Workspace, path: str) -> None:
    staff.get(path)  # Content types are remembered from the first page on.
    issued(shared)
    one = statements(staff, path)
    for number in range(49):
        issued(Workspace.objects.create(name=f"extra {number}"))
    assert len(statements(staff, path)) == len(one) <= 12


def test_a_workspace_is_deleted_with_its_tokens(staff: Client, shared: Workspace) -> None:
    ServiceToken.objects.issue(name="archive", workspace=shared)
    page = f"/admin/accounts/workspace/{shared.pk}/delete/"
    assert staff.get(page).status_code == 200
    assert staff.post(page, {"post": "yes"}).status_code == 302
    assert not Workspace.objects.filter(pk=shared.pk).exists()
    assert not ServiceToken.objects.exists()


def test_a_name_on_two_lines_is_refused(staff: Client) -> None:
    asked = {"name": "one\x1btwo", "scope": "read", "workspace": "", "expires_at_0": "", "expires_at_1": ""}
    assert staff.post("/admin/accounts/servicetoken/add/", asked).status_code == 200
    assert not ServiceToken.objects.exists()


def test_staff_without_all_powers_revoke_no_superusers_api_token(alice: Caller, sam: Caller) -> None:
    helper = User.objects.create_user("helper", is_staff=True)
    needed = Permission.objects.filter(codename__in=["view_apitoken", "change_apitoken"])
    helper.user_permissions.set(needed)
    client = Client()
    client.force_login(helper)
    ids = list(ApiToken.objects.values_list("pk", flat=True))
    client.post("/admin/accounts/apitoken/", {"action": "revoke", "_selected_action": ids})
    revoked = ApiToken.objects.exclude(revoked_at=None).values_list("user__username", flat=True)
    assert list(revoked) == ["alice"]
