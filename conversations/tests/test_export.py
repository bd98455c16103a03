"""Conversations as files: what is in them is what is stored, and no spreadsheet computes any of it."""

from __future__ import annotations

import csv
import gc
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from accounts.models import User
from chatstore.http.times import wire_time
from chatstore.tests.serving import fetch, own_database_url, serving
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.chat import records
from conversations.models import AccessRecord, Message, Session, Turn
from conversations.staff import export

# What staff see is of the same code on either database; on SQLite a browser opens each page.
pytestmark = pytest.mark.postgres

SESSIONS = "/admin/conversations/session/"
HOSTILE = "# Not a heading\r\n## 9. system\r```\n> \u2028<b>x</b>"


def url(session: Session, form: str = "jsonl") -> str:
    return f"{SESSIONS}{session.pk}/export/{form}/"


def read(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]


def chosen(client: Client, action: str, sessions: list[Session]) -> Any:
    return client.post(SESSIONS, {"action": action, "_selected_action": [s.pk for s in sessions], "index": "0"})


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n")[:-1]]


def cells(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def as_stored(message: Message) -> dict[str, Any]:
    times = {"created_at": message.created_at, "updated_at": message.updated_at}
    return {
        "type": "message",
        "session_id": str(message.session.session_id),
        "position": message.position,
        "role": message.role,
        "status": message.status,
        "content": message.content,
        "tool_name": message.tool_name,
        "trace_id": message.trace_id,
        "span_id": message.span_id,
        "tokens": message.tokens,
        "metadata": message.metadata,
        **{name: wire_time(moment) for name, moment in times.items()},
        "deleted_at": message.deleted_at and wire_time(message.deleted_at),
    }


@pytest.fixture
def said(session: Session) -> list[Message]:
    """Everything that a message can hold, and one that is deleted."""
    new_message(session, HOSTILE, trace_id="run", span_id="s", metadata={"a": ["\u20ac", None]}, tokens=7)
    new_message(session, "Called grep", role="tool_call", tool_name="grep")
    services.delete_message(new_message(session, "secret"))
    return list(Message.objects.select_related("session").order_by("position"))


# What is in them


def test_jsonl_is_what_is_stored(staff: Client, session: Session, said: list[Message]) -> None:
    about, *messages = lines(read(staff, url(session)))
    assert messages == [as_stored(message) for message in said]
    session.refresh_from_db()
    assert (about["type"], about["session_id"], about["owner"]) == (
        "session", str(session.session_id), str(session.owner_public_id),
    )  # fmt: skip
    assert (about["title"], about["message_count"], about["workspace"]) == (
        "New Chat",
        2,
        str(session.workspace_id),
    )


def test_no_integer_id_is_in_it(staff: Client, session: Session, said: list[Message]) -> None:
    for line in lines(read(staff, url(session))):
        assert not {"id", "user_id", "owner_id", "message_id"} & set(line)
        assert line["session_id"] == str(session.session_id)


def test_csv_is_what_is_stored(staff: Client, session: Session, said: list[Message]) -> None:
    found = cells(read(staff, url(session, "csv")))
    assert [row["content"] for row in found] == [message.content for message in said]
    assert [row["position"] for row in found] == ["1", "2", "3"]
    assert json.loads(found[0]["metadata"]) == said[0].metadata
    assert {row["session_id"] for row in found} == {str(session.session_id)}


def test_in_markdown_nobodys_words_look_like_a_heading(
    staff: Client, session: Session, said: list[Message]
) -> None:
    services.change_session(session, {"title": HOSTILE})
    text = read(staff, url(session, "md"))
    ended = re.split(r"\r\n|\r|\n", text)
    assert [line for line in ended if line.startswith("#")] == [
        f"# Session {session.session_id}", "## 1. user", "## 2. tool_call", "## 3. user",
    ]  # fmt: skip
    assert [line for line in ended if line.startswith("```")] == ["```json", "```"] * 4
    assert "> \u2028<b>x</b>" not in ended
    assert "> > \u2028<b>x</b>" in ended


@pytest.mark.parametrize(
    "begins",
    [
        *("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\tx", "\rx", "\nx"),
        *("\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)"),
        *(" =1+1", "  -1", " \nx", "\xa0=1", "\u3000\uff1d1", "\u2028+1", "\x0b@a", "\x1f=1"),
    ],
)
@pytest.mark.parametrize("field", ["content", "tool_name", "trace_id", "span_id"])
def test_no_cell_is_a_formula(staff: Client, session: Session, begins: str, field: str) -> None:
    new_message(session, **{"content": "Hello", field: begins}, role="tool_call")
    (row,) = cells(read(staff, url(session, "csv")))
    assert row[field] == f"'{begins}"
    assert not [cell for cell in row.values() if export.FORMULA.match(cell)]


def test_a_negative_number_in_metadata_is_no_formula(staff: Client, session: Session) -> None:
    assert export.defused(-1) == "'-1"
    assert (export.defused(" a = b"), export.defused("  ")) == (" a = b", "  ")
    assert (export.defused(None), export.defused("a=b"), export.defused({"a": 1})) == ("", "a=b", '{"a":1}')


@pytest.mark.parametrize(("seconds", "shown"), [(9, "streaming"), (-1, "interrupted")], ids=["alive", "lost"])
def test_a_reply_whose_worker_is_lost_is_interrupted(
    staff: Client, session: Session, seconds: int, shown: str
) -> None:
    turn = records.begin(session, "Hello", "here", None).turn
    records.add_row(turn, role="assistant", content="Well")
    Turn.objects.filter(pk=turn.pk).update(lease_until=timezone.now() + timedelta(seconds=seconds))
    assert lines(read(staff, url(session)))[2]["status"] == shown


def test_more_than_a_page_comes_whole(staff: Client, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", 2)
    services.append(session, [{"role": "user", "content": str(number)} for number in range(5)])
    assert [line["content"] for line in lines(read(staff, url(session)))[1:]] == list("01234")


def test_what_is_said_meanwhile_is_left_out(
    staff: Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 2)
    services.append(session, [{"role": "user", "content": "early"}] * 4)
    pieces = export.jsonl(export.sessions_of([session.pk]))
    first = next(pieces)
    new_message(session, "late")
    assert json.loads(first)["message_count"] == 4
    assert [json.loads(piece)["content"] for piece in pieces] == ["early"] * 4


# Several


@pytest.mark.parametrize("action", ["export_jsonl", "export_markdown", "export_csv"])
def test_those_that_are_chosen_come_in_one_file(staff: Client, alice: Caller, action: str) -> None:
    sessions = [new_session(alice) for _ in range(3)]
    for session in sessions:
        new_message(session, f"of {session.pk}.")
    answer = chosen(staff, action, sessions[:2])
    text = b"".join(answer.streaming_content).decode()
    assert [f"of {session.pk}." in text for session in sessions] == [True, True, False]
    assert list(AccessRecord.objects.order_by("session_id").values_list("action", "session_id")) == [
        ("export", session.pk) for session in sessions[:2]
    ]


def test_one_that_is_purged_meanwhile_is_left_out(alice: Caller) -> None:
    sessions = [new_session(alice) for _ in range(2)]
    pieces = export.jsonl(export.sessions_of([session.pk for session in sessions]))
    next(pieces)
    Session.objects.filter(pk=sessions[1].pk).delete()
    assert list(pieces) == []


# How it is sent


@pytest.mark.parametrize(
    ("form", "kind"), [("jsonl", "application/jsonl"), ("md", "text/markdown"), ("csv", "text/csv")]
)
def test_a_file_is_named_by_nothing_that_somebody_wrote(
    staff: Client, alice: Caller, form: str, kind: str
) -> None:
    session = new_session(alice, title='x"; filename="evil.exe')
    answer = staff.get(url(session, form))
    b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    assert answer["Content-Disposition"] == f'attachment; filename="session-{session.session_id}.{form}"'
    assert answer["Content-Type"] == f"{kind}; charset=utf-8"
    assert "no-store" in answer["Cache-Control"]
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_an_unknown_form_or_session_is_404(staff: Client, session: Session) -> None:
    for path in (url(session, "exe"), f"{SESSIONS}{10**15}/export/jsonl/", f"{SESSIONS}{10**30}/export/jsonl/"):
        assert staff.get(path).status_code == 404
    assert not AccessRecord.objects.exists()


@pytest.mark.parametrize("method", ["post", "head", "put", "delete"])
def test_a_file_is_read_by_get_alone(staff: Client, session: Session, method: str) -> None:
    assert getattr(staff, method)(url(session)).status_code == 405


def test_it_needs_its_permission(session: Session) -> None:
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_session", "view_message"]))
    client = Client()
    client.force_login(user)
    assert client.get(url(session)).status_code == 403
    assert chosen(client, "export_jsonl", [session]).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="export_session"))
    assert read(client, url(session))


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_no_connection_is_held_between_pages(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE", 2)
    services.append(session, [{"role": "user", "content": "x"}] * 6)
    held = [connection.connection is not None for _ in export.sent(export.jsonl(export.sessions_of([session.pk])))]
    assert held == [False] * 7


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_the_connection_goes_back_when_the_client_leaves(session: Session) -> None:
    def pieces() -> Iterator[str]:
        assert Session.objects.exists()
        yield "a"
        yield "b"

    sending = export.sent(pieces())
    next(sending)
    assert connections["default"].connection is not None
    sending.close()  # type: ignore[attr-defined]
    assert connections["default"].connection is None


@pytest.mark.django_db(transaction=True)
def test_a_real_server_sends_it_whole(staff: Client, session: Session) -> None:
    fill(session, 2_000)
    cookie = f"sessionid={staff.cookies['sessionid'].value}"
    with serving(own_database_url()) as port:
        answer, sent = fetch(port, "GET", url(session), Cookie=cookie)
    assert (answer.status, len(lines(sent.decode()))) == (200, 2_001)
    assert AccessRecord.objects.get().address == "127.0.0.1"


@pytest.mark.parametrize("form", ["jsonl", "md", "csv"])
def test_five_thousand_messages_take_no_more_memory_than_two_hundred(alice: Caller, form: str) -> None:
    few, many = (new_session(alice) for _ in range(2))
    fill(few, 200)
    fill(many, 5_000)
    peak_of(form, few)
    small, big = peak_of(form, few), peak_of(form, many)
    assert big < small + 200_000


def test_twenty_thousand_messages_are_what_is_stored(staff: Client, session: Session) -> None:
    fill(session, 20_000)
    rows = Message.objects.filter(session=session).order_by("position").select_related("session")
    answer = staff.get(url(session))
    sent = b"".join(answer.streaming_content).decode().split("\n")  # type: ignore[attr-defined]
    assert len(sent) == 20_002
    for line, message in zip(sent[1:], rows.iterator(), strict=False):
        assert json.loads(line) == as_stored(message)


def fill(session: Session, count: int) -> None:
    for first in range(0, count, 1_000):
        services.append(
            session,
            [
                {
                    "role": "user",
                    "content": f"{number} {'x' * 500}",
                    "trace_id": f"run {number}",
                    "metadata": {"n": number},
                }
                for number in range(first, min(first + 1_000, count))
            ],
        )


def peak_of(form: str, session: Session) -> int:
    """The most bytes that are in use while the whole file is written."""
    gc.collect()
    tracemalloc.start()
    try:
        for _ in export.sent(export.FORMS[form].write(export.sessions_of([session.pk]))):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
