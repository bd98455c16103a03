"""Workspaces and who is a member of them, in the admin (contract 2 and 8)."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.admin.workspaces import NewMemberForm, WorkspaceAdmin
from accounts.models import User, Workspace
from accounts.tests.test_admin import MEMBERSHIPS, WORKSPACES, act, form_of, found, fresh, page_of
from conftest import Caller, new_session


def new_member(user: User | None, role: str = "member") -> dict[str, Any]:
    assert user is not None
    return {"new_members-0-user": user.pk, "new_members-0-role": role, "new_members-TOTAL_FORMS": "1"}


def test_people_join_change_and_leave_a_shared_workspace(
    staff: Client, shared: Workspace, mallory: Caller, alice: Caller
) -> None:
    path = page_of(shared)
    form = {**form_of(staff, path), **new_member(mallory.user, "admin"), "memberships-0-role": "admin"}
    assert staff.post(path, form).status_code == 302
    assert set(shared.memberships.values_list("user__username", "role")) == {
        ("alice", "admin"),
        ("mallory", "admin"),
    }
    staff.post(path, {**form_of(staff, path), "memberships-0-DELETE": "on"})
    assert [m.user for m in shared.memberships.all()] == [mallory.user]


def test_nobody_joins_twice(staff: Client, shared: Workspace, alice: Caller) -> None:
    page = staff.post(page_of(shared), {**form_of(staff, page_of(shared)), **new_member(alice.user)})
    assert "This user is a member already." in page.content.decode()
    assert shared.memberships.count() == 1


def test_nobody_joins_twice_at_once(
    staff: Client, shared: Workspace, alice: Caller, mallory: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = {**form_of(staff, page_of(shared)), **new_member(mallory.user)}
    twice |= {"new_members-TOTAL_FORMS": "2", "new_members-1-user": fresh(mallory.user).pk}
    twice |= {"new_members-1-role": "admin"}
    assert "Please correct the duplicate" in staff.post(page_of(shared), twice).content.decode()
    monkeypatch.setattr(NewMemberForm, "clean", lambda form: None)  # As if alice joined after the check.
    late = {**form_of(staff, page_of(shared)), **new_member(alice.user)}
    assert "nothing was saved" in staff.post(page_of(shared), late, follow=True).content.decode()
    assert shared.memberships.count() == 1


def test_a_workspace_is_made_with_its_first_member(staff: Client, alice: Caller) -> None:
    form = form_of(staff, f"{WORKSPACES}add/")
    assert staff.post(f"{WORKSPACES}add/", {**form, "name": "New", **new_member(alice.user)}).status_code == 302
    assert Workspace.objects.get(name="New").memberships.get().user == alice.user


def test_a_personal_workspace_keeps_its_one_member(staff: Client, alice: Caller, mallory: Caller) -> None:
    personal = fresh(alice.user).personal_workspace()
    membership = personal.memberships.get()
    form = {
        **form_of(staff, page_of(personal)),
        **new_member(mallory.user),
        "new_members-INITIAL_FORMS": "0",
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "1",
        "memberships-0-id": membership.pk,
        "memberships-0-role": "member",
        "memberships-0-DELETE": "on",
    }
    assert staff.post(page_of(personal), form).status_code == 302
    assert staff.post(f"{MEMBERSHIPS}{membership.pk}/delete/", {"post": "yes"}).status_code == 403
    assert staff.post(page_of(membership), {"role": "member"}).status_code == 403
    joining = {"user": fresh(mallory.user).pk, "workspace": personal.public_id, "role": "member"}
    assert "Select a valid choice" in staff.post(f"{MEMBERSHIPS}add/", joining).content.decode()
    act(staff, MEMBERSHIPS, "delete_selected", membership)
    assert staff.post(f"{WORKSPACES}{personal.pk}/delete/", {"post": "yes"}).status_code == 403
    assert personal.memberships.get() == membership


def test_many_members_have_a_list_of_their_own(
    staff: Client, shared: Workspace, bob: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.admin.workspaces.MEMBERS_SHOWN", 1)
    page = staff.get(page_of(shared)).content.decode()
    link = f"{MEMBERSHIPS}?workspace={shared.public_id}"
    assert "memberships-0-role" not in page
    assert f'href="{link}"' in page
    assert len(staff.get(link).context["cl"].result_list) == 2


def test_a_workspace_with_sessions_is_not_deleted_and_says_why(
    staff: Client, alice: Caller, shared: Workspace
) -> None:
    new_session(alice, workspace=shared)
    for answer in (staff.get, staff.post):
        page = answer(f"{WORKSPACES}{shared.pk}/delete/", {"post": "yes"})
        assert "Sessions that are kept in it" in page.content.decode()
    assert Workspace.objects.filter(pk=shared.pk).exists()


def test_a_session_made_while_its_workspace_is_deleted_is_no_error(
    staff: Client, alice: Caller, shared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_session(alice, workspace=shared)
    monkeypatch.setattr(WorkspaceAdmin, "get_deleted_objects", lambda *_: ([], {}, set(), []))
    page = staff.post(f"{WORKSPACES}{shared.pk}/delete/", {"post": "yes"}, follow=True)
    assert "nothing was saved" in page.content.decode()
    assert Workspace.objects.filter(pk=shared.pk).exists()


def test_an_empty_shared_workspace_is_deleted(staff: Client, shared: Workspace) -> None:
    assert staff.post(f"{WORKSPACES}{shared.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Workspace.objects.filter(pk=shared.pk).exists()


def test_a_workspace_is_found_by(staff: Client, shared: Workspace, bob: Caller, mallory: Caller) -> None:
    personal = fresh(bob.user).personal_workspace()
    assert found(staff, WORKSPACES, "share") == [shared.pk]
    assert found(staff, WORKSPACES, "personal") == []
    assert found(staff, WORKSPACES, str(shared.public_id)) == [shared.pk]
    assert found(staff, WORKSPACES, "BOB@example.com") == [personal.pk, shared.pk]
    listed = staff.get(WORKSPACES, {"kind": "shared"}).context["cl"].result_list
    assert [workspace.pk for workspace in listed] == [shared.pk]
