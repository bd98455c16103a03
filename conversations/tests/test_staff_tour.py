"""What a member of Operations does in a morning, in a real browser: from a line of a log to a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from playwright.sync_api import Browser, Locator, Page, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import User
from conversations import services
from conversations.models import Message, Session
from conversations.tests import test_browser
from conversations.tests.chat_clients import configure
from conversations.tests.colleagues import MESSAGES, SESSIONS, logged
from conversations.tests.test_browser import PASSWORD, Visit

pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.usefixtures("groups")]

browser = test_browser.browser
visit = test_browser.visit

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
LINE = (
    f'2026-03-03T12:00:01.220Z ERROR agent.run failed {{"trace_id": "{TRACE}", "span_id": "{SPAN}", "attempt": 2}}'
)
RUN = [61, 62, 63, 64, 65]
CALL, LATER_FAILURE, LENGTH = 63, 110, 120


@pytest.fixture
def talk(session: Session, settings: Settings) -> Session:
    """A session of several pages; in its middle a run with two calls that failed, and a later failure."""
    configure(settings, trace_url_templates=(("hex", "https://traces.example/t/{trace_id_hex}?span={span_id}"),))
    rows: list[dict[str, Any]] = [
        {"role": "assistant" if n % 2 else "user", "content": f"Word {n}\n\nAnd more of it.", "tokens": 1}
        for n in range(LENGTH)
    ]
    of_run: list[dict[str, Any]] = [
        {"role": "user", "content": "Where is my order?", "tokens": 5},
        {"role": "assistant", "content": "I shall look.", "tokens": 7},
        {"role": "tool_call", "content": "Order 17", "tool_name": "look_up_order", "span_id": SPAN},
        {"role": "tool_call", "content": "Parcel 4", "tool_name": "track_parcel"},
        {"role": "assistant", "content": "It is", "tokens": 30},
    ]
    rows[RUN[0] - 1 : RUN[-1]] = [{**row, "trace_id": TRACE} for row in of_run]
    services.append(session, rows)
    Message.objects.filter(session=session, position__in=[RUN[-1], LATER_FAILURE]).update(status="failed")
    return session


def colleague(name: str, group: str) -> None:
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True)
    user.groups.add(Group.objects.get(name=group))


def log_in(page: Page, site: str, name: str) -> None:
    page.goto(f"{site}/admin/")
    page.fill("#id_username", name)
    page.fill("#id_password", PASSWORD)
    page.click("input[type=submit]")
    expect(page.locator("#user-tools")).to_contain_text(name, ignore_case=True)


def paste(page: Page, text: str) -> None:
    page.fill("#staff-find-text", text)
    page.press("#staff-find-text", "Enter")


def expect_to_be_at(page: Page, position: int) -> None:
    """The message is in sight, and the keyboard goes on from it."""
    article = page.locator(f"#m{position}")
    expect(article).to_be_in_viewport(ratio=0.9)
    expect(article).to_be_focused()


def positions_of(articles: Locator) -> list[int]:
    return [int(found[1:]) for found in articles.evaluate_all("all => all.map((one) => one.id)")]


@pytest.fixture
def landed(visit: Visit, talk: Session) -> Page:
    """Olga of Operations has logged in and pasted the line into the box on top of the front page."""
    colleague("olga", "Operations")
    log_in(visit.page, visit.site, "olga")
    paste(visit.page, LINE)
    expect_to_be_at(visit.page, CALL)  # So the script has begun, which takes the keys.
    return visit.page


def test_a_line_of_a_log_leads_to_its_message(landed: Page, talk: Session) -> None:
    assert f"{SESSIONS}{talk.pk}/transcript/" in landed.url
    marked = landed.locator("article.marked")
    assert positions_of(marked) == [CALL]
    expect_to_be_at(landed, CALL)
    expect(marked).to_have_attribute("aria-current", "true")
    expect(marked.locator(".text")).to_be_visible()


def test_a_tools_marker_closes_and_opens(landed: Page) -> None:
    marked = landed.locator(f"#m{CALL}")
    expect(marked.locator("summary")).to_contain_text("look_up_order")
    marked.locator("summary").click()
    expect(marked.locator(".text")).to_be_hidden()
    marked.locator("summary").click()
    expect(marked.locator(".text")).to_have_text("Order 17")
    expect(landed.locator(f"#m{CALL + 1} .text")).to_be_hidden()


def test_the_trace_is_one_click_away(landed: Page) -> None:
    link = landed.locator(f"#m{CALL} a.out")
    expect(link).to_have_attribute("href", f"https://traces.example/t/{TRACE}?span={SPAN}")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    assert link.get_attribute("target") is None


def test_the_run_is_highlighted_and_added_up(landed: Page) -> None:
    landed.click(f"#m{CALL} a[title='Highlight this run']")
    expect(landed.locator("article.in-run")).to_have_count(len(RUN))
    assert positions_of(landed.locator("article.in-run")) == RUN
    summary = landed.locator(".run-summary")
    for said in (TRACE, "1 turn", "tools: look_up_order, track_parcel", "42 tokens", "5 messages, #61 to #65"):
        expect(summary).to_contain_text(said)
    expect_to_be_at(landed, CALL)


def test_the_keys(landed: Page) -> None:
    for key, position in (("j", 64), ("j", 65), ("k", 64), ("f", 65), ("u", 67), ("u", 69)):
        landed.keyboard.press(key)
        expect_to_be_at(landed, position)
    landed.keyboard.press("?")
    expect(landed.locator("dialog#keys")).to_be_visible()
    landed.keyboard.press("Escape")
    expect(landed.locator("dialog#keys")).to_be_hidden()
    landed.keyboard.press("G")
    expect_to_be_at(landed, LENGTH)
    landed.keyboard.press("g")
    expect_to_be_at(landed, 1)
    landed.keyboard.press("r")
    expect(landed.locator("[data-key=r]")).to_have_text("Rendered")
    landed.keyboard.press("/")
    expect(landed.locator("#staff-find-text")).to_be_focused()
    landed.keyboard.type("jkg")  # Typed, they are letters.
    expect(landed.locator("#staff-find-text")).to_have_value("jkg")


def test_the_next_failure_is_beyond_the_page(landed: Page) -> None:
    assert LATER_FAILURE not in positions_of(landed.locator("article.said"))
    landed.click(".places a[data-key=f]")
    expect_to_be_at(landed, LATER_FAILURE)
    expect(landed.locator(f"#m{LATER_FAILURE} .mark")).to_have_text("failed")


def test_a_filter_leaves_the_failures(landed: Page, talk: Session, visit: Visit) -> None:
    landed.goto(f"{visit.site}{SESSIONS}{talk.pk}/change/")
    landed.click("text=Messages of this session")
    landed.locator("#changelist-filter details", has_text="By status").get_by_role("link", name="failed").click()
    expect(landed.locator("#result_list .field-position")).to_have_text([str(RUN[-1]), str(LATER_FAILURE)])
    assert f"{MESSAGES}?" in landed.url


def test_a_file_holds_the_conversation(landed: Page, talk: Session, visit: Visit, tmp_path: Path) -> None:
    landed.goto(f"{visit.site}{SESSIONS}{talk.pk}/change/")
    with landed.expect_download() as download:
        landed.click("text=Export as JSONL")
    assert download.value.suggested_filename == f"session-{talk.session_id}.jsonl"
    download.value.save_as(tmp_path / "file")
    said = [json.loads(line) for line in (tmp_path / "file").read_text().strip("\n").split("\n")]
    assert said[0]["session_id"] == str(talk.session_id)
    stored = (
        Message.objects.filter(session=talk).order_by("position").values_list("position", "content", "trace_id")
    )
    assert [(row["position"], row["content"], row["trace_id"]) for row in said[1:]] == list(stored)
    assert logged("action") == ["search", "transcript", "view", "export"]


def test_the_access_log_tells_it(landed: Page, talk: Session, visit: Visit) -> None:
    colleague("ada", "Administrators")
    landed.goto(f"{visit.site}{SESSIONS}{talk.pk}/change/")
    landed.click("#logout-form button")
    log_in(landed, visit.site, "ada")
    landed.click("a[href='/admin/conversations/accessrecord/']")
    rows = landed.locator("#result_list tbody tr")
    expect(rows.locator(".field-action")).to_have_text(["View", "Transcript", "Search"])
    expect(rows.locator(".field-who")).to_have_text(["olga"] * 3)
    expect(rows.locator(".field-session_id").first).to_have_text(str(talk.pk))
    expect(rows.locator(".field-detail").last).to_contain_text(TRACE)
    assert "agent.run" not in landed.content()


@pytest.fixture
def phone(browser: Browser, live_server: LiveServer) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    visit = Visit(context.new_page(), live_server.url)
    yield visit
    context.close()
    assert (visit.errors, visit.foreign) == ([], [])


def test_the_same_on_a_phone(phone: Visit, talk: Session) -> None:
    """Nothing has to be pushed sideways, before or after."""
    colleague("olga", "Operations")
    log_in(phone.page, phone.site, "olga")
    for _ in "12":
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert phone.page.evaluate("visualViewport.width") == pytest.approx(390, abs=1)
        paste(phone.page, LINE)
        expect_to_be_at(phone.page, CALL)
    phone.page.locator(f"#m{CALL} summary").tap()
    expect(phone.page.locator(f"#m{CALL} .text")).to_be_hidden()
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
