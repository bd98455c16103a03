"""Staff paste anything: one message is reached by every spelling of its trace, at a bounded cost."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.models import Message, Session
from conversations.staff.find import MOST_SHOWN, find
from conversations.staff.links import transcript_url
from conversations.staff.traces import MOST_CANDIDATES, Kind, candidates_in

FIND = "/admin/find/"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
DASHED = str(uuid.UUID(TRACE))
OPENAI = f"trace_{TRACE}"
OPENAI_SPAN = "span_838c0f1a2b3c4d5e6f708192"

PASTED = {
    "hex": TRACE,
    "upper-case": TRACE.upper(),
    "uuid": DASHED,
    "upper-case-uuid": DASHED.upper(),
    "openai": OPENAI,
    "0x": f"0x{TRACE}",
    "spaces": f"  {TRACE}\r\n",
    "quoted": f'"{TRACE}",',
    "traceparent": f"traceparent: 00-{TRACE}-{SPAN}-01",
    "sentry-trace": f"sentry-trace: {TRACE}-{SPAN}-1",
    "baggage": f"sentry-release=1.2,sentry-trace_id={TRACE}",
    "langfuse": f"https://cloud.langfuse.com/project/clx1a2b3c/traces/{TRACE}?timestamp=2026-11-22T06:00:00Z",
    "langfuse-peek": f"https://cloud.langfuse.com/project/clx1/traces?peek={TRACE}",
    "phoenix": f"http://localhost:6006/redirects/traces/{TRACE}",
    "phoenix-project": f"http://localhost:6006/projects/UHJvamVjdDox/traces/{TRACE}?selectedSpanNodeId=U3Bh",
    "langsmith": f"https://smith.langchain.com/o/{uuid.UUID(int=5)}/projects/p/{uuid.UUID(int=6)}/r/{DASHED}",
    "jaeger": f"http://jaeger:16686/trace/{TRACE}?uiFind={SPAN}",
    "sentry": f"https://acme.sentry.io/explore/traces/trace/{TRACE}/?node=span-{SPAN}",
    "openai-url": f"https://platform.openai.com/logs/trace?trace_id={OPENAI}",
    "fragment": f"https://example.com/app#/traces/{TRACE}",
    "encoded": f"https://example.com/login?next=%2Ftraces%2F{TRACE}%3Fa%3D1",
    "encoded-twice": f"https://example.com/login?next=%252Ftraces%252F{TRACE}%253Fa",
    "json": f'{{"level": "error", "traceId": "{TRACE}", "n": 12}}',
    "escaped-json": f'{{"body": "{{\\"trace_id\\":\\"{TRACE}\\"}}\\nsent"}}',
    "escaped-newline": f"failed\\n{TRACE}\\nagain",
    "log-line": f"2026-11-22 06:00:00,123 ERROR agent[4711] trace_id={TRACE} span_id={SPAN} timed out",
    "ticket": f"Hi,\nthe assistant of bob@example.com lied in {DASHED}.\nThanks, Al",
    "prefix": TRACE[:8],
    "shortened": f"{TRACE[:12]}...",
    "prefix-of-uuid": DASHED[:20],
    "prefix-in-words": f"see trace {TRACE[:10]} please",
}
STORED = {
    "hex": TRACE,
    "upper-case": TRACE.upper(),
    "uuid": DASHED,
    "upper-uuid": DASHED.upper(),
    "openai": OPENAI,
}


@pytest.fixture
def viewer(db: None) -> User:
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_message"))
    return user


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
    other = Session.objects.filter(pk=message.pk).first()
    while other is None:
        made = new_session(alice)
        message = message if made.pk < message.pk else new_message(session)
        other = Session.objects.filter(pk=message.pk).exclude(pk=session.pk).first()
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


def test_what_was_recognised_is_said(staff: Client, session: Session) -> None:
    new_message(session, trace_id="another")
    said = staff.get(FIND, {"q": f"trace {DASHED} of <nobody@example.com>"}).content.decode()
    assert f"trace or session id: <code>{DASHED}</code>" in said
    assert "email address: <code>nobody@example.com</code>" in said


# Who


def test_strangers_are_sent_to_the_login(alice: Caller) -> None:
    logged_in = Client()
    logged_in.force_login(alice.user)
    for client in (Client(), logged_in):
        assert client.get(FIND, {"q": TRACE}).headers["Location"].startswith("/admin/login/")
    assert alice.get(f"{FIND}?q={TRACE}").headers["Location"].startswith("/admin/login/")


def test_staff_without_the_permission_see_neither_page_nor_box(db: None) -> None:
    client = Client()
    client.force_login(User.objects.create_user("norma", is_staff=True))
    assert client.get(FIND, {"q": TRACE}).status_code == 403
    assert "staff-find-text" not in client.get("/admin/").content.decode()


def test_the_box_is_on_every_page_and_has_the_focus_on_its_own(viewer: User) -> None:
    client = Client()
    client.force_login(viewer)
    for path, focused in (("/admin/", 0), ("/admin/conversations/message/", 0), (FIND, 1)):
        said = client.get(path).content.decode()
        assert 'for="staff-find-text"' in said
        assert said.count(" autofocus") == focused
    assert "staff-find-text" not in Client().get("/admin/login/").content.decode()


def test_it_is_read_only(staff: Client) -> None:
    assert staff.post(FIND, {"q": TRACE}).status_code == 405


# Nonsense and cost

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


@pytest.mark.parametrize(
    "query",
    [
        "q=%00",
        "q=a%00b",
        "q=%ED%A0%80",
        "q=%2500",
        "q=%25ED%25A0%2580",
        "q=%",
        "q=",
        "",
        "q=-1",
        f"q={2**63}",
        f"q={'9' * 5000}",
        "q=%27%22%3C",
        "x=1",
        "q=%5C%25_%25_%25",
    ],
)
def test_nonsense_is_no_error(staff: Client, session: Session, query: str) -> None:
    assert staff.get(f"{FIND}?{query}").status_code == 200


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


@pytest.mark.postgres
@pytest.mark.parametrize("pasted", [EVERYTHING, "ab12cd34", "alice@example.com", "17", TRACE])
def test_each_query_uses_an_index(alice: Caller, plain_rows: Callable[[User], Any], pasted: str) -> None:
    plain_rows(alice.user)
    with CaptureQueriesContext(connection) as asked:
        find(candidates_in(pasted))
    assert asked.captured_queries
    with connection.cursor() as cursor:
        for query in asked.captured_queries:
            cursor.execute(f"EXPLAIN {query['sql']}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "Seq Scan on conversations" not in plan, plan


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
