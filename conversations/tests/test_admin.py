"""Sessions and messages in the admin: found by exact ids, read, never changed, at a bounded cost."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from conftest import Caller, new_message, new_session, row
from conversations import services
from conversations.chat import records
from conversations.models import Message, Session, Turn
from conversations.tests.colleagues import holding

# What staff see is of the same code on either database; on SQLite a browser opens each page.
pytestmark = pytest.mark.postgres

SESSIONS = "/admin/conversations/session/"
MESSAGES = "/admin/conversations/message/"
LISTS = pytest.mark.parametrize("path", [SESSIONS, MESSAGES], ids=["sessions", "messages"])
NIL = uuid.UUID(int=0)
HOSTILE = "<script>document.title = 'owned'</script>"


@pytest.fixture
def viewer(db: None) -> Client:
    """Staff who may view sessions and messages, and nothing else."""
    return holding("view_session", "view_message")


@pytest.fixture
def message(session: Session) -> Message:
    return new_message(session, trace_id="4bf92f3577b34da6", span_id="00f067aa0ba902b7", tool_name="grep")


def rows(response: Any) -> list[int]:
    """The keys of the rows on a list's page, in order."""
    assert response.status_code == 200
    return [shown.pk for shown in response.context["cl"].result_list]


def statements(client: Client, path: str) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(path).status_code == 200
    return [query["sql"] for query in captured.captured_queries]


def many(session: Session, count: int) -> list[Message]:
    said = [{"role": "user", "content": "Hello!", "trace_id": "run", "metadata": {"n": n}} for n in range(count)]
    return services.append(session, said)[0]


# Finding


@pytest.mark.parametrize(
    "term",
    [
        lambda m: str(m.pk),
        lambda m: str(m.session.pk),
        lambda m: str(m.session.session_id),
        lambda m: str(m.session.session_id).upper(),
        lambda m: m.trace_id,
        lambda m: m.span_id,
        lambda m: f"  {m.trace_id}\n",
    ],
    ids=["id", "session", "session uuid", "upper case", "trace", "span", "pasted with spaces"],
)
def test_a_message_is_found_by(
    staff: Client, alice: Caller, message: Message, term: Callable[[Message], str]
) -> None:
    other = new_message(new_session(alice), trace_id="another")
    found = rows(staff.get(MESSAGES, {"q": term(message)}))
    assert message.pk in found
    assert other.pk not in found


@pytest.mark.parametrize("term", ["Hello", "4bf92f3577b34da", "4BF92F3577B34DA6", "%", "grep"])
def test_a_message_is_not_found_by_less_than_an_id(staff: Client, message: Message, term: str) -> None:
    assert rows(staff.get(MESSAGES, {"q": term})) == []


@pytest.mark.parametrize("trace_id", ["17", "0190b2f8-5c1e-7d3a-8b0e-3f1f2d3c4b5a", "run 7"])
def test_a_trace_id_may_look_like_anything(staff: Client, session: Session, trace_id: str) -> None:
    message = new_message(session, trace_id=trace_id)
    assert rows(staff.get(MESSAGES, {"q": trace_id})) == [message.pk]


@pytest.mark.parametrize(
    "term",
    [
        lambda s: str(s.pk),
        lambda s: str(s.session_id),
        lambda s: str(s.owner_public_id),
        lambda s: "alice",
        lambda s: "Alice@Example.com",
    ],
    ids=["id", "uuid", "owner", "owner's name", "owner's email"],
)
def test_a_session_is_found_by(
    staff: Client, mallory: Caller, session: Session, term: Callable[[Session], str]
) -> None:
    new_session(mallory)
    assert rows(staff.get(SESSIONS, {"q": term(session)})) == [session.pk]


def test_a_session_links_to_its_messages_in_order(staff: Client, alice: Caller, session: Session) -> None:
    said = many(session, 3)
    new_message(new_session(alice))
    link = f"{MESSAGES}?session={session.pk}"
    assert f'href="{link}"' in staff.get(f"{SESSIONS}{session.pk}/change/").content.decode()
    assert rows(staff.get(link)) == [message.pk for message in said]


def test_what_is_deleted_is_there_for_staff(staff: Client, session: Session, message: Message) -> None:
    services.delete_message(message)
    services.trash_session(session)
    assert rows(staff.get(MESSAGES)) == [message.pk]
    assert rows(staff.get(SESSIONS)) == [session.pk]
    assert staff.get(f"{MESSAGES}{message.pk}/change/").status_code == 200


@pytest.mark.parametrize(("seconds", "shown"), [(9, "streaming"), (-1, "interrupted")], ids=["alive", "lost"])
def test_a_row_whose_writer_is_lost_is_interrupted_at_once(
    staff: Client, session: Session, seconds: int, shown: str
) -> None:
    turn = records.begin(session, "Hello", "here", None).turn
    row = records.add_row(turn, role="assistant", content="Well")
    Turn.objects.filter(pk=turn.pk).update(lease_until=timezone.now() + timedelta(seconds=seconds))
    for path in ("/admin/conversations/message/", f"/admin/conversations/message/{row.pk}/change/"):
        page = staff.get(path).content.decode()
        assert [word for word in ("streaming", "interrupted") if f">{word}<" in page.lower()] == [shown], path


