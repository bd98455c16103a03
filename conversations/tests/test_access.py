"""What staff may do with conversations, by group; what is refused; and the log that keeps it."""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.management import _get_all_permissions  # type: ignore[attr-defined]
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db import ProgrammingError, connection, transaction
from django.db.models import Model
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from chatstore.environment import BASE_DIR
from chatstore.tests.test_docs import blocks
from conftest import Caller, new_message, new_session
from conversations import retention, services
from conversations.chat import records
from conversations.models import AccessRecord, Message, Session, Turn
from conversations.staff import access
from conversations.tests.chat_clients import configure
from conversations.tests.planting import Planting, everything

SESSIONS = "/admin/conversations/session/"
MESSAGES = "/admin/conversations/message/"
LOG = "/admin/conversations/accessrecord/"
# What requests of staff may write: the log, and their own login.
WRITTEN = {"conversations.AccessRecord", "sessions.Session"}
POWERS = ("restore", "trash", "settle")

staff_groups: Any = importlib.import_module("conversations.migrations.0004_staff_groups")
HERE: Any = SimpleNamespace(connection=connection)

SUPPORT = {"view_session", "view_message"}
OPERATIONS = SUPPORT | {"restore_session", "trash_session", "export_session", "settle_turn"}
ADMINISTRATORS = OPERATIONS | {
    "view_user", "add_user", "change_user", "view_identity", "view_servicetoken", "view_accessrecord",
    "view_apitoken", "add_apitoken", "change_apitoken",
    *(f"{may}_{what}" for may in ("view", "add", "change", "delete") for what in ("workspace", "membership")),
}  # fmt: skip
GROUPS = {"Support": SUPPORT, "Operations": OPERATIONS, "Administrators": ADMINISTRATORS}


@pytest.fixture
def groups(db: None) -> None:
    """A test that empties the tables takes the groups of the migration along."""
    staff_groups.give(apps, HERE)


def of_group(name: str) -> Client:
    user = User.objects.create_user(name.lower(), is_staff=True)
    user.groups.add(Group.objects.get(name=name))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def support(groups: None) -> Client:
    return of_group("Support")


@pytest.fixture
def operations(groups: None) -> Client:
    return of_group("Operations")


@pytest.fixture
def administrator(groups: None) -> Client:
    return of_group("Administrators")


def chosen(client: Client, action: str, *sessions: Session, **more: str) -> Any:
    form = {"action": action, "_selected_action": [session.pk for session in sessions], "index": "0"}
    return client.post(SESSIONS, form | more)


def logged(*fields: str) -> list[Any]:
    rows = AccessRecord.objects.order_by("pk").values_list(*fields, flat=len(fields) == 1)
    return list(rows)


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


