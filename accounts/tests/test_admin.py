"""People, workspaces and tokens in the admin: who may act on whom, and what is shown once (contract 2, 6, 8)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.models import Session as Login
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import SHOWN_CHARACTERS, ApiToken, Identity, Membership, User, Workspace
from conftest import Caller, member

# What staff see is of the same code on either database; on SQLite a browser opens each page.
pytestmark = pytest.mark.postgres

USERS = "/admin/accounts/user/"
TOKENS = "/admin/accounts/apitoken/"
WORKSPACES = "/admin/accounts/workspace/"
MEMBERSHIPS = "/admin/accounts/membership/"
GROUPS = "/admin/auth/group/"
PASSWORD = "correct horse battery staple"


@pytest.fixture
def helen(db: None) -> User:
    """The help desk: staff with every permission on accounts and groups, but no superuser."""
    helen = User.objects.create_user("helen", email="helen@example.com", is_staff=True)
    apps_of_hers = ["accounts", "auth"]
    helen.user_permissions.set(Permission.objects.filter(content_type__app_label__in=apps_of_hers))
    return helen


@pytest.fixture
def desk(helen: User) -> Client:
    client = Client()
    client.force_login(helen)
    return client


def page_of(row: Any) -> str:
    return f"/admin/accounts/{row._meta.model_name}/{row.pk}/change/"


def form_of(client: Client, path: str) -> dict[str, Any]:
    """What a browser would send from a page's form, untouched."""
    context = client.get(path).context
    sent: dict[str, Any] = {}
    forms = [context["adminform"].form]
    for inline in context["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    for form in forms:
        for field in form:
            if (value := field.value()) is not None and value is not False:
                sent[field.html_name] = value
    return sent


def act(client: Client, path: str, action: str, *rows: Any) -> Any:
    sent = {"action": action, "_selected_action": [row.pk for row in rows], "index": "0"}
    return client.post(path, sent, follow=True)


def fresh(user: User | None) -> User:
    assert user is not None
    return User.objects.get(pk=user.pk)


def found(client: Client, path: str, term: str) -> list[int]:
    return [row.pk for row in client.get(path, {"q": term}).context["cl"].result_list]


# Users


def test_a_user_is_added_with_a_personal_workspace(staff: Client) -> None:
    form = {"username": "dora", "email": "dora@example.com", "usable_password": "false"}
    made = staff.post(f"{USERS}add/", form)
    dora = User.objects.get(username="dora")
    assert made.headers["Location"] == page_of(dora)
    assert Membership.objects.get(user=dora).workspace.personal_of == dora


@pytest.mark.parametrize(
    "term", [lambda u: "ALICE@example.COM", lambda u: "alice", lambda u: str(u.public_id).upper()]
)
def test_a_user_is_found_by(staff: Client, alice: Caller, mallory: Caller, term: Callable[[Any], str]) -> None:
    assert alice.user is not None
    assert found(staff, USERS, term(alice.user)) == [alice.user.pk]


@pytest.mark.parametrize("term", ["Alice", "alice@", "%", "\x00b", "9" * 5000])
def test_a_user_is_not_found_by_less(staff: Client, alice: Caller, term: str) -> None:
    assert "\x00" in term or found(staff, USERS, term) == []


def test_a_deactivated_users_token_opens_nothing(staff: Client, alice: Caller) -> None:
    assert alice.get("/api/me/").status_code == 200
    act(staff, USERS, "deactivate", alice.user)
    assert alice.get("/api/me/").status_code == 401
    assert LogEntry.objects.get().change_message == "Deactivated."
    act(staff, USERS, "activate", alice.user)
    assert alice.get("/api/me/").status_code == 200


def test_nobody_deactivates_themselves_by_the_action(staff: Client, sam: Caller, alice: Caller) -> None:
    page = act(staff, USERS, "deactivate", sam.user, alice.user)
    assert "1 deactivated. 1 left as they are" in page.content.decode()
    assert fresh(sam.user).is_active


def test_to_select_all_is_to_select_what_the_pages_offer(
    staff: Client, alice: Caller, mallory: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatstore.bounded_admin.BOUND", 1)
    sent = {
        "action": "deactivate",
        "_selected_action": [fresh(mallory.user).pk],
        "select_across": "1",
        "index": "0",
    }
    staff.post(USERS, sent)
    assert not fresh(mallory.user).is_active
    assert fresh(alice.user).is_active


def test_a_user_is_not_deleted(staff: Client, alice: Caller) -> None:
    assert alice.user is not None
    assert staff.post(f"{USERS}{alice.user.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "delete_selected" not in staff.get(USERS).content.decode()
    act(staff, USERS, "delete_selected", alice.user)
    assert fresh(alice.user)


def test_identities_are_shown_and_not_changed(staff: Client, alice: Caller) -> None:
    assert alice.user is not None
    identity = Identity.objects.create(user=alice.user, issuer="https://issuer.example", subject="s-1")
    assert "https://issuer.example" in staff.get(page_of(alice.user)).content.decode()
    form = form_of(staff, page_of(alice.user))
    forged = {"identities-0-id": identity.pk, "identities-0-subject": "s-2", "identities-0-DELETE": "on"}
    assert staff.post(page_of(alice.user), {**form, **forged, "identities-INITIAL_FORMS": "1"}).status_code == 302
    assert Identity.objects.get().subject == "s-1"


# Powers


POWERS = {"is_staff": "on", "is_superuser": "on", "groups": ["1"], "user_permissions": ["1"]}


def powers_of(user: User | None) -> tuple[bool, bool, int]:
    row = fresh(user)
    return row.is_staff, row.is_superuser, row.user_permissions.count() + row.groups.count()


@pytest.mark.parametrize("name", ["helen", "alice"])
def test_the_help_desk_gives_nobody_powers(desk: Client, alice: Caller, name: str) -> None:
    user = User.objects.get(username=name)
    before = powers_of(user)
    form = {**form_of(desk, page_of(user)), **POWERS, "name": "Renamed"}
    assert desk.post(page_of(user), form).status_code == 302
    assert fresh(user).name == "Renamed"
    assert powers_of(user) == before


def test_the_help_desk_adds_users_without_powers(desk: Client) -> None:
    form = {"username": "dora", "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    assert desk.post(f"{USERS}add/", {**form, **POWERS}).status_code == 302
    assert powers_of(User.objects.get(username="dora")) == (False, False, 0)


def powerful(how: str) -> User:
    user = User.objects.create_user("paula", is_staff=how == "staff", is_superuser=how == "superuser")
    if how == "permission":
        user.user_permissions.add(Permission.objects.get(codename="add_user"))
    if how == "group":
        user.groups.add(Group.objects.create(name="Provisioning"))
    return user


@pytest.mark.parametrize("how", ["superuser", "staff", "permission", "group"])
@pytest.mark.parametrize("active", [True, False], ids=["active", "inactive"])
def test_the_help_desk_cannot_become_somebody_with_powers(desk: Client, how: str, active: bool) -> None:
    paula = powerful(how)
    User.objects.filter(pk=paula.pk).update(is_active=active)
    before = User.objects.filter(pk=paula.pk).values().get()
    assert desk.get(page_of(paula)).status_code == 200
    assert desk.post(page_of(paula), {"username": "paula", "is_active": ""}).status_code == 403
    password = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    assert desk.post(f"{USERS}{paula.pk}/password/", password).status_code == 403
    act(desk, USERS, "deactivate" if active else "activate", paula)
    desk.post(f"{TOKENS}add/", {"user": paula.pk})
    assert User.objects.filter(pk=paula.pk).values().get() == before
    assert not paula.api_tokens.exists()


def test_the_help_desk_helps_everybody_else(desk: Client, alice: Caller) -> None:
    alice_user = fresh(alice.user)
    password = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    assert desk.post(f"{USERS}{alice_user.pk}/password/", password).status_code == 302
    assert fresh(alice_user).check_password(PASSWORD)
    act(desk, USERS, "deactivate", alice_user)
    assert not fresh(alice_user).is_active


def test_groups_are_for_superusers(desk: Client, staff: Client) -> None:
    group = Group.objects.create(name="Help desk")
    form = {"name": "Help desk", "permissions": ["1"]}
    for path in (f"{GROUPS}add/", f"{GROUPS}{group.pk}/change/", f"{GROUPS}{group.pk}/delete/"):
        assert desk.post(path, form).status_code == 403
    assert staff.post(f"{GROUPS}{group.pk}/change/", form).status_code == 302
    assert group.permissions.count() == 1


# Tokens


def issue(client: Client, user: Any, **fields: str) -> Any:
    return client.post(f"{TOKENS}add/", {"user": user.pk, "name": "laptop", **fields})


def everything_stored() -> str:
    """Every row of every table, and what the logins hold."""
    rows = [repr(row) for model in apps.get_models() for row in model._default_manager.values_list()]
    return "\n".join(rows + [repr(login.get_decoded()) for login in Login.objects.all()])


def test_a_token_is_shown_once_and_stored_nowhere(
    staff: Client, alice: Caller, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    page = issue(staff, alice.user)
    text = page.context["text"]
    assert page.status_code == 200
    secret = text[SHOWN_CHARACTERS:]  # Alone, since a page may change the case of the first letter.
    assert page.content.decode().count(secret) == 1
    assert "no-store" in page.headers["Cache-Control"]
    assert Caller(alice.user, text).get("/api/me/").json()["username"] == "alice"

    token = ApiToken.objects.get(name="laptop")
    assert LogEntry.objects.get().object_repr == str(token)
    said = capfd.readouterr()
    kept = [everything_stored(), str(staff.cookies), caplog.text, said.out, said.err]
    kept += [staff.get(path).content.decode() for path in (TOKENS, page_of(token), "/admin/")]
    assert str(token.prefix) in kept[0]
    assert not [place for place in kept if secret in place]


def test_a_token_may_expire_but_not_in_the_past(staff: Client, alice: Caller) -> None:
    def at(when: timedelta) -> Any:
        moment = timezone.now() + when
        return issue(staff, alice.user, expires_at_0=f"{moment:%Y-%m-%d}", expires_at_1=f"{moment:%H:%M:%S}")

    assert "This time is past." in at(-timedelta(hours=1)).content.decode()
    text = at(timedelta(hours=1)).context["text"]
    assert Caller(alice.user, text).get("/api/me/").status_code == 200


def test_nobody_deactivated_gets_a_token(staff: Client, alice: Caller) -> None:
    User.objects.filter(pk=fresh(alice.user).pk).update(is_active=False)
    assert "Select a valid choice" in issue(staff, alice.user).content.decode()
    assert not ApiToken.objects.filter(name="laptop").exists()


def test_a_token_does_not_change_and_is_not_deleted(staff: Client, alice: Caller) -> None:
    token = ApiToken.objects.get(user=alice.user)
    assert staff.get(page_of(token)).status_code == 200
    assert staff.post(page_of(token), {"name": "changed"}).status_code == 403
    assert staff.post(f"{TOKENS}{token.pk}/delete/", {"post": "yes"}).status_code == 403
    assert alice.get("/api/me/").status_code == 200


def test_a_revoked_token_opens_nothing(staff: Client, alice: Caller) -> None:
    token = ApiToken.objects.get(user=alice.user)
    act(staff, TOKENS, "revoke", token)
    assert alice.get("/api/me/").status_code == 401
    revoked_at = ApiToken.objects.get(pk=token.pk).revoked_at
    act(staff, TOKENS, "revoke", token)
    assert ApiToken.objects.get(pk=token.pk).revoked_at == revoked_at
    assert LogEntry.objects.count() == 1


def test_who_only_views_tokens_neither_issues_nor_revokes(alice: Caller) -> None:
    viewer = User.objects.create_user("vera", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename="view_apitoken"))
    client = Client()
    client.force_login(viewer)
    assert len(found(client, TOKENS, "alice")) == 1
    assert issue(client, alice.user).status_code == 403
    act(client, TOKENS, "revoke", ApiToken.objects.get(user=alice.user))
    assert alice.get("/api/me/").status_code == 200


# The cost, and nonsense


def crowd(shared: Workspace, alice: Caller, size: int) -> None:
    """More of everything: users and workspaces, members of one, tokens and identities of another, groups."""
    for _ in range(size):
        name = f"extra{User.objects.count()}"
        member(shared, name)
        ApiToken.objects.issue(alice.user)
        Identity.objects.create(user=fresh(alice.user), issuer="i", subject=name)
        Group.objects.create(name=name)


@pytest.mark.parametrize(
    "path",
    [
        USERS,
        f"{USERS}?q=alice",
        f"{USERS}{{alice}}/change/",
        WORKSPACES,
        f"{WORKSPACES}?q=alice",
        f"{WORKSPACES}{{shared}}/change/",
        MEMBERSHIPS,
        f"{MEMBERSHIPS}?workspace={{uuid}}",
        TOKENS,
        f"{TOKENS}?q=alice",
        f"{TOKENS}{{token}}/change/",
        f"{TOKENS}add/",
        GROUPS,
        "/admin/",
        "/admin/autocomplete/?app_label=accounts&model_name=apitoken&field_name=user",
    ],
)
@pytest.mark.parametrize("who", ["staff", "desk"])
def test_a_page_costs_the_same_for_one_row_and_for_fifty(
    request: pytest.FixtureRequest, alice: Caller, shared: Workspace, path: str, who: str
) -> None:
    client: Client = request.getfixturevalue(who)
    token = ApiToken.objects.get(user=alice.user)
    keys = {"alice": fresh(alice.user).pk, "shared": shared.pk, "uuid": shared.public_id, "token": token.pk}
    path = path.format(**keys)
    crowd(shared, alice, 1)
    client.get(path)  # Content types are remembered from the first page on.
    one = statements(client, path)
    crowd(shared, alice, 49)
    fifty = statements(client, path)
    assert len(one) == len(fifty) <= 12
    assert all("LIMIT" in sql for sql in fifty if sql.startswith("SELECT COUNT("))


def statements(client: Client, path: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200
    return [query["sql"] for query in captured.captured_queries]


@pytest.mark.parametrize("path", [USERS, WORKSPACES, MEMBERSHIPS, TOKENS, GROUPS])
@pytest.mark.parametrize(
    ("query", "statuses"),
    [
        ("q=%00", {200}),
        ("q=99999999999999999999", {200}),
        ("p=-1", {200, 302}),
        ("o=zz.1", {200}),
        ("e=1", {200}),
        ("id=abc", {400}),
        ("password__startswith=pbkdf2", {400}),
        ("user__password__startswith=pbkdf2", {400}),
        ("digest=1", {400}),
        ("workspace=abc", {400}),
        ("kind=abc", {400}),
    ],
)
def test_nonsense_in_the_query_is_no_error(staff: Client, path: str, query: str, statuses: set[int]) -> None:
    assert staff.get(f"{path}?{query}").status_code in statuses


@pytest.mark.parametrize("term", ["%00", "alice", "9" * 5000])
def test_a_field_is_completed_whatever_is_typed(staff: Client, alice: Caller, term: str) -> None:
    of = "app_label=accounts&model_name=apitoken&field_name=user"
    answer = staff.get(f"/admin/autocomplete/?{of}&term={term}")
    assert [shown["text"] for shown in answer.json()["results"]] == (["alice"] if term == "alice" else [])
