"""The transcript: a session read top to bottom, in windows of a bounded cost, from text that nobody trusts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from playwright.sync_api import expect
from pytest_django import DjangoAssertNumQueries

from accounts.models import User
from chatstore.environment import BASE_DIR, Environment
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.chat import records
from conversations.models import Message, Session, Turn
from conversations.staff import transcript
from conversations.staff.markdown import TAGS, clean_html
from conversations.tests import test_browser
from conversations.tests.test_browser import Visit

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
POSTGRES = pytest.mark.postgres

HOSTILE = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<img src=x onerror=alert(1)>",
    "<img src=//evil.example/pixel.png>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    '<iframe src="https://evil.example"></iframe>',
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    '<object data="https://evil.example/x.swf"></object>',
    '<embed src="https://evil.example/x.swf">',
    '<link rel=stylesheet href="https://evil.example/x.css">',
    "<style>@import url(https://evil.example/x.css)</style>",
    '<meta http-equiv=refresh content="0;url=https://evil.example">',
    '<base href="https://evil.example/">',
    '<form action="https://evil.example"><input name=a></form>',
    '<button formaction="javascript:alert(1)">x</button>',
    '<video src="https://evil.example/x.mp4" autoplay></video>',
    '<audio src="https://evil.example/x.mp3"></audio>',
    '<details open ontoggle="alert(1)">x</details>',
    '<a href="javascript:alert(1)">x</a>',
    '<a href="https://evil.example" onclick="alert(1)" id="keys" style="position:fixed">x</a>',
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '" onmouseover="alert(1)" x="',
    "' autofocus onfocus='alert(1)",
    "</title></textarea></pre></details></article><script>alert(1)</script>",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox(1))",
    "[x](//evil.example/a)",
    "[x](/admin/logout/)",
    "[x](?raw=1)",
    "![x](https://evil.example/pixel.png)",
    '![x](https://evil.example/pixel.png "onerror=alert(1)")',
    '![x" onerror="alert(1)](https://evil.example/p.png)',
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "[x]: javascript:alert(1)\n\n[x]",
    "![x][y]\n\n[y]: https://evil.example/pixel.png",
    "<javascript:alert(1)>",
    "<https://evil.example/'onmouseover='alert(1)'>",
    "```html\n<script>alert(1)</script>\n```",
    '``` "onmouseover=alert(1)\nx\n```',
    "`<script>alert(1)</script>`",
    "| <img src=x onerror=alert(1)> | b |\n|---|---|\n| <script>alert(1)</script> | d |",
    "> <script>alert(1)</script>",
    "1. <iframe src=x>",
    "{{ 7|safe }}{% load static %}{% include 'x' %}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u202e<script>alert(1)</script>",
]


class Seen(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.found]


def path(session: Session) -> str:
    return f"/admin/conversations/session/{session.pk}/transcript/"


def page_of(client: Client, session: Session, query: str = "") -> str:
    response = client.get(path(session) + query)
    assert response.status_code == 200
    return str(response.content.decode())


def shown(page: str) -> list[int]:
    return [int(found) for found in re.findall(r'<article id="m(\d+)"', page)]


def classes(page: str, position: int) -> list[str]:
    found = re.search(rf'<article id="m{position}" class="([^"]*)"', page)
    assert found
    return found[1].split()


def link(page: str, key: str) -> str | None:
    """Where the link of this key leads."""
    found = re.search(rf'<a href="([^"]*)"(?: rel="\w+")? data-key="{key}"', page)
    return found[1].replace("&amp;", "&") if found else None


def many(session: Session, count: int, **fields: Any) -> list[Message]:
    rows = [
        {"role": "user" if n % 5 == 0 else "assistant", "content": f"Word {n}", **fields} for n in range(count)
    ]
    return services.append(session, rows)[0]


def at(session: Session, *positions: int) -> QuerySet[Message]:
    return Message.objects.filter(session=session, position__in=positions)


def range_of(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def templates(monkeypatch: pytest.MonkeyPatch, value: str) -> Environment:
    monkeypatch.setenv("TRACE_URL_TEMPLATES", value)
    return Environment()


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


# Text that nobody trusts


@pytest.mark.parametrize("raw", ["", "?raw=1"], ids=["rendered", "raw"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(staff: Client, alice: Caller, text: str, raw: str) -> None:
    harmless = new_session(alice, title="Title", agent="agent", group="group")
    new_message(harmless, "Word", "tool_call", tool_name="name", trace_id="id", span_id="span")
    session = new_session(alice, title=text, agent=text, group=text)
    new_message(session, text, "tool_call", tool_name=text, trace_id=text, span_id=text)
    pages = page_of(staff, harmless, raw), page_of(staff, session, raw)
    assert Seen(pages[0]).tags() == Seen(pages[1]).tags()
    assert "<" not in text or text not in pages[1]

    for role in ("user", "assistant", "system"):
        new_message(session, text, role)
    page = page_of(staff, session, f"?{raw.strip('?')}&message={session.pk}&trace={TRACE}")
    assert "<" not in text or text not in page
    for tag, attributes in Seen(page).found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "srcdoc")]
        assert attributes.get("src", "/static/").startswith("/static/")  # type: ignore[union-attr]
        if tag != "link":
            address = attributes.get("href") or "#"
            assert re.match(r"[?#]|/(?!/)|https://evil", address), address
        assert tag not in ("img", "iframe", "object", "embed", "base", "style", "video", "audio", "math")
    outside = [
        attributes for tag, attributes in Seen(page).found if str(attributes.get("href")).startswith("http")
    ]
    assert all(attributes["rel"] == "noopener noreferrer nofollow" for attributes in outside)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_markdown_makes_only_listed_elements(text: str) -> None:
    for tag, attributes in Seen(clean_html(text)).found:
        assert tag in TAGS
        assert set(attributes) <= {"href", "rel", "start"}
        assert (attributes.get("href") or "https://").startswith("https://")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("*a* **b** ~~c~~ `d`", "<p><em>a</em> <strong>b</strong> <s>c</s> <code>d</code></p>"),
        ("one\ntwo", "<p>one<br>\ntwo</p>"),
        ("# A\n\n### B", "<h1>A</h1>\n<h3>B</h3>"),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>'),
        ("> a", "<blockquote>\n<p>a</p>\n</blockquote>"),
        ("```py\na < b\n```", "<pre><code>a &lt; b\n</code></pre>"),
        ("    a", "<pre><code>a\n</code></pre>"),
        ("---", "<hr>"),
        ("| a | b |\n|--:|---|\n| 1 | 2 |", "<table>\n<thead>\n<tr>\n<th>a</th>\n<th>b</th>\n</tr>\n</thead>\n"
         "<tbody>\n<tr>\n<td>1</td>\n<td>2</td>\n</tr>\n</tbody>\n</table>"),
        ("[a](https://b.example/?c=1&d)", '<p><a href="https://b.example/?c=1&amp;d" '
         'rel="noopener noreferrer nofollow">a</a></p>'),
        ("<https://b.example>", '<p><a href="https://b.example" '
         'rel="noopener noreferrer nofollow">https://b.example</a></p>'),
        ("<a@b.example>", '<p><a href="mailto:a@b.example" '
         'rel="noopener noreferrer nofollow">a@b.example</a></p>'),
        ("![a](https://b.example/c.png)", '<p>!<a href="https://b.example/c.png" '
         'rel="noopener noreferrer nofollow">a</a></p>'),
        ("https://b.example", "<p>https://b.example</p>"),
        ("[a](ftp://b.example)", '<p><a rel="noopener noreferrer nofollow">a</a></p>'),
        ("[a](/admin/)", '<p><a rel="noopener noreferrer nofollow">a</a></p>'),
        ("<b>a</b> &amp; &copy;", "<p>&lt;b&gt;a&lt;/b&gt; &amp; ©</p>"),
    ],
)  # fmt: skip
def test_markdown(text: str, html: str) -> None:
    assert clean_html(text).strip() == html


@pytest.mark.parametrize(
    "text", ["> " * 5000 + "a", "[" * transcript.MOST_RENDERED, "*a " * 5000, "- " * 5000, "`" * 9999, "|" * 9999]
)
def test_deep_markdown_is_no_error(text: str) -> None:
    assert clean_html(text)


def test_one_place_of_the_templates_trusts_html() -> None:
    trusting = [
        (file.name, line.strip())
        for file in Path(BASE_DIR).glob("templates/**/*.html")
        for line in file.read_text().splitlines()
        if re.search(r"\|\s*safe|autoescape|safeseq", line)
    ]
    assert trusting == [("transcript.html", "{{ message.html|safe }}")]


def test_the_template_has_no_script_and_no_style_of_its_own() -> None:
    text = (BASE_DIR / "templates/admin/conversations/session/transcript.html").read_text()
    assert not re.search(r"<style|style=|<script(?! src)|\son\w+=|javascript:", text)


# Windows


@pytest.mark.parametrize(
    ("query", "positions"),
    [
        ("", (1, 50)),
        ("?from=1", (1, 50)),
        ("?from=51", (51, 100)),
        ("?from=100", (100, 120)),
        ("?from=120", (120, 120)),
        ("?from=121", (71, 120)),
        ("?from=9223372036854775807", (71, 120)),
        ("?to=120", (71, 120)),
        ("?to=9223372036854775807", (71, 120)),
        ("?to=50", (1, 50)),
        ("?to=10", (1, 10)),
        ("?to=1", (1, 1)),
        ("?from=20&to=30", (20, 30)),
        ("?from=20&to=110", (20, 69)),
        ("?from=30&to=20", (1, 0)),
    ],
)
def test_a_window_is_a_range_of_positions(
    staff: Client, session: Session, query: str, positions: tuple[int, int]
) -> None:
    many(session, 120)
    assert shown(page_of(staff, session, query)) == range_of(*positions)


def test_earlier_and_later_meet_without_a_gap(staff: Client, session: Session) -> None:
    many(session, 120)
    seen: list[int] = []
    query: str | None = ""
    while query is not None:
        page = page_of(staff, session, query.partition("#")[0])
        seen += shown(page)
        query = link(page, "j")
    assert seen == range_of(1, 120)
    back: list[int] = []
    query = link(page, "G")
    while query is not None:
        page = page_of(staff, session, query.partition("#")[0])
        back = shown(page) + back
        query = link(page, "k")
    assert back == range_of(1, 120)


def test_the_ends_offer_nothing_beyond(staff: Client, session: Session) -> None:
    many(session, 51)
    first, last = page_of(staff, session), page_of(staff, session, "?to=51")
    assert (link(first, "k"), link(first, "j")) == (None, "?from=51#m51")
    assert (link(last, "k"), link(last, "j")) == ("?to=1#m1", None)
    assert (link(last, "g"), link(last, "G")) == ("?from=1#m1", "?to=51#m51")


@pytest.mark.parametrize(
    ("removed", "query", "positions", "earlier", "later"),
    [
        ((1, 10), "", range_of(11, 60), "?to=10#m10", "?from=61#m61"),
        ((20, 30), "", [*range_of(1, 19), *range_of(31, 61)], None, "?from=62#m62"),
        ((111, 120), "?from=111", [], "?to=110#m110", None),
        ((1, 10), "?to=10", [], None, "?from=11#m11"),
        ((1, 120), "", [], None, None),
    ],
)
def test_a_window_reads_over_rows_that_are_gone(
    staff: Client, session: Session, removed: tuple[int, int], query: str, positions: Sequence[int],
    earlier: str | None, later: str | None,
) -> None:  # fmt: skip
    many(session, 120)
    at(session, *range_of(*removed)).delete()
    page = page_of(staff, session, query)
    assert (shown(page), link(page, "k"), link(page, "j")) == (positions, earlier, later)


@pytest.mark.parametrize(
    ("position", "first"), [(1, 1), (24, 1), (25, 1), (26, 2), (60, 36), (119, 95), (120, 96)]
)
def test_a_marked_message_opens_the_window_around_it(
    staff: Client, session: Session, position: int, first: int
) -> None:
    said = many(session, 120)
    page = page_of(staff, session, f"?message={said[position - 1].pk}")
    assert shown(page) == range_of(first, min(first + 49, 120))
    assert [n for n in shown(page) if "marked" in classes(page, n)] == [position]
    assert f"?message={said[position - 1].pk}#m{position}" in page


def test_a_message_of_another_session_is_told(staff: Client, alice: Caller, session: Session) -> None:
    many(session, 3)
    other = new_message(new_session(alice), "Elsewhere")
    page = page_of(staff, session, f"?message={other.pk}")
    assert f"Message {other.pk} is not in this session." in page
    assert (shown(page), "Elsewhere" in page, " marked" in page) == ([1, 2, 3], False, False)


@pytest.mark.parametrize("name", ["from", "to", "message"])
@pytest.mark.parametrize(
    "value", ["0", "-1", "01", "1.5", "abc", "%00", "9" * 30, "9223372036854775808", "%D9%A1"]
)
def test_a_malformed_number_is_left_out_with_a_word(
    staff: Client, session: Session, name: str, value: str
) -> None:
    many(session, 3)
    page = page_of(staff, session, f"?{name}={value}")
    assert shown(page) == [1, 2, 3]
    assert f"“{name}” is not a number from 1 on" in page


@pytest.mark.parametrize(
    "query",
    [
        "?trace=%00",
        "?trace=" + "x" * 300,
        "?trace=%FF",
        "?raw=x&o=1&p=2&_popup=1",
        "?from=&to=&message=&trace=",
        "?from=1&from=x",
        "?%00=1",
        "?message=1&message=",
    ],
)
def test_nonsense_is_no_error(staff: Client, session: Session, query: str) -> None:
    many(session, 3)
    assert shown(page_of(staff, session, query)) == [1, 2, 3]


@pytest.mark.parametrize("key", ["0", "-1", "abc", "%00", "99999999999999999999", "9" * 5000, "\uff11", "17"])
def test_a_session_that_is_none_is_a_404(staff: Client, key: str) -> None:
    assert staff.get(f"/admin/conversations/session/{key}/transcript/").status_code == 404


# Jumps


def test_a_jump_leads_to_the_next_beyond_the_window(staff: Client, session: Session) -> None:
    many(session, 120)
    at(session, 1, 80, 90).update(status="failed", role="assistant")
    page = page_of(staff, session)
    assert link(page, "u") == "?from=51#m51"
    assert link(page, "f") == "?from=80#m80"
    assert link(page_of(staff, session, "?from=40&to=80"), "f") == "?from=90#m90"


def test_a_jump_takes_the_highlight_along(staff: Client, session: Session) -> None:
    said = many(session, 120)
    page = page_of(staff, session, f"?message={said[0].pk}&trace=a%26b&raw=1")
    assert link(page, "u") == f"?message={said[0].pk}&trace=a%26b&raw=1&from=51#m51"


def test_a_jump_that_finds_nothing_says_how_far_it_looked(
    staff: Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "REACH", 20)
    many(session, 120)
    at(session, 71).update(status="failed", role="assistant")
    page = page_of(staff, session)
    assert link(page, "f") is None
    assert "No failure in #51 to #70." in page
    assert link(page_of(staff, session, "?from=2"), "f") == "?from=71#m71"
    assert "No failure in the rest of the session." in page_of(staff, session, "?to=110")


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


# Links to the tracing system

EACH = (
    '{"hex": "https://t.example/hex/{trace_id}/{trace_id_hex}?s={span_id}",'
    ' "uuid": "https://t.example/uuid/{trace_id}/{trace_id_hex}",'
    ' "openai": "https://t.example/openai?id={trace_id}&hex={trace_id_hex}",'
    ' "other": "http://t.example/other/{trace_id}"}'
)


@pytest.mark.parametrize(
    ("trace_id", "span_id", "url"),
    [
        (TRACE, "ab", f"https://t.example/hex/{TRACE}/{TRACE}?s=ab"),
        (TRACE.upper(), None, f"https://t.example/hex/{TRACE.upper()}/{TRACE}?s="),
        (TRACE, "a/b&c", f"https://t.example/hex/{TRACE}/{TRACE}?s=a%2Fb%26c"),
        (
            "0190B2F8-5c1e-7d3a-8b0e-3f1f2d3c4b5a",
            None,
            "https://t.example/uuid/0190B2F8-5c1e-7d3a-8b0e-3f1f2d3c4b5a/0190b2f85c1e7d3a8b0e3f1f2d3c4b5a",
        ),
        (f"trace_{TRACE}", None, f"https://t.example/openai?id=trace_{TRACE}&hex={TRACE}"),
        (f"trace_{TRACE}0", None, f"http://t.example/other/trace_{TRACE}0"),
        ("a b/../c?d#e", None, "http://t.example/other/a%20b%2F..%2Fc%3Fd%23e"),
        ("{span_id}é", None, "http://t.example/other/%7Bspan_id%7D%C3%A9"),
        (TRACE + "\n", None, f"http://t.example/other/{TRACE}%0A"),
        ("..", None, ""),
        ("", None, ""),
        (None, "ab", ""),
    ],
)
def test_a_trace_links_to_the_system_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, settings: Any, trace_id: str | None, span_id: str | None, url: str
) -> None:
    settings.ENVIRONMENT = templates(monkeypatch, EACH)
    assert transcript.trace_url(trace_id, span_id) == url


def test_the_page_links_to_it(
    staff: Client, session: Session, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.ENVIRONMENT = templates(monkeypatch, EACH)
    new_message(session, trace_id=f"trace_{TRACE}")
    new_message(session)
    page = page_of(staff, session)
    url = f"https://t.example/openai?id=trace_{TRACE}&amp;hex={TRACE}"
    assert f'<a href="{url}" rel="noopener noreferrer nofollow" class="out">open trace</a>' in page
    assert page.count("open trace") == 1


def test_without_the_setting_there_is_no_link(staff: Client, session: Session) -> None:
    new_message(session, trace_id=TRACE)
    assert "open trace" not in page_of(staff, session)


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "secret",
        '"https://t.example/{trace_id}"',
        '{"hexadecimal": "https://t.example/{trace_id}"}',
        '{"hex": 1}',
        '{"hex": ""}',
        '{"hex": "javascript:alert({trace_id})"}',
        '{"hex": "ftp://secret/{trace_id}"}',
        '{"hex": "//secret/{trace_id}"}',
        '{"hex": "https:///{trace_id}"}',
        '{"hex": "https://{trace_id}/"}',
        '{"hex": "https://secret{trace_id}"}',
        '{"hex": "https://{span_id}@secret/"}',
        '{"hex": "https://secret/{trace_id.__class__}"}',
        '{"hex": "https://secret/{trace_id!r}"}',
        '{"hex": "https://secret/{trace_id:>99}"}',
        '{"hex": "https://secret/{}"}',
        '{"hex": "https://secret/{trace}"}',
        '{"hex": "https://secret/{trace_id"}',
        '{"hex": "https://[secret/{trace_id}"}',
        '{"other": "https://secret/{trace_id_hex}"}',
    ],
)
def test_a_template_that_leads_nowhere_is_refused_at_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(ValueError, match="trace_url_templates") as refused:
        templates(monkeypatch, value)
    assert "secret" not in str(refused.value)


# Who


def viewer_of(*codenames: str) -> Client:
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("codenames", [(), ("view_session",), ("view_message",), ("view_user", "view_workspace")])
def test_who_may_not_view_both_gets_403(session: Session, codenames: tuple[str, ...]) -> None:
    new_message(session, "A secret")
    answer = viewer_of(*codenames).get(path(session))
    assert (answer.status_code, b"A secret" in answer.content) == (403, False)


def test_who_may_view_both_reads_it_without_links_to_people(session: Session) -> None:
    new_message(session, "A secret")
    page = page_of(viewer_of("view_session", "view_message"), session)
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
    client = viewer_of("view_session", "view_message")
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
def test_a_run_is_found_by_an_index(crowd: Session) -> None:
    for rows in (transcript.first_of_trace(crowd, "rare"), transcript.run_around(crowd, "rare", 9_000, 9_050)):
        plan = str(rows.explain())
        assert "message_trace" in plan or "message_position" in plan, plan
        assert "Seq Scan" not in plan


# In a browser. `visit` fails where the content security policy refused anything, or another host was asked

browser = test_browser.browser
visit = test_browser.visit
BROWSER = pytest.mark.browser


def open_page(visit: Visit, session: Session, query: str = "") -> None:
    visit.page.goto("about:blank")
    visit.page.goto(f"{visit.site}{path(session)}{query}")


def press(visit: Visit, key: str, position: int) -> None:
    """A key, and the message that has the focus after it."""
    visit.page.keyboard.press(key)
    expect(visit.page.locator(f"#m{position}")).to_be_focused()


@BROWSER
def test_hostile_text_does_nothing_in_a_browser(visit: Visit, sam: Caller, alice: Caller) -> None:
    session = new_session(alice, title=test_browser.HOSTILE)
    for text in HOSTILE[:49]:
        new_message(session, text, "assistant", trace_id=text, span_id=text, tool_name=text)
    new_message(session, test_browser.HOSTILE, "tool_call", tool_name=test_browser.HOSTILE, trace_id="last")
    visit.log_in(sam)
    visit.page.on("dialog", lambda dialog: visit.errors.append(dialog.message))
    for query, count in (("", 50), ("?raw=1", 50), ("?trace=last", 1)):
        open_page(visit, session, query)
        visit.page.wait_for_load_state("networkidle")
        expect(visit.page.locator("article.said")).to_have_count(count)
        assert visit.page.title() != "owned"


@BROWSER
def test_keys_lead_through_a_session(visit: Visit, sam: Caller, session: Session) -> None:
    many(session, 60)
    at(session, 8, 58).update(status="failed", role="assistant")
    visit.log_in(sam)
    open_page(visit, session)
    for key, position in [("j", 1), ("j", 2), ("k", 1), ("u", 6), ("f", 8), ("f", 58), ("k", 57), ("g", 1)]:
        press(visit, key, position)
    for key, position in [("u", 6), ("G", 60), ("j", 60), ("g", 1), ("k", 1)]:
        press(visit, key, position)
    expect(visit.page.locator("#told")).to_have_text("That was the first message.")
    visit.page.keyboard.press("Control+j")
    expect(visit.page.locator("#m1")).to_be_focused()
    press(visit, "j", 2)
    press(visit, "r", 2)
    expect(visit.page.locator("#m2 pre")).to_have_text("Word 1")
    visit.page.keyboard.press("?")
    expect(visit.page.locator("#keys")).to_be_visible()
    visit.page.keyboard.press("j")
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("#m2")).to_be_focused()
    visit.page.focus("#place")
    visit.page.keyboard.type("3jkufgGr?")
    expect(visit.page.locator("#place")).to_be_focused()
    visit.page.fill("#place", "30")
    visit.page.press("#place", "Enter")
    expect(visit.page.locator("article.said").first).to_have_id("m30")


@BROWSER
def test_an_id_is_copied_and_a_marked_message_has_the_focus(visit: Visit, sam: Caller, session: Session) -> None:
    many(session, 40)
    message = new_message(session, "x", "tool_call", tool_name="grep", trace_id=TRACE, span_id="a <b> & c")
    visit.log_in(sam)
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_page(visit, session, f"?message={message.pk}")
    expect(visit.page.locator("#m41")).to_be_focused()
    expect(visit.page.locator("#m41 details")).to_have_attribute("open", "")
    for name, text in [("Copy the trace id", TRACE), ("Copy the span id", "a <b> & c")]:
        visit.page.get_by_role("button", name=name).click()
        expect(visit.page.locator("#told")).to_have_text("Copied.")
        assert visit.page.evaluate("navigator.clipboard.readText()") == text


@BROWSER
def test_a_narrow_screen_is_not_scrolled_sideways(visit: Visit, sam: Caller, session: Session) -> None:
    new_message(
        session, "x" * 500 + "\n\n|" + "a|" * 40 + "\n|" + "-|" * 40, trace_id="t" * 255, tool_name="n" * 255
    )
    visit.log_in(sam)
    visit.page.set_viewport_size({"width": 390, "height": 800})
    open_page(visit, session)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
