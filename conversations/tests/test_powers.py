"""What staff may do with conversations, by group, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.management import _get_all_permissions  # type: ignore[attr-defined]
from django.contrib.auth.models import Group, Permission
from django.db import OperationalError, connection
from django.db.models import Model
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from conftest import Caller, new_session
from conversations import services
from conversations.chat import records
from conversations.models import AccessRecord, Message, Session, Turn
from conversations.staff import powers as staff_powers
from conversations.tests import turns
from conversations.tests.chat_clients import configure
from conversations.tests.colleagues import FIND, HERE, SESSIONS, chosen, logged, of_group, said_in, staff_groups
from conversations.tests.planting import Planting, everything

# What requests of staff may write: the log, and their own login.
WRITTEN = {"conversations.AccessRecord", "sessions.Session"}
POWERS = ("restore", "trash", "settle")

SUPPORT = {"view_session", "view_message"}
OPERATIONS = SUPPORT | {"restore_session", "trash_session", "export_session", "settle_turn"}
ADMINISTRATORS = OPERATIONS | {
    "view_user", "add_user", "change_user", "view_identity", "view_servicetoken", "view_accessrecord",
    "view_apitoken", "add_apitoken", "change_apitoken",
    *(f"{may}_{what}" for may in ("view", "add", "change", "delete") for what in ("workspace", "membership")),
}  # fmt: skip
GROUPS = {"Support": SUPPORT, "Operations": OPERATIONS, "Administrators": ADMINISTRATORS}


def lose_turn(session: Session) -> Turn:
    turn = records.begin(session, "Hello", "here", None).turn
    records.add_row(turn, role="assistant", content="Well")
    Turn.objects.filter(pk=turn.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    return turn


# Groups


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_may(groups: None, name: str) -> None:
    given = Group.objects.get(name=name).permissions.values_list("codename", "content_type__app_label")
    assert {codename for codename, _ in given} == GROUPS[name]
    assert {label for _, label in given} <= {"accounts", "conversations"}  # Django has a view_session, too.


def test_the_permissions_are_those_that_django_makes(groups: None) -> None:
    for powers in (staff_groups.SUPPORT, staff_groups.OPERATIONS, staff_groups.ADMINISTRATORS):
        for (app_label, model), names in powers.items():
            made = dict(_get_all_permissions(apps.get_model(app_label, model)._meta))
            assert names.items() <= made.items()


def test_the_migration_makes_what_it_needs_itself(groups: None) -> None:
    Group.objects.all().delete()
    Permission.objects.all().delete()
    staff_groups.give(apps, HERE)
    assert Permission.objects.count() == len(ADMINISTRATORS)
    assert Group.objects.get(name="Operations").permissions.count() == len(OPERATIONS)


def test_a_second_time_nothing_is_lost_and_nothing_added(groups: None) -> None:
    Group.objects.get(name="Support").permissions.add(Permission.objects.get(codename="view_user"))
    User.objects.create_user("vera").groups.add(Group.objects.get(name="Support"))
    before = everything()
    staff_groups.give(apps, HERE)
    assert everything() == before


def test_a_group_that_an_operator_had_keeps_what_it_has(db: None) -> None:
    Group.objects.all().delete()
    theirs = Group.objects.create(name="Support")
    theirs.permissions.add(Permission.objects.get(codename="add_group"))
    staff_groups.give(apps, HERE)
    assert set(theirs.permissions.values_list("codename", flat=True)) == SUPPORT | {"add_group"}


def test_going_back_takes_only_what_nobody_has_touched(groups: None) -> None:
    Group.objects.get(name="Support").permissions.add(Permission.objects.get(codename="view_user"))
    User.objects.create_user("olga").groups.add(Group.objects.get(name="Operations"))
    staff_groups.take_back(apps, HERE)
    assert set(Group.objects.values_list("name", flat=True)) == {"Support", "Operations"}
    assert User.objects.filter(groups__name="Operations").exists()


# What Support may not


def paths_of(planted: dict[type[Model], Model]) -> Iterator[str]:
    """Every URL of the admin, with the key of a row that is there."""
    for pattern in admin.site.get_urls():
        if isinstance(pattern, URLPattern) and pattern.name not in ("logout", None):
            yield filled(f"/admin/{pattern.pattern}", "1")
    yield from ("/admin/accounts/", "/admin/conversations/", "/admin/auth/")
    for model, model_admin in admin.site._registry.items():
        key = planted[model].pk if model in planted else model._default_manager.all()[0].pk
        for pattern in model_admin.get_urls():
            yield filled(f"/admin/{model._meta.label_lower.replace('.', '/')}/{pattern.pattern}", str(key))


def filled(route: str, key: str) -> str:
    named = route.replace("<slug:form>", "jsonl").replace("<int:content_type_id>", "1")
    return re.sub(r"<[^>]+>", key, named)


def snapshot() -> dict[str, Any]:
    """Every row but those that may be written; on PostgreSQL also which transaction wrote each version of it."""
    found: dict[str, Any] = {label: rows for label, rows in everything().items() if label not in WRITTEN}
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for model in apps.get_models(include_auto_created=True):
                if model._meta.label in found:
                    cursor.execute(f'SELECT ctid::text, xmin::text FROM "{model._meta.db_table}" ORDER BY 1')
                    found[f"{model._meta.label} rows"] = cursor.fetchall()
    return found


def hand_made(key: str) -> dict[str, str]:
    """What every form of the admin might ask for."""
    return {
        "title": "Changed", "content": "Changed", "username": "changed", "name": "Changed", "email": "c@d.ef",
        "password1": "a-Long-Passw0rd", "password2": "a-Long-Passw0rd", "usable_password": "true", "user": key,
        "role": "admin", "is_staff": "on", "is_superuser": "on", "post": "yes", "_save": "Save", "next": SESSIONS,
        "scope": "read write", "reason": "a reason", "memberships-TOTAL_FORMS": "0",
        "memberships-INITIAL_FORMS": "0", "new_members-TOTAL_FORMS": "0", "new_members-INITIAL_FORMS": "0",
    }  # fmt: skip


def test_support_writes_nothing_anywhere(support: Client, alice: Caller, caplog: pytest.LogCaptureFixture) -> None:
    planted = Planting(alice.user).rows
    paths = sorted(set(paths_of(planted)))
    assert f"{SESSIONS}{planted[Session].pk}/restore/" in paths
    assert len(paths) > 50
    before = snapshot()
    refused = []
    for path in paths:
        for method in ("get", "post"):
            form = hand_made(str(planted[User].pk)) if method == "post" else {}
            answer = getattr(support, method)(path, form)
            assert answer.status_code in (200, 302, 403, 404, 405), path
            refused += [path] * (answer.status_code == 403)
    assert snapshot() == before
    assert len(refused) > 50
    assert refused == [said["path"] for said in said_in(caplog, "request") if said["status"] == 403]


def test_support_may_use_no_action_of_any_list(
    support: Client, alice: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    planted = Planting(alice.user).rows
    before = snapshot()
    for model in (Session, Message):
        path = f"/admin/{model._meta.label_lower.replace('.', '/')}/"
        model_admin = admin.site.get_model_admin(model)
        actions = {name for _, name, _ in model_admin._get_base_actions()} | set(POWERS)  # type: ignore[attr-defined]
        for action in sorted(actions):
            for form in ({"index": "0"}, {"index": "0", "select_across": "1"}, {}):
                said = {"action": action, "_selected_action": [planted[model].pk], "post": "yes", **form}
                assert support.post(path, said).status_code == 403, action
    assert snapshot() == before
    user = str(User.objects.get(username="support").public_id)
    assert {line["user"] for line in said_in(caplog, "refused")} == {user}
    assert {*POWERS, "export_csv"} <= {line["action"] for line in said_in(caplog, "refused")}
    assert not AccessRecord.objects.exclude(pk=planted[AccessRecord].pk).exists()


def test_a_refused_transcript_and_a_refused_search_leave_a_line_in_the_log(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_session"))
    client = Client()
    client.force_login(user)
    for path in (f"{SESSIONS}{session.pk}/transcript/", f"{FIND}?q=session+{session.pk}"):
        assert client.get(path).status_code == 403
    assert [(line["user"], line["action"]) for line in said_in(caplog, "refused")] == [
        (str(user.public_id), "transcript"),
        (str(user.public_id), "search"),
    ]
    assert logged("action") == []


def test_support_is_refused_each_power_with_a_line_in_the_log(
    support: Client, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    for power in POWERS:
        assert support.post(f"{SESSIONS}{session.pk}/{power}/").status_code == 403
        assert support.get(f"{SESSIONS}{session.pk}/{power}/").status_code == 403
    assert support.get(f"{SESSIONS}{session.pk}/export/jsonl/").status_code == 403
    assert [line["action"] for line in said_in(caplog, "refused")] == [
        *[p for p in POWERS for _ in "12"],
        "export",
    ]


def test_support_sees_no_button(support: Client, session: Session) -> None:
    lose_turn(session)
    page = support.get(f"{SESSIONS}{session.pk}/change/").content.decode()
    assert "formaction" not in page
    assert "/export/" not in page
    assert 'name="action"' not in support.get(SESSIONS).content.decode()


def test_a_power_without_the_right_to_look_is_none(session: Session) -> None:
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=OPERATIONS - SUPPORT))
    client = Client()
    client.force_login(user)
    for power in POWERS:
        assert client.post(f"{SESSIONS}{session.pk}/{power}/").status_code == 403
    assert client.get(f"{SESSIONS}{session.pk}/export/jsonl/").status_code == 403
    user.user_permissions.add(*Permission.objects.filter(codename="view_session"))
    assert client.get(f"{SESSIONS}{session.pk}/export/jsonl/").status_code == 403  # It may not view messages.


@pytest.mark.parametrize("codename", ["restore_session", "trash_session", "settle_turn", "export_session"])
def test_each_power_has_a_permission_of_its_own(session: Session, codename: str) -> None:
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=SUPPORT | {codename}))
    client = Client()
    client.force_login(user)
    own = codename.partition("_")[0]
    answers = {power: client.post(f"{SESSIONS}{session.pk}/{power}/").status_code for power in POWERS}
    answers["export"] = client.get(f"{SESSIONS}{session.pk}/export/jsonl/").status_code
    assert {power for power, status in answers.items() if status != 403} == {own}


# What Operations do


def test_they_trash_and_restore(operations: Client, session: Session) -> None:
    page = operations.get(f"{SESSIONS}{session.pk}/change/").content.decode()
    assert f'formaction="{SESSIONS}{session.pk}/trash/"' in page
    assert "/restore/" not in page
    answer = operations.post(f"{SESSIONS}{session.pk}/trash/", follow=True)
    assert "1 moved to trash." in answer.content.decode()
    assert Session.objects.deleted().get() == session
    assert f'formaction="{SESSIONS}{session.pk}/restore/"' in answer.content.decode()
    operations.post(f"{SESSIONS}{session.pk}/restore/")
    assert Session.objects.live().get() == session
    assert [action for action in logged("action") if action != "view"] == ["trash", "restore"]


def test_they_settle_a_lost_turn(operations: Client, session: Session) -> None:
    turn = lose_turn(session)
    page = operations.get(f"{SESSIONS}{session.pk}/change/").content.decode()
    assert f'formaction="{SESSIONS}{session.pk}/settle/"' in page
    operations.post(f"{SESSIONS}{session.pk}/settle/")
    turn.refresh_from_db()
    assert (turn.status, Message.objects.get(role="assistant").status) == ("interrupted", "interrupted")
    assert logged("action")[-1] == "settle"


def test_a_turn_that_runs_is_not_settled(operations: Client, session: Session) -> None:
    turn = records.begin(session, "Hello", "here", None).turn
    assert "/settle/" not in operations.get(f"{SESSIONS}{session.pk}/change/").content.decode()
    operations.post(f"{SESSIONS}{session.pk}/settle/")
    turn.refresh_from_db()
    assert (turn.status, "settle" in logged("action")) == ("running", False)


def test_they_do_it_to_many(operations: Client, alice: Caller) -> None:
    sessions = [new_session(alice) for _ in range(3)]
    services.trash_session(sessions[0])
    answer = chosen(operations, "trash", *sessions[:2])
    assert answer.status_code == 302
    assert "1 moved to trash. There was nothing to do for the others." in operations.get(SESSIONS).content.decode()
    assert logged("action", "session_id", "session_uuid") == [("trash", sessions[1].pk, sessions[1].session_id)]
    chosen(operations, "restore", *sessions)
    assert Session.objects.live().count() == 3


@pytest.mark.parametrize("power", POWERS)
def test_a_link_alone_does_nothing(operations: Client, session: Session, power: str) -> None:
    before = snapshot()
    assert operations.get(f"{SESSIONS}{session.pk}/{power}/").status_code == 405
    assert operations.post(f"{SESSIONS}{10**15}/{power}/").status_code == 404
    assert (snapshot(), logged("pk")) == (before, [])


def test_a_form_of_another_site_does_nothing(groups: None, session: Session) -> None:
    of_group("Operations")
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="operations"))
    assert client.post(f"{SESSIONS}{session.pk}/trash/").status_code == 403
    assert Session.objects.live().exists()


def test_a_quota_is_in_the_way_of_a_restore(operations: Client, alice: Caller, settings: Settings) -> None:
    session = new_session(alice)
    services.trash_session(session)
    new_session(alice)
    configure(settings, max_sessions_per_user=1)
    page = operations.post(f"{SESSIONS}{session.pk}/restore/", follow=True).content.decode()
    assert "0 restored. Some would be more live sessions" in page
    assert Session.objects.deleted().get() == session
    assert "restore" not in logged("action")


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_session_that_somebody_holds_is_told(operations: Client, alice: Caller) -> None:
    """One that is held for longer than a lock is waited for. The others are done."""
    free, busy = new_session(alice), new_session(alice)
    with turns.locked_elsewhere(Session.objects.filter(pk=busy.pk)), connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '100ms'")
        try:
            answers = [
                chosen(operations, "trash", busy, free),
                operations.post(f"{SESSIONS}{busy.pk}/trash/"),
            ]
        finally:
            cursor.execute("RESET lock_timeout")
    assert [answer.status_code for answer in answers] == [302, 302]
    page = operations.get(SESSIONS).content.decode()
    assert "1 moved to trash. Some could not be done now; try again." in page
    assert "0 moved to trash. Some could not be done now; try again." in page
    assert Session.objects.live().get() == busy
    assert logged("action", "session_id") == [("trash", free.pk)]


@pytest.mark.parametrize("why", ["deadlock detected", "canceling statement", "database is locked"])
def test_where_the_database_fails_for_one_the_others_are_done(
    operations: Client, alice: Caller, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    free, unlucky = new_session(alice), new_session(alice)

    def failing(session: Session) -> None:
        trash(session)
        if session.pk == unlucky.pk:
            raise OperationalError(why)

    trash = services.trash_session
    monkeypatch.setattr(services, "trash_session", failing)
    chosen(operations, "trash", unlucky, free)
    assert "1 moved to trash. Some could not be done now; try again." in operations.get(SESSIONS).content.decode()
    assert Session.objects.live().get() == unlucky
    assert logged("action", "session_id") == [("trash", free.pk)]


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("across", ["0", "1"])
def test_of_many_sessions_no_more_than_the_keys_is_loaded(
    operations: Client, session: Session, monkeypatch: pytest.MonkeyPatch, power: str, across: str
) -> None:
    loaded: list[set[str]] = []

    def seen(request: Any, power: str, session: Session) -> str:
        loaded.append({field.attname for field in Session._meta.concrete_fields} - session.get_deferred_fields())
        return ""

    monkeypatch.setattr(staff_powers, "outcome", seen)
    chosen(operations, power, session, select_across=across)
    assert loaded == [{"id", "session_id"}]
