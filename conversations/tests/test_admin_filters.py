"""What the filters beside the lists of sessions and messages leave, and what they answer to nonsense."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Workspace
from conftest import Caller, new_message, new_session
from conversations.models import AccessRecord, Message, Session
from conversations.staff import filters

# What staff see is of the same code on either database; on SQLite a browser opens each page.
pytestmark = pytest.mark.postgres

SESSIONS = "/admin/conversations/session/"
MESSAGES = "/admin/conversations/message/"
HOSTILE = '"><script>alert(1)</script>'


class World(NamedTuple):
    """Rows by a letter each, and what a URL names them by."""

    keys: dict[str, int]
    names: dict[str, Any]

    def shown(self, client: Client, path: str) -> str:
        """The letters of the rows on a page, in its order."""
        response = client.get(path.format(**self.names))
        assert response.status_code == 200, response
        letters = {key: letter for letter, key in self.keys.items()}
        return "".join(letters[row.pk] for row in response.context["cl"].result_list)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def sessions(alice: Caller, mallory: Caller, shared: Workspace) -> World:
    rows = {
        "a": (alice, shared, "support", "2025-03-01T23:59:59.999999", None),
        "b": (alice, shared, "analyst", "2025-03-02T00:00:00", "2025-03-05T00:00:00"),
        "c": (alice, None, "support", "2025-03-02T12:00:00", None),
        "d": (mallory, None, "support", "2025-03-02T23:59:59.999999", "2025-03-04T00:00:00"),
        "e": (mallory, shared, "support", "2025-03-03T00:00:00", None),
    }
    keys = {}
    for letter, (owner, place, agent, updated, deleted) in rows.items():
        session = new_session(owner, workspace=place, agent=agent)
        times = {"updated_at": at(updated), "deleted_at": at(deleted) if deleted else None}
        Session.objects.filter(pk=session.pk).update(**times)
        keys[letter] = session.pk
    return World(keys, {"shared": shared.public_id, "SHARED": str(shared.public_id).upper(), "nil": uuid.uuid4()})


@pytest.fixture
def messages(alice: Caller, mallory: Caller, shared: Workspace) -> World:
    first = new_session(alice, workspace=shared, agent="support")
    second = new_session(mallory, agent="analyst")
    rows = {
        "a": (first, "user", None, "complete", "2025-03-01T23:59:59.999999", False),
        "b": (first, "tool_call", "grep", "complete", "2025-03-02T00:00:00", False),
        "c": (first, "tool_call", "find", "complete", "2025-03-02T01:00:00", True),
        "d": (first, "assistant", None, "failed", "2025-03-02T02:00:00", False),
        "e": (second, "tool_call", "grep", "complete", "2025-03-02T23:59:59.999999", False),
        "f": (second, "assistant", None, "interrupted", "2025-03-03T00:00:00", False),
    }
    keys = {}
    for letter, (session, role, tool, status, said, deleted) in rows.items():
        message = new_message(session, role=role, tool_name=tool, trace_id="run")
        gone = at(said) if deleted else None
        Message.objects.filter(pk=message.pk).update(status=status, created_at=at(said), deleted_at=gone)
        keys[letter] = message.pk
    return World(keys, {"shared": shared.public_id, "session": first.pk, "nil": uuid.uuid4()})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "edcba"),
        ("workspace=", "edcba"),
        ("workspace={shared}", "eba"),
        ("workspace={SHARED}", "eba"),
        ("workspace=%20{shared}%0a", "eba"),
        ("workspace={nil}", ""),
        ("workspace={shared}&agent=support", "ea"),
        ("workspace={shared}&agent=Support", ""),
        ("workspace={shared}&agent=supp", ""),
        ("workspace={shared}&agent=%25", ""),
        ("workspace={shared}&agent=", "eba"),
        ("workspace={shared}&day=2025-03-01", "a"),
        ("workspace={shared}&day=2025-03-02", "b"),
        ("workspace={shared}&deleted=yes", "b"),
        ("workspace={shared}&deleted=no", "ea"),
        ("workspace={shared}&agent=support&day=2025-03-03&deleted=no", "e"),
        ("deleted=yes", "bd"),
        ("q=alice", "cba"),
        ("q=alice&workspace={shared}", "ba"),
        ("q=alice&workspace={shared}&agent=support", "a"),
        ("q=alice&agent=support", "ca"),
        ("q=alice&day=2025-03-02", "cb"),
        ("q=mallory&deleted=yes", "d"),
        ("q=mallory&deleted=no", "e"),
        ("q=Mallory@Example.com&day=2025-03-02", "d"),
    ],
)
def test_sessions_are_narrowed(staff: Client, sessions: World, query: str, expected: str) -> None:
    assert sessions.shown(staff, f"{SESSIONS}?{query}") == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "fedcba"),
        ("day=2025-03-01", "a"),
        ("day=2025-03-02", "edcb"),
        ("day=2024-02-29", ""),
        ("day=0001-01-01", ""),
        ("day=9999-12-30", ""),
        ("day=2025-03-02&role=tool_call", "ecb"),
        ("day=2025-03-02&role=tool_call&tool=grep", "eb"),
        ("day=2025-03-02&tool=GREP", ""),
        ("day=2025-03-02&status=failed", "d"),
        ("day=2025-03-02&deleted=yes", "c"),
        ("day=2025-03-02&deleted=no", "edb"),
        ("day=2025-03-02&workspace={shared}", "dcb"),
        ("day=2025-03-02&workspace={nil}", ""),
        ("day=2025-03-02&agent=analyst", "e"),
        ("day=2025-03-02&agent=analyst&workspace={shared}", ""),
        ("session={session}", "abcd"),
        ("session={session}&role=tool_call", "bc"),
        ("session={session}&tool=find", "c"),
        ("session={session}&status=failed", "d"),
        ("session={session}&deleted=no", "abd"),
        ("session={session}&day=2025-03-02", "bcd"),
        ("session={session}&workspace={shared}&agent=support", "abcd"),
        ("q=run&tool=grep", "be"),
        ("q=run&tool=grep&agent=analyst", "e"),
        ("q=run&day=2025-03-02&status=complete", "bce"),
        ("q=run&session={session}&role=user", "a"),
    ],
)
def test_messages_are_narrowed(staff: Client, messages: World, query: str, expected: str) -> None:
    assert messages.shown(staff, f"{MESSAGES}?{query}") == expected


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (f"{SESSIONS}?workspace=abc", "Filter by workspace: give a workspace"),
        (f"{SESSIONS}?workspace=%00", "give a workspace"),
        (f"{SESSIONS}?workspace={{nil}}&workspace={{nil}}", "give a workspace"),
        (f"{SESSIONS}?deleted=maybe", "Filter by deleted: give one of those offered."),
        (f"{SESSIONS}?deleted=no", "within a workspace or a search: choose that first."),
        (f"{SESSIONS}?agent=support", "Filter by agent within a workspace or a search: choose that first."),
        (f"{SESSIONS}?agent=support&q=%00", "choose that first."),
        (f"{SESSIONS}?agent=support&q=%20", "choose that first."),
        (f"{SESSIONS}?agent=support&workspace=", "choose that first."),
        (f"{SESSIONS}?agent=support&deleted=yes", "choose that first."),
        (f"{SESSIONS}?day=2025-03-02", "choose that first."),
        (f"{SESSIONS}?q=alice&agent=a%00b", "give at most 255 characters"),
        (f"{SESSIONS}?q=alice&agent={'x' * 256}", "give at most 255 characters"),
        (f"{SESSIONS}?q=alice&day=yesterday", "give a day as YYYY-MM-DD."),
        (f"{MESSAGES}?day=2025-02-30", "Filter by day (UTC): give a day as YYYY-MM-DD."),
        (f"{MESSAGES}?day=20250302", "give a day as YYYY-MM-DD."),
        (f"{MESSAGES}?day=2025-W10-1", "give a day as YYYY-MM-DD."),
        (f"{MESSAGES}?day=2025-03-0%EF%BC%92", "give a day as YYYY-MM-DD."),
        (f"{MESSAGES}?day=0000-01-01", "give a day as YYYY-MM-DD."),
        (f"{MESSAGES}?day=9999-12-31", "give a day as YYYY-MM-DD."),
        (f"{MESSAGES}?day=2025-03-02&day=2025-03-03", "give a day as YYYY-MM-DD."),
        (f"{MESSAGES}?day=2025-03-02&role=robot", "Filter by role: give one of those offered."),
        (f"{MESSAGES}?day=2025-03-02&role=user&role=user", "give one of those offered."),
        (f"{MESSAGES}?day=2025-03-02&status=", None),
        (f"{MESSAGES}?day=2025-03-02&status=%00", "Filter by status: give one of those offered."),
        (f"{MESSAGES}?day=2025-03-02&workspace=abc", "give a workspace"),
        (f"{MESSAGES}?day=2025-03-02&deleted=1", "give one of those offered."),
        *(
            (f"{MESSAGES}?{query}", "within a session, a search or a day: choose that first.")
            for query in (
                "role=user",
                "tool=grep",
                "status=failed",
                "agent=support",
                "deleted=yes",
                "day=&role=user",
            )
        ),
        (f"{MESSAGES}?workspace={{nil}}", "within a session, a search or a day: choose that first."),
    ],
)
def test_what_is_malformed_or_out_of_place_is_said(
    staff: Client, alice: Caller, path: str, says: str | None
) -> None:
    response = staff.get(path.format(nil=uuid.uuid4()))
    if says is None:
        assert response.status_code == 200
        return
    assert response.status_code == 302
    assert response.headers["Location"] == path.partition("?")[0] + "?e=1"
    assert says in staff.get(response.headers["Location"]).content.decode().replace("&#x27;", "'")


def test_an_action_through_a_malformed_filter_is_not_done(staff: Client, sessions: World) -> None:
    form = {"action": "trash", "index": "0", "_selected_action": list(sessions.keys.values())}
    assert staff.post(f"{SESSIONS}?deleted=maybe", form).status_code == 302
    assert Session.objects.live().count() == 3


def test_an_action_reaches_no_row_that_the_filters_leave_out(staff: Client, sessions: World) -> None:
    form = {"action": "trash", "index": "0", "_selected_action": list(sessions.keys.values())}
    path = f"{SESSIONS}?workspace={{shared}}&agent=support&day=2025-03-03".format(**sessions.names)
    assert staff.post(path, form).status_code == 302
    gone = set(Session.objects.deleted().values_list("pk", flat=True))
    assert gone == {sessions.keys[letter] for letter in "bde"}


# Among the newest


@pytest.fixture
def newest_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "NEWEST", 2)


@pytest.mark.parametrize(
    ("query", "expected", "among"),
    [
        ("workspace={shared}", "eba", False),
        ("workspace={shared}&agent=support", "e", True),
        ("workspace={shared}&deleted=no", "e", True),
        ("workspace={shared}&agent=support&day=2025-03-01", "a", False),
        ("q=alice&agent=support", "c", True),
        ("q=alice&workspace={shared}", "b", True),
        ("q=mallory&deleted=no", "e", False),
        ("deleted=yes", "bd", False),
    ],
)
def test_of_many_sessions_the_newest_are_looked_at(
    staff: Client, sessions: World, newest_two: None, query: str, expected: str, among: bool
) -> None:
    path = f"{SESSIONS}?{query}".format(**sessions.names)
    assert sessions.shown(staff, path) == expected
    assert ("among the newest 2." in staff.get(path).content.decode()) == among


def test_of_sessions_of_one_moment_none_is_left_out_or_looked_at_twice(
    staff: Client, sessions: World, newest_two: None
) -> None:
    Session.objects.update(updated_at=at("2025-03-02T12:00:00"), agent="support")
    assert sessions.shown(staff, f"{SESSIONS}?workspace={{shared}}&agent=support") == "eb"


@pytest.mark.parametrize(
    ("query", "expected", "among"),
    [
        ("session={session}", "abcd", False),
        ("session={session}&role=tool_call", "c", True),
        ("session={session}&day=2025-03-02", "cd", True),
        ("day=2025-03-02&role=tool_call", "ecb", False),
    ],
)
def test_of_a_long_session_the_newest_messages_are_looked_at(
    staff: Client, messages: World, newest_two: None, query: str, expected: str, among: bool
) -> None:
    path = f"{MESSAGES}?{query}".format(**messages.names)
    assert messages.shown(staff, path) == expected
    assert ("among the newest 2." in staff.get(path).content.decode()) == among


# The page


def offered(client: Client, path: str) -> list[str]:
    return [spec.parameter_name for spec in client.get(path).context["cl"].filter_specs]


def test_filters_without_an_index_are_offered_within_a_narrowed_list_alone(staff: Client, messages: World) -> None:
    inner = ["role", "tool", "status", "workspace", "owner", "agent", "deleted", "text"]
    assert offered(staff, SESSIONS) == ["workspace", "deleted"]
    for narrowed in (f"{SESSIONS}?q=alice", f"{SESSIONS}?workspace={uuid.uuid4()}"):
        assert offered(staff, narrowed) == ["workspace", "agent", "day", "deleted"]
    assert offered(staff, MESSAGES) == ["day", "text"]
    for narrowed in (f"{MESSAGES}?q=run", f"{MESSAGES}?day=2025-03-02"):
        assert offered(staff, narrowed) == ["day", *inner]
    assert offered(staff, f"{MESSAGES}?session=1") == ["session", "day", *inner]
    assert "narrow within a day, a session or a search" in staff.get(MESSAGES).content.decode()


def test_the_last_seven_days_are_links(staff: Client, messages: World) -> None:
    page = staff.get(MESSAGES).content.decode()
    today = timezone.now().astimezone(UTC).date()
    assert [back for back in range(9) if f'href="?day={today - timedelta(days=back)}"' in page] == [*range(7)]
    assert "day (UTC)" in page


def test_values_of_the_page_are_links_and_come_from_no_query(staff: Client, messages: World) -> None:
    path = f"{MESSAGES}?day=2025-03-02"
    page = staff.get(path).content.decode()
    assert 'href="?day=2025-03-02&amp;tool=grep"' in page
    assert 'href="?day=2025-03-02&amp;tool=find"' in page
    with CaptureQueriesContext(connection) as captured:
        staff.get(path)
    reads = [query["sql"] for query in captured.captured_queries if "conversations_message" in query["sql"]]
    assert len(reads) == 2  # The probe and the page.


def test_what_narrows_leaves_with_all_that_stands_on_it(staff: Client, messages: World, sessions: World) -> None:
    page = staff.get(f"{MESSAGES}?day=2025-03-02&role=user&tool=grep").content.decode()
    assert '<a href="?">All</a>' in page
    assert '<a href="?day=2025-03-02&amp;role=user">All</a>' in page
    page = staff.get(f"{SESSIONS}?workspace={sessions.names['shared']}&agent=support").content.decode()
    assert '<a href="?">All</a>' in page


def test_the_fields_keep_the_other_filters(staff: Client, messages: World) -> None:
    page = staff.get(f"{MESSAGES}?day=2025-03-02&role=user&q=run&p=1").content.decode()
    form = page.partition('class="narrowing"')[2].partition("</form>")[0]
    assert '<input type="hidden" name="role" value="user">' in form
    assert '<input type="hidden" name="q" value="run">' in form
    assert 'type="date" name="day" value="2025-03-02"' in form
    assert 'type="hidden" name="day"' not in form
    assert 'name="p"' not in form


def test_hostile_values_are_escaped(staff: Client, alice: Caller) -> None:
    session = new_session(alice, agent=HOSTILE)
    new_message(session, role="tool_call", tool_name=HOSTILE)
    pages: list[tuple[str, dict[str, Any]]] = [
        (SESSIONS, {"q": "alice"}),
        (SESSIONS, {"q": "alice", "agent": HOSTILE}),
        (MESSAGES, {"session": session.pk}),
        (MESSAGES, {"session": session.pk, "tool": HOSTILE}),
    ]
    for path, query in pages:
        response = staff.get(path, query)
        assert len(response.context["cl"].result_list) == 1
        page = response.content.decode()
        assert "&lt;script&gt;alert(1)" in page
        assert "<script>alert" not in page


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (SESSIONS, "No sessions yet. They come through the API"),
        (MESSAGES, "No messages yet. They come through the API"),
        (f"{SESSIONS}?q=nobody", "No session matches. Remove a filter, or paste an id into the box on top."),
        (f"{SESSIONS}?workspace={uuid.uuid4()}", "No session matches."),
        (f"{MESSAGES}?day=2025-03-02", "No message matches."),
        (f"{MESSAGES}?session=17", "No message matches."),
        ("/admin/conversations/accessrecord/", "No access records yet."),
        ("/admin/conversations/accessrecord/?action__exact=export", "No access record matches."),
    ],
)
def test_an_empty_list_says_what_to_do(staff: Client, path: str, says: str) -> None:
    assert says in staff.get(path).content.decode()


def test_a_list_with_rows_does_not_say_that_it_is_empty(staff: Client, messages: World) -> None:
    for path in (SESSIONS, MESSAGES):
        assert "list-empty" not in staff.get(path).content.decode()


# The access log


def test_records_are_narrowed_by_what_was_done(staff: Client, sam: Caller) -> None:
    for action in (AccessRecord.Action.EXPORT, AccessRecord.Action.SEARCH):
        AccessRecord.objects.create(user=sam.user, user_public_id=sam.user.public_id, action=action)
    log = "/admin/conversations/accessrecord/"
    response = staff.get(f"{log}?action__exact=export")
    assert [record.action for record in response.context["cl"].result_list] == ["export"]
    assert 'href="?action__exact=search"' in response.content.decode()
    assert staff.get(f"{log}?action__exact=other").status_code == 400