def said_in(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    lines: list[Any] = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [line for line in lines if line["event"] == event]


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


# The log


def test_a_record_says_who_what_and_from_where(operations: Client, session: Session, settings: Settings) -> None:
    configure(settings, num_proxies=1)
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    message = new_message(session, "secret words")
    operations.get(f"{MESSAGES}{message.pk}/change/", headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.7"})
    user = User.objects.get(username="operations")
    found = AccessRecord.objects.get()
    assert (found.user, found.user_public_id, found.action) == (user, user.public_id, "view")
    assert (found.session_id, found.session_uuid) == (session.pk, session.session_id)
    assert (found.detail, found.address, found.reason) == (f"message {message.pk}", "192.0.2.7", "")
    assert abs(found.created_at - timezone.now()) < timedelta(minutes=1)


def test_a_detail_is_cut(operations: Client, session: Session, rf: Any) -> None:
    request = rf.get("/")
    request.user = User.objects.get(username="operations")
    request.session = {}
    access.record(request, "search", detail="x" * 300)
    assert (logged("detail"), logged("session_id")) == (["x" * 255], [None])


def test_an_unknown_action_is_an_error(operations: Client, rf: Any) -> None:
    request = rf.get("/")
    request.user, request.session = User.objects.get(username="operations"), {}
    with pytest.raises(ValueError, match="dance"):
        access.record(request, "dance")


def test_a_purge_leaves_the_log_alone(operations: Client, session: Session) -> None:
    operations.get(f"{SESSIONS}{session.pk}/change/")
    operations.post(f"{SESSIONS}{session.pk}/trash/")
    before = logged("pk", "session_id", "session_uuid")
    retention.purge(timezone.now() + timedelta(days=1), lambda _: None)
    assert not Session.objects.exists()
    assert logged("pk", "session_id", "session_uuid") == before
    assert len(before) == 2


def test_a_person_who_is_erased_stays_in_the_log_by_public_id(
    administrator: Client, operations: Client, session: Session
) -> None:
    operations.get(f"{SESSIONS}{session.pk}/change/")
    user = User.objects.get(username="operations")
    call_command("eraseuser", str(user.pk), "--no-input")
    assert logged("user", "user_public_id") == [(None, user.public_id)]
    page = administrator.get(LOG, {"q": str(user.public_id)}).content.decode()
    assert f"{user.public_id} (erased)" in page


def keys(answer: Any) -> list[int]:
    assert answer.status_code == 200
    return [row.pk for row in answer.context["cl"].result_list]


def test_it_is_found_by_person_session_and_action(
    administrator: Client, operations: Client, alice: Caller
) -> None:
    mine, other = new_session(alice), new_session(alice)
    operations.get(f"{SESSIONS}{mine.pk}/change/")
    administrator.get(f"{SESSIONS}{other.pk}/change/")
    operations.post(f"{SESSIONS}{other.pk}/trash/")
    first, second, third = logged("pk")
    olga = User.objects.get(username="operations")
    assert keys(administrator.get(LOG)) == [third, second, first]
    assert keys(administrator.get(LOG, {"user_public_id": str(olga.public_id).upper()})) == [third, first]
    assert keys(administrator.get(LOG, {"session_id": mine.pk})) == [first]
    assert keys(administrator.get(LOG, {"action": "trash"})) == [third]
    assert keys(administrator.get(LOG, {"q": "operations"})) == [third, first]
    assert keys(administrator.get(LOG, {"q": str(other.session_id)})) == [third, second]
    assert keys(administrator.get(LOG, {"q": str(mine.pk)})) == [first]
    for wrong in ({"action": "dance"}, {"session_id": "x"}, {"user_public_id": "1"}, {"address": "1"}):
        assert administrator.get(LOG, wrong).status_code == 400


def test_it_is_for_administrators_alone(
    support: Client, operations: Client, administrator: Client, session: Session
) -> None:
    support.get(f"{SESSIONS}{session.pk}/change/")
    path = f"{LOG}{logged('pk')[0]}/change/"
    for client, status in ((support, 403), (operations, 403), (administrator, 200)):
        assert [client.get(page).status_code for page in (LOG, path)] == [status, status]


def test_nobody_changes_it_superusers_too(staff: Client, session: Session) -> None:
    staff.get(f"{SESSIONS}{session.pk}/change/")
    before = list(AccessRecord.objects.values())
    pk = before[0]["id"]
    for path in ("add/", f"{pk}/change/", f"{pk}/delete/"):
        assert staff.post(f"{LOG}{path}", {"reason": "another", "post": "yes"}).status_code == 403
    staff.post(LOG, {"action": "delete_selected", "_selected_action": [pk], "index": "0", "post": "yes"})
    assert list(AccessRecord.objects.values()) == before


@pytest.mark.once
def test_the_product_writes_records_in_one_place() -> None:
    """And nowhere saves, updates or deletes one."""
    writers = {
        str(path.relative_to(BASE_DIR))
        for room in ("chatstore", "accounts", "conversations")
        for path in (BASE_DIR / room).rglob("*.py")
        if not {"tests", "migrations", "node_modules"} & set(path.parts)
        and re.search(r"AccessRecord(\(|\.(_\w+|objects)\b)", path.read_text())
    }
    assert writers == {"conversations/models.py", "conversations/staff/access.py"}
    tree = ast.parse((BASE_DIR / "conversations/staff/access.py").read_text())
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"update", "delete", "bulk_update"} & {getattr(call, "attr", "") for call in calls}


# Why


@pytest.fixture
def asking(settings: Settings) -> None:
    configure(settings, access_reason_required=True)


def places(message: Message) -> list[str]:
    session = message.session
    return [
        f"{SESSIONS}{session.pk}/transcript/?from=1",
        f"{SESSIONS}{session.pk}/export/md/",
        f"{MESSAGES}{message.pk}/change/",
    ]


@pytest.fixture
def message(session: Session) -> Message:
    return new_message(session, "Xylophone")


def body(answer: Any) -> str:
    return (b"".join(answer.streaming_content) if answer.streaming else answer.content).decode()


@pytest.mark.parametrize("place", [0, 1, 2], ids=["transcript", "export", "message"])
def test_a_reason_is_asked_for_and_kept(operations: Client, asking: None, message: Message, place: int) -> None:
    path = places(message)[place]
    page = body(operations.get(path))
    assert "Xylophone" not in page
    assert 'name="reason"' in page
    assert logged("pk") == []
    url = f"{SESSIONS}{message.session.pk}/reason/"
    assert f'action="{url}"' in page
    answer = operations.post(url, {"reason": " Ticket 17 ", "next": path})
    assert answer["Location"] == path
    assert "Xylophone" in body(operations.get(path))
    assert logged("reason") == ["Ticket 17"]


def test_no_reason_is_asked_for_otherwise(operations: Client, message: Message) -> None:
    for path in places(message):
        assert "Xylophone" in body(operations.get(path))
    assert logged("action") == ["transcript", "export", "view"]


def test_a_reason_counts_for_one_session_one_login_and_an_hour(
    operations: Client,
    support: Client,
    asking: None,
    alice: Caller,
    message: Message,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, other = places(message)[2], places(new_message(new_session(alice), "Xylophone"))[2]
    operations.post(f"{SESSIONS}{message.session.pk}/reason/", {"reason": "Ticket 17", "next": path})
    assert "Xylophone" in body(operations.get(path))
    assert "Xylophone" not in body(operations.get(other))
    assert "Xylophone" not in body(support.get(path))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3_601)
    assert "Xylophone" not in body(operations.get(path))


@pytest.mark.parametrize("reason", ["", "   ", "x" * 256, "two\nlines", "a\x00b"])
def test_a_reason_that_is_none_opens_nothing(
    operations: Client, asking: None, message: Message, reason: str
) -> None:
    path = places(message)[2]
    answer = operations.post(f"{SESSIONS}{message.session.pk}/reason/", {"reason": reason, "next": path})
    assert answer.status_code == 200
    assert "Xylophone" not in body(operations.get(path))


@pytest.mark.parametrize(
    "back", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "\\\\evil", ""]
)
def test_nobody_is_led_elsewhere(operations: Client, session: Session, back: str) -> None:
    answer = operations.post(f"{SESSIONS}{session.pk}/reason/", {"reason": "x", "next": back})
    assert answer["Location"] == f"{SESSIONS}{session.pk}/change/"


