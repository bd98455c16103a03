"""The transcript: what a session reads like, its runs, who may read it, and at what cost."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from conftest import Caller, new_message, new_session
from conversations import services
from conversations.chat import records
from conversations.models import Message, Session, Turn
from conversations.staff import lookups, transcript
from conversations.tests.colleagues import holding
from conversations.tests.transcripts import TRACE, at, classes, link, many, page_of, path, shown

# What staff see is of the same code on either database; on SQLite a browser opens each page.
pytestmark = pytest.mark.postgres

POSTGRES = pytest.mark.postgres


# What it shows


def test_a_session_reads_like_a_chat(staff: Client, alice: Caller) -> None:
    session = new_session(alice, title="About rain", agent="helper", group="weather")
    new_message(session, "Will it *rain*?", trace_id=TRACE, span_id="00f067aa0ba902b7", tokens=7)
    new_message(session, "Looking", "tool_call", tool_name="forecast")
    new_message(session, "dry\n  all day", "tool", tool_name="forecast")
    new_message(session, "No.", "assistant")
    new_message(session, "Be brief.", "system")
    page = page_of(staff, session)
    assert shown(page) == [1, 2, 3, 4, 5]
    assert [classes(page, n)[1] for n in range(1, 6)] == ["user", "tool_call", "tool", "assistant", "system"]
    for text in (
        "<bdi>About rain</bdi>",
        "alice</a>",
        session.workspace.name,
        "<bdi>helper</bdi>",
        "<bdi>weather</bdi>",
        "<dt>Messages</dt><dd>5</dd>",
        "<dt>Tokens</dt><dd>7</dd>",
        "All times are UTC.",
        "Will it <em>rain</em>?",
        '<summary><span class="who">tool call</span> <b><bdi>forecast</bdi></b>',
        "dry\n  all day</pre>",
        "7 tokens",
        f'data-copy="{TRACE}"',
        'data-copy="00f067aa0ba902b7"',
    ):
        assert text in page, text
    assert f'<a href="/admin/accounts/user/{session.owner.pk}/change/">' in page


def test_an_empty_session_says_so(staff: Client, session: Session) -> None:
    for query in ("", "?from=1", "?to=9", "?trace=x", "?message=1"):
        assert "This session has no messages yet." in page_of(staff, session, query)


@pytest.mark.parametrize("status", ["streaming", "interrupted", "failed"])
def test_a_status_is_marked(staff: Client, session: Session, status: str) -> None:
    turn = records.begin(session, "Hello", "here", None).turn
    records.add_row(turn, role="assistant", content="Well")
    at(session, 2).update(status=status)
    page = page_of(staff, session)
    assert f'<span class="mark {status}">{status}</span>' in page
    assert ("failed" in classes(page, 2)) == (status != "streaming")
    assert page.count('<span class="mark ') == 1


def test_a_lost_reply_is_interrupted_and_a_failure(staff: Client, session: Session) -> None:
    turn = records.begin(session, "Hello", "here", None).turn
    records.add_row(turn, role="assistant", content="Well")
    Turn.objects.filter(pk=turn.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    page = page_of(staff, session)
    assert '<span class="mark interrupted">interrupted</span>' in page
    assert 'class="mark streaming"' not in page
    assert [row.position for row in transcript.next_failure(session, 0)] == [2]


def test_a_reply_that_is_written_is_no_failure(session: Session) -> None:
    turn = records.begin(session, "Hello", "here", None).turn
    records.add_row(turn, role="assistant", content="Well")
    assert list(transcript.next_failure(session, 0)) == []


def test_what_is_deleted_is_marked(staff: Client, session: Session) -> None:
    said = many(session, 3)
    services.delete_message(said[1])
    services.trash_session(session)
    page = page_of(staff, session)
    assert shown(page) == [1, 2, 3]
    assert "deleted" in classes(page, 2)
    assert "deleted" not in classes(page, 1)
    assert page.count('<span class="mark">deleted 2') == 1
    assert '<span class="mark failed">deleted</span></h1>' in page


def test_a_failure_that_is_deleted_is_none(session: Session) -> None:
    said = many(session, 3)
    at(session, 2, 3).update(status="failed", role="assistant")
    services.delete_message(said[1])
    assert [row.position for row in transcript.next_failure(session, 0)] == [3]


def test_raw_shows_what_was_sent(staff: Client, session: Session) -> None:
    new_message(session, "\n# *Not* a title\n   <b>")
    page = page_of(staff, session, "?raw=1")
    assert '<pre dir="auto">\n\n# *Not* a title\n   &lt;b&gt;</pre>' in page
    assert link(page, "r") == "?"
    assert "raw=1" in str(link(page, "g"))
    assert link(page_of(staff, session), "r") == "?raw=1"


def test_a_long_text_is_not_rendered_and_a_longer_one_is_cut(
    staff: Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "MOST_RENDERED", 10)
    monkeypatch.setattr(transcript, "MOST_SHOWN", 20)
    new_message(session, "*ten* char")
    new_message(session, "*eleven* ch")
    new_message(session, "x" * 21)
    page = page_of(staff, session)
    assert "<em>ten</em> char" in page
    assert "*eleven* ch</pre>" in page
    assert "x" * 20 + "</pre>" in page
    assert page.count("The whole message") == 1


def test_a_page_renders_the_marked_message_and_then_as_much_as_it_may(
    staff: Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "MOST_RENDERED_OF_A_PAGE", 9)
    said = [new_message(session, f"*{n}*") for n in (1, 2, 3, 4)]
    page = page_of(staff, session, f"?message={said[2].pk}")
    assert re.findall(r"<em>(\d)</em>", page) == ["1", "2", "3"]
    assert re.findall(r"\*(\d)\*</pre>", page) == ["4"]
    assert page.count("Too much text to render here") == 1


# The run


def test_a_run_is_highlighted_and_added_up(staff: Client, session: Session) -> None:
    new_message(session, "Before", trace_id="other", tokens=1000)
    for role, tool in (("user", None), ("tool_call", "grep"), ("tool_call", "grep"), ("tool_call", "read")):
        new_message(session, "x", role, trace_id=TRACE, tokens=5, tool_name=tool)
    new_message(session, "Beside")
    done = new_message(session, "Done", "assistant", trace_id=TRACE, tokens=5)
    gone = new_message(session, "Gone", trace_id=TRACE, tokens=500)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    Message.objects.filter(session=session).update(created_at=start)
    Message.objects.filter(pk=done.pk).update(created_at=start + timedelta(seconds=75))
    services.delete_message(gone)
    for query in (f"?trace={TRACE}", f"?message={done.pk}", f"?from=1&message={done.pk}&trace={TRACE}"):
        page = page_of(staff, session, query)
        assert [n for n in range(2, 9) if n in shown(page) and "in-run" in classes(page, n)] == [2, 3, 4, 5, 7, 8]
        summary = page.partition('class="run-summary"')[2].partition("</section>")[0]
        words = " ".join(re.sub(r"<[^>]+>", "", summary).split())
        assert "1 turn · tools: grep (2), read · 25 tokens · 1 min 15 s · 6 messages, #2 to #8" in words
        assert "not the whole session" not in words


def test_a_trace_opens_where_its_run_begins(staff: Client, session: Session) -> None:
    many(session, 80)
    many(session, 2, trace_id="a run & more")
    many(session, 30)
    page = page_of(staff, session, "?trace=a+run+%26+more")
    assert shown(page)[0] == 81
    assert [n for n in shown(page) if "in-run" in classes(page, n)] == [81, 82]


def test_a_trace_is_looked_for_in_a_long_session(
    session: Session,
    alice: Caller,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    monkeypatch.setattr(transcript, "REACH", 20)
    monkeypatch.setattr(lookups, "MOST_LOOKED_AT", 3)
    client = holding("view_session", "view_message")
    many(session, 80)
    many(session, 3, trace_id="run")
    many(session, 1, trace_id="every")
    with django_assert_max_num_queries(12):
        assert shown(page_of(client, session, "?trace=run"))[0] == 81
    elsewhere = new_session(alice)
    many(elsewhere, 2, trace_id="every")
    assert shown(page_of(client, session, "?trace=every")) == [84]
    # Among more than are looked at, which of them come first the index decides: so none of them is here.
    Message.objects.filter(session=session, trace_id="every").delete()
    many(elsewhere, 28, trace_id="every")
    page = page_of(client, session, "?trace=every")
    assert shown(page)[0] == 1
    assert "Too many messages carry this trace id" in page


def test_a_trace_that_is_not_there_is_told(staff: Client, session: Session) -> None:
    many(session, 3)
    page = page_of(staff, session, "?trace=absent")
    assert "No message of this session has this trace id." in page
    assert shown(page) == [1, 2, 3]


def test_a_trace_asked_for_wins_over_the_marked_messages_own(staff: Client, session: Session) -> None:
    one, two = new_message(session, trace_id="one"), new_message(session, trace_id="two")
    page = page_of(staff, session, f"?message={one.pk}&trace=two")
    assert "marked" in classes(page, one.position)
    assert "in-run" not in classes(page, one.position)
    assert "in-run" in classes(page, two.position)


def test_without_a_trace_nothing_is_highlighted(staff: Client, session: Session) -> None:
    said = many(session, 3)
    assert "run-summary" not in page_of(staff, session, f"?message={said[0].pk}")


def test_a_run_beyond_reach_says_where_it_was_added_up(
    staff: Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "REACH", 20)
    many(session, 120, trace_id="run", tokens=1)
    page = page_of(staff, session, "?trace=run")
    assert "60 tokens" in page
    assert "Added up over #1 to #60, which is not the whole session." in page


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90000, "25 h 0 min"),
    ],
)
def test_a_duration_is_spoken(seconds: float, text: str) -> None:
    assert transcript.spoken(timedelta(seconds=seconds)) == text


# Who


@pytest.mark.parametrize("codenames", [(), ("view_session",), ("view_message",), ("view_user", "view_workspace")])
def test_who_may_not_view_both_gets_403(session: Session, codenames: tuple[str, ...]) -> None:
    new_message(session, "A secret")
    answer = holding(*codenames).get(path(session))
    assert (answer.status_code, b"A secret" in answer.content) == (403, False)


def test_who_may_view_both_reads_it_without_links_to_people(session: Session) -> None:
    new_message(session, "A secret")
    page = page_of(holding("view_session", "view_message"), session)
    assert "A secret" in page
    assert "/admin/accounts/" not in page


def test_strangers_are_sent_to_the_login(client: Client, alice: Caller, session: Session) -> None:
    assert client.get(path(session)).headers["Location"].startswith("/admin/login/")
    client.force_login(alice.user)
    assert client.get(path(session)).headers["Location"].startswith("/admin/login/")


def test_it_is_only_read_and_never_stored(staff: Client, session: Session) -> None:
    answer = staff.get(path(session))
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert staff.head(path(session)).status_code == 200
    for method in (staff.post, staff.put, staff.patch, staff.delete):
        assert method(path(session)).status_code == 405


def test_a_session_links_to_it(staff: Client, session: Session) -> None:
    for page in ("", f"{session.pk}/change/"):
        assert (
            f'<a href="{path(session)}">Transcript</a>'
            in staff.get(f"/admin/conversations/session/{page}").content.decode()
        )


# The cost


@pytest.mark.parametrize(
    "query", ["", "?to={last}", "?message={message}", "?trace=run", "?from=3&message={message}"]
)
def test_a_page_costs_the_same_for_60_and_for_600(
    session: Session, django_assert_max_num_queries: DjangoAssertNumQueries, query: str
) -> None:
    client = holding("view_session", "view_message")
    message = many(session, 60, trace_id="run")[4]
    counts = []
    for _ in range(2):
        session.refresh_from_db()
        at(session, 3, session.last_position - 5).update(status="streaming", role="assistant")
        asked = query.format(last=session.last_position - 5, message=message.pk)
        with django_assert_max_num_queries(12), CaptureQueriesContext(connection) as captured:
            page_of(client, session, asked)
        counts.append(len(captured))
        assert not [q["sql"] for q in captured if "COUNT(" in q["sql"] or "OFFSET" in q["sql"]]
        reads = [q["sql"] for q in captured if 'FROM "conversations_message"' in q["sql"]]
        assert all("LIMIT" in sql or "BETWEEN" in sql or '"position" <=' in sql for sql in reads)
        many(session, 540, trace_id="run")
    assert counts[0] == counts[1]


@pytest.fixture
def crowd(alice: Caller) -> Session:
    """A session of 20,000 messages, and another one as long."""
    for _ in range(2):
        session = new_session(alice)
        many(session, 20_000)
        at(session, 9_000, 9_001).update(trace_id="rare")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return session


@POSTGRES
def test_windows_and_jumps_are_ranges_of_the_index(crowd: Session) -> None:
    for rows in (
        transcript.window_from(crowd, 10_000),
        transcript.window_from(crowd, 10_000, 10_020),
        transcript.window_to(crowd, 10_000),
        transcript.next_said(crowd, 10_000),
        transcript.next_failure(crowd, 10_000),
    ):
        plan = str(rows.explain())
        ranges = re.findall(r"Index Cond: .*", plan.partition("message_position")[2])
        assert ranges, plan
        assert "session_id = " in ranges[0]
        assert '"position" ' in ranges[0]
        assert "Seq Scan on conversations_message" not in plan


@POSTGRES
def test_a_run_is_read_from_its_session_alone(crowd: Session) -> None:
    """Not by the index of trace ids, which PostgreSQL takes where it believes an id to be rare."""
    plan = str(transcript.run_around(crowd, "rare", 9_000, 9_050).explain())
    assert re.search(r"message_position.*\n? *Index Cond: .*session_id = .*position", plan), plan
    assert "message_trace" not in plan
    assert "Seq Scan" not in plan


@POSTGRES
def test_where_a_run_begins_is_found_by_the_index_of_trace_ids(crowd: Session) -> None:
    Message.objects.filter(position__gt=4_000, position__lt=20_000).update(trace_id="everywhere")
    crowd.refresh_from_db()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    for trace in ("rare", "everywhere"):
        with CaptureQueriesContext(connection) as asked:
            transcript.begin_of_run(crowd, trace)
        (query,) = asked.captured_queries
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE) {query['sql']}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
        assert "message_trace" in plan, plan
        assert "Seq Scan" not in plan, plan
        assert max(map(int, re.findall(r"actual .*rows=(\d+)", plan))) <= lookups.MOST_LOOKED_AT + 1
