"""Staff paste anything: one message is reached by every spelling of its trace, at a bounded cost."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.models import Message, Session
from conversations.staff.find import MOST_SHOWN, find
from conversations.staff.links import transcript_url
from conversations.staff.lookups import MOST_LOOKED_AT
from conversations.staff.traces import MOST_CANDIDATES, Kind, candidates_in
from conversations.tests.colleagues import FIND

# What staff see is of the same code on either database; on SQLite a browser opens each page.
pytestmark = pytest.mark.postgres

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
DASHED = str(uuid.UUID(TRACE))
OPENAI = f"trace_{TRACE}"
OPENAI_SPAN = "span_838c0f1a2b3c4d5e6f708192"

# What people paste of one trace, and the message that it is to reach.
SPELLINGS = r"""
hex                  4bf92f3577b34da6a3ce929d0e0e4736
upper case           4BF92F3577B34DA6A3CE929D0E0E4736
UUID                 4bf92f35-77b3-4da6-a3ce-929d0e0e4736
upper-case UUID      4BF92F35-77B3-4DA6-A3CE-929D0E0E4736
OpenAI               trace_4bf92f3577b34da6a3ce929d0e0e4736
0x                   0x4bf92f3577b34da6a3ce929d0e0e4736
quoted               "4bf92f3577b34da6a3ce929d0e0e4736",
traceparent          traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
Sentry header        sentry-trace: 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1
baggage              sentry-release=1.2,sentry-trace_id=4bf92f3577b34da6a3ce929d0e0e4736
Langfuse             https://cloud.langfuse.com/project/clx1a2/traces/4bf92f3577b34da6a3ce929d0e0e4736?timestamp=2026-11-22T06:00:00Z
Langfuse peek        https://cloud.langfuse.com/project/clx1/traces?peek=4bf92f3577b34da6a3ce929d0e0e4736
Phoenix              http://localhost:6006/redirects/traces/4bf92f3577b34da6a3ce929d0e0e4736
Phoenix project      http://localhost:6006/projects/UHJvamVjdDox/traces/4bf92f3577b34da6a3ce929d0e0e4736?selectedSpanNodeId=U3Bh
LangSmith            https://smith.langchain.com/o/00000000-0000-0000-0000-000000000005/projects/p/00000000-0000-0000-0000-000000000006/r/4bf92f35-77b3-4da6-a3ce-929d0e0e4736
Jaeger               http://jaeger:16686/trace/4bf92f3577b34da6a3ce929d0e0e4736?uiFind=00f067aa0ba902b7
Sentry               https://acme.sentry.io/explore/traces/trace/4bf92f3577b34da6a3ce929d0e0e4736/?node=span-00f067aa0ba902b7
OpenAI URL           https://platform.openai.com/logs/trace?trace_id=trace_4bf92f3577b34da6a3ce929d0e0e4736
fragment of a URL    https://example.com/app#/traces/4bf92f3577b34da6a3ce929d0e0e4736
URL in a URL         https://example.com/login?next=%2Ftraces%2F4bf92f3577b34da6a3ce929d0e0e4736%3Fa%3D1
encoded twice        https://example.com/login?next=%252Ftraces%252F4bf92f3577b34da6a3ce929d0e0e4736%253Fa
JSON                 {"level": "error", "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "n": 12}
JSON in JSON         {"body": "{\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}\nsent"}
escaped line ends    failed\n4bf92f3577b34da6a3ce929d0e0e4736\nagain
log line             2026-11-22 06:00:00,123 ERROR agent[4711] trace_id=4bf92f3577b34da6a3ce929d0e0e4736 timed out
ticket               the assistant of bob@example.com lied in 4bf92f35-77b3-4da6-a3ce-929d0e0e4736. Thanks, Al
beginning            4bf92f35
shortened            4bf92f3577b3...
beginning of UUID    4bf92f35-77b3-4da6-a
beginning in words   see trace 4bf92f3577 please
"""
WIDTH = 21
PASTED = {line[:WIDTH].strip(): line[WIDTH:] for line in SPELLINGS.strip().splitlines()} | {
    "spaces": f"  {TRACE}\r\n",
    "lines": f"Hi,\nthe assistant lied in\n{DASHED}\nThanks, Al",
}
STORED = {
    "hex": TRACE,
    "upper-case": TRACE.upper(),
    "uuid": DASHED,
    "upper-uuid": DASHED.upper(),
    "openai": OPENAI,
}


def reached(client: Client, pasted: str) -> str:
    """Where the search leads; empty where it shows a page."""
    response = client.get(FIND, {"q": pasted})
    assert response.status_code in (200, 302)
    return response.headers.get("Location", "")


def place(message: Message) -> str:
    return (
        f"/admin/conversations/session/{message.session_id}/transcript/?message={message.pk}#m{message.position}"
    )


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
@pytest.mark.parametrize("pasted", PASTED.values(), ids=PASTED)
def test_every_spelling_reaches_the_message(staff: Client, session: Session, pasted: str, stored: str) -> None:
    message = new_message(session, trace_id=stored)
    new_message(session, trace_id="another")
    assert reached(staff, pasted) == place(message)


@pytest.mark.parametrize(
    ("stored", "pasted"),
    [
        pytest.param(SPAN, SPAN.upper(), id="span"),
        pytest.param(SPAN, f"00-{TRACE}-{SPAN}-01", id="traceparent"),
        pytest.param(OPENAI_SPAN, OPENAI_SPAN, id="openai"),
        pytest.param(OPENAI_SPAN, OPENAI_SPAN[5:], id="openai-bare"),
        pytest.param(DASHED, f"run {DASHED}", id="langsmith"),
        pytest.param("step 7", "step 7", id="any"),
        pytest.param("step-7", "span_id=step-7 failed", id="labelled"),
    ],
)
def test_a_span_reaches_its_message(staff: Client, session: Session, stored: str, pasted: str) -> None:
    message = new_message(session, span_id=stored)
    assert reached(staff, pasted) == place(message)


@pytest.mark.parametrize(
    ("stored", "pasted"),
    [
        ("17 runs", "17 runs"),
        ("run-17", '{"trace_id": "run-17"}'),
        ("0" * 16 + SPAN, SPAN),
        (SPAN, "0" * 16 + SPAN),
    ],
)
def test_a_trace_id_may_look_like_anything(staff: Client, session: Session, stored: str, pasted: str) -> None:
    message = new_message(session, trace_id=stored)
    assert reached(staff, pasted) == place(message)


@pytest.mark.parametrize("pasted", ["message {0.pk}", "message_id={0.pk}", "/admin/conversations/message/{0.pk}/"])
def test_a_message_is_reached_by_its_number(staff: Client, session: Session, pasted: str) -> None:
    message = new_message(session)
    assert reached(staff, pasted.format(message)) == place(message)


@pytest.mark.parametrize(
    "pasted",
    [
        "{0.session_id}",
        "session {0.pk}",
        "/api/sessions/{0.pk}/messages/",
        "/admin/conversations/session/{0.pk}/change/",
        "{0.session_id.hex}",
    ],
)
def test_a_session_is_reached_by_its_number_and_its_uuid(staff: Client, session: Session, pasted: str) -> None:
    assert reached(staff, pasted.format(session)) == transcript_url(session.pk)


def test_an_integer_may_be_both(alice: Caller, session: Session) -> None:
    message = new_message(session)
    if not Session.objects.filter(pk=message.pk).exists():
        Session.objects.filter(pk=new_session(alice).pk).update(id=message.pk)
    found = find(candidates_in(str(message.pk)))
    assert ([hit.id for hit in found.messages], [hit.session.pk for hit in found.sessions]) == (
        [message.pk],
        [message.pk],
    )


def test_an_email_lists_the_persons_sessions(staff: Client, session: Session) -> None:
    page = staff.get(FIND, {"q": "mailto:ALICE@Example.com"})
    assert [hit.session.pk for hit in page.context["found"].sessions] == [session.pk]


def test_several_of_one_trace_in_one_session_are_reached_at_the_first(staff: Client, session: Session) -> None:
    first = new_message(session, trace_id="run/7&")
    for _ in range(MOST_SHOWN + 5):
        new_message(session, trace_id="run/7&")
    assert reached(staff, "run/7&") == place(first).replace("#", "&trace=run%2F7%26#")


def test_the_span_of_a_traceparent_is_aimed_at(staff: Client, session: Session) -> None:
    new_message(session, trace_id=TRACE)
    aimed = new_message(session, trace_id=TRACE, span_id=SPAN)
    assert reached(staff, f"00-{TRACE}-{SPAN}-01") == place(aimed).replace("#", f"&trace={TRACE}#")


@pytest.mark.parametrize("count", [1, MOST_SHOWN + 5])
def test_several_are_listed(staff: Client, alice: Caller, session: Session, count: int) -> None:
    elsewhere = new_message(session, "<b>bold</b>" + "x" * 200, trace_id=TRACE)
    newer = new_session(alice, title="<i>Trip</i>")
    services.append(newer, [{"role": "user", "content": "Hi", "trace_id": TRACE}] * count)
    page = staff.get(FIND, {"q": TRACE})
    assert {hit.session.pk for hit in page.context["found"].messages} == {newer.pk, elsewhere.session_id}
    assert all(len(hit.excerpt) <= 120 for hit in page.context["found"].messages)
    said = page.content.decode()
    assert "&lt;b&gt;bold" in said
    assert "&lt;i&gt;Trip" in said
    assert " UTC</time>" in said


def test_what_is_deleted_is_found_and_marked(staff: Client, alice: Caller, session: Session) -> None:
    gone = new_message(session, trace_id=TRACE)
    services.delete_message(gone)
    assert reached(staff, TRACE) == place(gone)
    trashed = new_session(alice)
    new_message(trashed, trace_id=TRACE)
    services.trash_session(trashed)
    said = staff.get(FIND, {"q": TRACE}).content.decode()
    assert "<strong>deleted</strong>" in said
    assert "<strong>session deleted</strong>" in said


# Hostile texts, and the cost

HOSTILE = {
    "hex": "a1" * 10_000,
    "groups": "abcdef12-" * 2222,
    "half-uuids": "abcdef12-1234-1234-" * 1052,
    "labels": "trace:" * 3333,
    "labelled": "trace_id=a1 " * 1666,
    "quotes": "trace" + '"' * 19_995,
    "at": "a@" * 10_000,
    "emails": "a1@b.cd " * 2500,
    "dots": "a@" + "b." * 9_999,
    "percent": "%" * 20_000,
    "percents": "%25" * 6_666,
    "ids": f"{TRACE} " * 606,
    "different": " ".join(f"{n:032x}" for n in range(606)),
    "prefixes": " ".join(f"{n:07x}a1" for n in range(2000)),
    "backslashes": "\\n" * 10_000,
    "spaces": " " * 20_000,
    "digits": "9" * 20_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_costs_little(text: str) -> None:
    taken = []
    for _ in range(3):  # The best of three: the machine may be busy.
        started = time.perf_counter()
        found = candidates_in(text)
        taken.append(time.perf_counter() - started)
    assert len(found) <= MOST_CANDIDATES
    assert min(taken) < 0.05


def test_no_more_is_read_than_the_bound() -> None:
    assert candidates_in(" " * 20_000 + TRACE) == []


EVERYTHING = " ".join(
    [TRACE, SPAN, OPENAI_SPAN, "message 9", "session 9", "a@example.com alice@example.com", "ab12cd34 ab12cd35"]
)


@pytest.mark.parametrize("stored", ["another", TRACE, "ab12cd34ffff"])
@pytest.mark.parametrize("count", [1, 60])
def test_the_queries_are_few(alice: Caller, session: Session, stored: str, count: int) -> None:
    services.append(session, [{"role": "user", "content": "Hi", "trace_id": stored}] * count)
    with CaptureQueriesContext(connection) as asked:
        assert find(candidates_in(EVERYTHING))
    assert len(asked) <= 7


@pytest.mark.parametrize("pasted", ["trace_17%", "trace-_17", "TRACE-17 x"])
def test_a_pattern_is_no_pattern(session: Session, pasted: str) -> None:
    new_message(session, trace_id="trace-1711")
    assert not find(candidates_in(pasted))


def test_kinds_are_the_surest_first() -> None:
    kinds = [named.kind for named in candidates_in(EVERYTHING)]
    assert kinds == sorted(kinds, key=list(Kind).index)


def plans_of(pasted: str, explain: str = "EXPLAIN") -> list[str]:
    """How the database answers what is asked for this text."""
    with CaptureQueriesContext(connection) as asked:
        assert find(candidates_in(pasted)) is not None
    explain = explain if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connection.cursor() as cursor:
        plans = []
        for query in asked.captured_queries:
            cursor.execute(f"{explain} {query['sql']}")
            plans.append("\n".join(str(line[-1]) for line in cursor.fetchall()))
    assert plans
    return plans


def test_each_query_uses_an_index(alice: Caller, plain_rows: Callable[[User], Any]) -> None:
    plain_rows(alice.user)
    for pasted in (EVERYTHING, "ab12cd34", "alice@example.com", "17", TRACE, "message 5"):
        for plan in plans_of(pasted):
            assert not re.search(r"Seq Scan on conversations|SCAN conversations", plan), plan


def test_an_id_on_very_many_messages_is_looked_up_as_fast(
    alice: Caller, plain_rows: Callable[[User], Any]
) -> None:
    """No further than the bound, whatever PostgreSQL knows of how frequent it is."""
    plain_rows(alice.user)
    last = Session.objects.order_by("-pk")[0].pk
    for shared, since in ((TRACE, last - 1900), ("run-of-all", last - 900)):
        Message.objects.filter(session__gt=since).update(trace_id=shared)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    for pasted in (TRACE, OPENAI, TRACE[:8], "run-of-all", "run-of-al"):
        found = find(candidates_in(pasted))
        assert (len(found.messages), found.has_more, found.is_cut) == (MOST_SHOWN + 1, True, True)
        assert found.destination is None
        for plan in plans_of(pasted, "EXPLAIN (ANALYZE)"):
            read = re.findall(r"actual .*rows=(\d+)|Rows Removed by Filter: (\d+)", plan)
            assert all(int(seen or removed) <= MOST_LOOKED_AT + 2 for seen, removed in read), plan
            assert not re.search(r"Seq Scan on conversations|SCAN conversations|TEMP B-TREE", plan), plan


@pytest.mark.parametrize("people", [1, 3])
def test_of_each_person_no_more_is_read_than_is_shown(
    alice: Caller, plain_rows: Callable[[User], Any], people: int
) -> None:
    owners = [alice.user, *(User.objects.create_user(f"p{n}", email=alice.user.email) for n in range(people - 1))]
    plain_rows(alice.user)
    newest = list(Session.objects.order_by("-pk")[: 100 * people])
    for n, session in enumerate(newest):
        session.owner = owners[n % people]
        session.updated_at += timedelta(seconds=len(newest) - n)
    Session.objects.bulk_update(newest, ["owner", "updated_at"])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    found = find(candidates_in("alice@example.com"))
    assert [hit.session.pk for hit in found.sessions] == [session.pk for session in newest[:MOST_SHOWN]]
    assert (found.has_more, found.is_of_people, found.messages) == (True, True, [])
    for plan in plans_of("alice@example.com", "EXPLAIN (ANALYZE)"):
        read = re.findall(r"actual .*rows=(\d+)|Rows Removed by Filter: (\d+)", plan)
        assert all(int(seen or removed) <= (MOST_SHOWN + 1) * people for seen, removed in read), plan
        scans = re.findall(r"Scan .*conversations_session .*actual .*rows=(\d+) loops=(\d+)", plan)
        assert all(int(seen) * int(loops) <= MOST_SHOWN + 1 for seen, loops in scans), plan
        assert not re.search(r"Seq Scan on conversations|SCAN conversations", plan), plan


@pytest.fixture
def plain_rows(db: None) -> Callable[[User], Any]:
    """Three thousand sessions of one person, ten messages in each: on fewer a scan is the cheapest plan."""

    def made(owner: User) -> None:
        now = owner.date_joined
        where = {"owner": owner, "workspace": owner.personal_workspace(), "owner_public_id": owner.public_id}
        sessions = Session.objects.bulk_create(
            Session(**where, created_at=now, updated_at=now, last_activity=now) for _ in range(3000)
        )
        Message.objects.bulk_create(
            Message(session=s, position=n, role="user", content="x", version=1, created_at=now, updated_at=now,
                    trace_id=f"{s.pk:032x}", span_id=f"{s.pk:014x}{n:02x}")
            for s in sessions
            for n in range(1, 11)
        )  # fmt: skip
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")

    return made
