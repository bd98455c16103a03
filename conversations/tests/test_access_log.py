"""The log of what staff do: what a record holds, who sees it, and that nobody changes it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connection, transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from chatstore.environment import BASE_DIR
from chatstore.tests.test_docs import blocks
from conftest import Caller, new_message, new_session
from conversations import retention
from conversations.models import AccessRecord, Message, Session
from conversations.staff import access
from conversations.tests.chat_clients import configure
from conversations.tests.colleagues import FIND, MESSAGES, SESSIONS, logged, places

LOG = "/admin/conversations/accessrecord/"


@pytest.fixture
def message(session: Session) -> Message:
    return new_message(session, "Xylophone")


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
    assert keys(administrator.get(LOG, {"action__exact": "trash"})) == [third]
    assert keys(administrator.get(LOG, {"q": "operations"})) == [third, first]
    assert keys(administrator.get(LOG, {"q": str(other.session_id)})) == [third, second]
    assert keys(administrator.get(LOG, {"q": str(mine.pk)})) == [first]
    for wrong in ({"action__exact": "dance"}, {"session_id": "x"}, {"user_public_id": "1"}, {"address": "1"}):
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


# The searches of the lists


@pytest.mark.parametrize(("path", "rows"), [(SESSIONS, "sessions"), (MESSAGES, "messages")])
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"q": " alice@example.com "}, ["alice@example.com"]),
        ({"q": "nothing"}, ["nothing"]),
        ({"q": "a\u202eb"}, ["a b"]),
        ({"q": "x" * 300}, ["x" * 200]),
        ({"q": " "}, []),
        ({}, []),
        ({"deleted": "yes"}, []),
    ],
)
def test_a_search_of_a_list_is_recorded(
    operations: Client, message: Message, path: str, rows: str, query: dict[str, str], said: list[str]
) -> None:
    operations.get(path, query)
    assert logged("action", "detail", "session_id") == [("search", f"{rows}: {term}", None) for term in said]


def test_an_action_on_what_was_searched_records_the_search_once(operations: Client, session: Session) -> None:
    form = {"action": "trash", "_selected_action": [session.pk], "index": "0", "select_across": "1"}
    operations.post(f"{SESSIONS}?q={session.pk}", form)
    assert sorted(logged("action")) == ["search", "trash"]


def test_a_refused_search_of_a_list_is_none(session: Session) -> None:
    client = Client()
    client.force_login(User.objects.create_user("norma", is_staff=True))
    assert client.get(SESSIONS, {"q": "alice"}).status_code == 403
    assert logged("action") == []


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
@pytest.mark.parametrize("place", range(6), ids=["transcript", "export", "message", "session", "search", "list"])
def test_what_cannot_be_recorded_is_not_shown(
    operations: Client, message: Message, full: None, place: int
) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        operations.get([*places(message), f"{FIND}?q=message+{message.pk}", f"{SESSIONS}?q=alice"][place])


@pytest.mark.postgres
def test_an_owner_keeps_its_rights(operations: Client, session: Session, db: None) -> None:
    """Why the page asks for a role of its own."""
    operations.get(f"{SESSIONS}{session.pk}/change/")
    with connection.cursor() as cursor:
        cursor.execute("REVOKE UPDATE, DELETE, TRUNCATE ON conversations_accessrecord FROM PUBLIC")
        cursor.execute("UPDATE conversations_accessrecord SET reason = 'x'")
        assert cursor.rowcount == 1