def test_the_newest_come_first(staff: Client, alice: Caller) -> None:
    older, newer = new_session(alice), new_session(alice)
    assert rows(staff.get(SESSIONS)) == [newer.pk, older.pk]


# Reading


def test_a_message_is_shown_whole(staff: Client, session: Session) -> None:
    message = new_message(session, "\n  one\n\n  two", metadata={"model": "m"}, trace_id="run", tokens=7)
    page = staff.get(f"{MESSAGES}{message.pk}/change/").content.decode()
    assert '<pre wrap dir="auto">\n\n  one\n\n  two</pre>' in page
    assert "{\n  &quot;model&quot;: &quot;m&quot;\n}" in page
    assert reverse("admin:conversations_session_change", args=[session.pk]) in page


def test_stored_text_is_escaped(staff: Client, alice: Caller) -> None:
    session = new_session(alice, title=HOSTILE, metadata={HOSTILE: HOSTILE})
    message = new_message(session, HOSTILE, trace_id=HOSTILE, tool_name=HOSTILE, metadata={HOSTILE: HOSTILE})
    for path in (MESSAGES, f"{MESSAGES}{message.pk}/change/", SESSIONS, f"{SESSIONS}{session.pk}/change/"):
        page = staff.get(path).content.decode()
        assert "&lt;script&gt;document.title" in page
        assert "<script>document.title" not in page


def test_an_objects_text_has_no_words_of_a_message(message: Message) -> None:
    assert str(message) == f"message {message.pk} (user)"
    assert "New Chat" not in str(message.session)