def test_a_reason_in_a_url_counts_for_nothing(operations: Client, asking: None, message: Message) -> None:
    assert "Xylophone" not in body(operations.get(f"{places(message)[1]}?reason=Ticket"))


def test_an_export_from_the_list_asks_each_time(operations: Client, asking: None, message: Message) -> None:
    page = body(chosen(operations, "export_jsonl", message.session))
    assert 'name="reason"' in page
    sent = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page))
    sent.pop("csrfmiddlewaretoken", None)
    assert sent == {"action": "export_jsonl", "_selected_action": str(message.session.pk), "index": "0"}
    assert "Xylophone" in body(operations.post(SESSIONS, sent | {"reason": "Ticket 18"}))
    assert logged("action", "reason", "detail") == [("export", "Ticket 18", "jsonl")]
    assert 'name="reason"' in body(chosen(operations, "export_jsonl", message.session))


# What the database sees to (docs/admin.md)


@pytest.fixture
def web(db: None) -> Iterator[None]:
    """The statements of the page as they stand; then the rest of the test is the service's role."""
    (block,) = blocks("docs/admin.md", "sql")
    with connection.cursor() as cursor:
        cursor.execute(block)
        cursor.execute("SET ROLE chatstore_web")
        yield
        cursor.execute("RESET ROLE")


@pytest.mark.postgres
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET reason = 'x'",
        "UPDATE {} SET user_public_id = gen_random_uuid()",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DROP TABLE {}",
        "ALTER TABLE {} ADD COLUMN x int",
    ],
)
def test_the_service_cannot_change_the_log(
    operations: Client, session: Session, web: None, statement: str
) -> None:
    operations.get(f"{SESSIONS}{session.pk}/change/")
    before = list(AccessRecord.objects.values())
    assert len(before) == 1
    with pytest.raises(ProgrammingError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement.format("conversations_accessrecord"))
    assert list(AccessRecord.objects.values()) == before


@pytest.mark.postgres
def test_the_service_does_all_else(operations: Client, alice: Caller, session: Session, web: None) -> None:
    new_message(session)
    assert operations.post(f"{SESSIONS}{session.pk}/trash/").status_code == 302
    retention.purge(timezone.now() + timedelta(days=1), lambda _: None)
    User.objects.create_superuser("root")
    user = User.objects.get(username="operations")
    call_command("eraseuser", str(user.pk), "--no-input")
    assert logged("user", "user_public_id", "action") == [(None, user.public_id, "trash")]


@pytest.fixture
def full(web: None) -> None:
    """The log takes no more records."""
    with connection.cursor() as cursor:
        cursor.execute("RESET ROLE")
        cursor.execute("REVOKE INSERT ON conversations_accessrecord FROM chatstore_web")
        cursor.execute("SET ROLE chatstore_web")


@pytest.mark.postgres
def test_what_cannot_be_recorded_is_not_done(operations: Client, session: Session, full: None) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        operations.post(f"{SESSIONS}{session.pk}/trash/")
    assert Session.objects.live().exists()


@pytest.mark.postgres
@pytest.mark.parametrize("place", [0, 1, 2], ids=["transcript", "export", "message"])
def test_what_cannot_be_recorded_is_not_shown(
    operations: Client, message: Message, full: None, place: int
) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        operations.get(places(message)[place])


@pytest.mark.postgres
def test_an_owner_keeps_its_rights(operations: Client, session: Session, db: None) -> None:
    """Why the page asks for a role of its own."""
    operations.get(f"{SESSIONS}{session.pk}/change/")
    with connection.cursor() as cursor:
        cursor.execute("REVOKE UPDATE, DELETE, TRUNCATE ON conversations_accessrecord FROM PUBLIC")
        cursor.execute("UPDATE conversations_accessrecord SET reason = 'x'")
        assert cursor.rowcount == 1
