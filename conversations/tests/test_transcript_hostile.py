"""A transcript of text that nobody trusts; and what a browser makes of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.test import Client
from playwright.sync_api import expect

from chatstore.environment import BASE_DIR
from conftest import Caller, new_message, new_session
from conversations.models import Session
from conversations.staff import transcript
from conversations.staff.markdown import TAGS, clean_html
from conversations.tests import test_browser
from conversations.tests.test_browser import Visit
from conversations.tests.transcripts import TRACE, Seen, at, many, page_of, path

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


# Text that nobody trusts


@pytest.mark.once
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