def test_a_message_that_is_purged_in_between_is_none(
    staff: Client, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = admin.site.get_model_admin(Message)
    read = messages.get_object

    def purged(*args: Any) -> Any:
        found = read(*args)
        Session.objects.all().delete()
        return found

    monkeypatch.setattr(messages, "get_object", purged)
    assert staff.get(f"{MESSAGES}{message.pk}/change/").status_code == 404


# Never changing


@pytest.mark.parametrize("who", ["viewer", "staff"])
@pytest.mark.parametrize("kind", ["session", "message"])
def test_nobody_writes(request: pytest.FixtureRequest, message: Message, who: str, kind: str) -> None:
    client: Client = request.getfixturevalue(who)
    key = message.pk if kind == "message" else message.session.pk
    before = row(Message, message.pk), row(Session, message.session.pk)
    path = f"/admin/conversations/{kind}/"
    assert client.get(f"{path}{key}/change/").status_code == 200
    assert client.get(f"{path}add/").status_code == 403
    form = {"title": "Changed", "content": "Changed", "role": "system", "post": "yes"}
    for write in ("add/", f"{key}/change/", f"{key}/delete/"):
        assert client.post(f"{path}{write}", form).status_code == 403
    assert client.post(f"{path}{key}/change/", {**form, "_saveasnew": "1"}).status_code == 403
    action = {"action": "delete_selected", "_selected_action": [key], "index": "0", "post": "yes"}
    client.post(path, action)
    assert (row(Message, message.pk), row(Session, message.session.pk)) == before


@LISTS
def test_who_may_only_view_is_offered_no_way_to_write(viewer: Client, message: Message, path: str) -> None:
    for query in ("", "?q=alice", f"?session={message.session.pk}" if path == MESSAGES else "?deleted=yes"):
        page = viewer.get(path + query).content.decode()
        assert 'name="action"' not in page
        assert 'name="_selected_action"' not in page
        assert 'name="_save"' not in page
        assert f"{path}add/" not in page


@LISTS
def test_strangers_are_sent_to_the_login(alice: Caller, path: str) -> None:
    client = Client()
    client.force_login(alice.user)
    assert client.get(path).headers["Location"].startswith("/admin/login/")


@LISTS
def test_staff_without_the_permission_see_nothing(db: None, path: str) -> None:
    client = Client()
    client.force_login(User.objects.create_user("norma", is_staff=True))
    assert client.get(path).status_code == 403


# The cost


@pytest.mark.parametrize(
    "path",
    [
        MESSAGES,
        f"{MESSAGES}?session={{session}}",
        f"{MESSAGES}?q=run",
        f"{MESSAGES}?q={{uuid}}",
        f"{MESSAGES}{{message}}/change/",
        f"{MESSAGES}{{message}}/history/",
        SESSIONS,
        f"{SESSIONS}?q=alice",
        f"{SESSIONS}{{session}}/change/",
    ],
)
def test_a_page_costs_the_same_for_one_row_and_for_fifty(staff: Client, alice: Caller, path: str) -> None:
    session = new_session(alice)
    message = many(session, 1)[0]
    path = path.format(session=session.pk, uuid=session.session_id, message=message.pk)
    staff.get(path)  # Content types are remembered from the first page on.
    one = statements(staff, path)
    many(session, 49)
    for _ in range(49):
        new_session(alice)
    fifty = statements(staff, path)
    assert len(one) == len(fifty) <= 12
    assert all("LIMIT" in sql for sql in fifty if "COUNT(" in sql)


@pytest.mark.parametrize("query", ["", "?q=run", "?session=1", "?o=2", "?o=-9.3"])
def test_a_list_of_messages_reads_one_table_and_no_content(staff: Client, message: Message, query: str) -> None:
    reads = [sql for sql in statements(staff, MESSAGES + query) if "conversations_message" in sql]
    assert len(reads) == 2  # The probe and the page.
    assert not [sql for sql in reads if "JOIN" in sql or '"content"' in sql or '"metadata"' in sql]


@LISTS
def test_no_parameter_changes_the_order(staff: Client, message: Message, path: str) -> None:
    ordered = [sql.partition("ORDER BY")[2] for sql in statements(staff, path)]
    for order in ("1", "-4", "4.5", "-9"):
        assert [sql.partition("ORDER BY")[2] for sql in statements(staff, f"{path}?o={order}")] == ordered


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists offer four rows, on two pages."""
    monkeypatch.setattr("chatstore.bounded_admin.BOUND", 4)
    for model in (Session, Message):
        monkeypatch.setattr(admin.site.get_model_admin(model), "list_per_page", 2)


def test_beyond_the_bound_the_page_says_narrow_the_search(
    staff: Client, session: Session, pages_of_two: None
) -> None:
    many(session, 4)
    assert "narrow the search" not in staff.get(MESSAGES).content.decode()
    many(session, 1)
    page = staff.get(MESSAGES).content.decode()
    assert "More than 4: narrow the search." in page
    assert "4 messages" not in page
    assert "4 results" not in page


def test_pages_beyond_the_bound_are_not_offered(staff: Client, session: Session, pages_of_two: None) -> None:
    said = [message.pk for message in many(session, 7)]
    assert rows(staff.get(MESSAGES, {"p": 2})) == [said[4], said[3]]
    assert "?p=3" not in staff.get(MESSAGES).content.decode()
    assert staff.get(MESSAGES, {"p": 3}).headers["Location"] == f"{MESSAGES}?e=1"


# Nonsense


@LISTS
@pytest.mark.parametrize("session", ["abc", "", "99999999999999999999", "-1", "1.5", "\x00", "9" * 5000])
def test_a_malformed_filter_is_a_400(staff: Client, path: str, session: str) -> None:
    assert staff.get(path, {"session": session}).status_code == 400


@LISTS
@pytest.mark.parametrize("name", ["id", "id__gt", "content__contains", "metadata__a", "owner__password", "\x00"])
def test_an_unknown_filter_is_a_400(staff: Client, message: Message, path: str, name: str) -> None:
    assert staff.get(path, {name: "1"}).status_code == 400


@LISTS
@pytest.mark.parametrize("page", ["-1", "0", "abc", "99999999999999999999", "9" * 5000, "\x00"])
def test_a_page_that_is_none_is_no_error(
    staff: Client, session: Session, pages_of_two: None, path: str, page: str
) -> None:
    many(session, 3)
    assert staff.get(path, {"p": page}).status_code in (200, 302)
    assert staff.get(path, {"p": page, "e": "1"}).status_code == 200


@LISTS
@pytest.mark.parametrize("query", ["o=zz", "o=99.-99", f"o={'9' * 5000}", "e=1", "all=", "_facets=1", "_popup=1"])
def test_other_parameters_of_the_admin_are_no_error(
    staff: Client, message: Message, path: str, query: str
) -> None:
    assert staff.get(f"{path}?{query}").status_code == 200


@LISTS
@pytest.mark.parametrize(
    "term",
    [
        "\x00",
        "a\x00b",
        "9" * 19,
        "9" * 5000,
        str(2**63),
        "-1",
        " ",
        "'",
        '"',
        "\ufffd",
        "x" * 300,
        str(uuid.UUID(int=0)),
    ],
)
def test_a_search_for_nonsense_is_no_error(staff: Client, message: Message, path: str, term: str) -> None:
    assert staff.get(path, {"q": term}).status_code == 200


@pytest.mark.parametrize("key", ["0", "-1", "abc", "%00", "99999999999999999999", "9" * 5000, "\uff11"])
@pytest.mark.parametrize("view", ["change", "history", "delete"])
@LISTS
def test_a_key_that_is_none_is_no_error(staff: Client, path: str, key: str, view: str) -> None:
    assert staff.get(f"{path}{key}/{view}/").status_code in (302, 403)
