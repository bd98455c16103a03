"""The rest of the playground's page: the list, who is there, whatever is stored, keyboard and phone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from conftest import Caller, new_message, new_session
from conversations.models import Message, Session
from conversations.tests import test_playground
from conversations.tests.test_playground import PATIENCE_MS, Visit

pytestmark = test_playground.pytestmark

browser = test_playground.browser
site = test_playground.site
visit = test_playground.visit
HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"


# The list


def test_a_conversation_is_renamed(visit: Visit, alice: Caller, session: Session) -> None:
    visit.enter(alice)
    visit.page.hover("#conversations li")
    visit.page.click("#conversations .edit")
    visit.page.fill("#conversations input", "Rome in May")
    visit.page.press("#conversations input", "Enter")
    expect(visit.titles).to_have_text(["Rome in May"])
    session.refresh_from_db()
    assert session.title == "Rome in May"


def test_escape_leaves_a_title_as_it_was(visit: Visit, alice: Caller, session: Session) -> None:
    visit.enter(alice)
    visit.page.focus("#conversations .link")
    visit.page.keyboard.press("F2")
    visit.page.keyboard.type("Something else")
    visit.page.keyboard.press("Escape")
    expect(visit.titles).to_have_text([session.title])
    expect(visit.page.locator("#conversations .link")).to_be_focused()


def test_a_deleted_conversation_comes_back(visit: Visit, alice: Caller, session: Session) -> None:
    new_message(session, "Keep this", "assistant")
    visit.enter(alice, session)
    visit.page.hover("#conversations li")
    visit.page.click("#conversations .trash")
    expect(visit.page.locator("#said")).to_have_text("“New Chat” was deleted.")
    expect(visit.titles).to_have_count(0)
    expect(visit.lines).to_have_count(0)
    session.refresh_from_db()
    assert session.deleted_at is not None
    visit.page.click("#undo")
    expect(visit.titles).to_have_text(["New Chat"])
    expect(visit.lines.locator(".text")).to_have_text(["Keep this"])


def test_more_conversations_follow(visit: Visit, alice: Caller) -> None:
    for number in range(60):
        new_session(alice, title=f"Chat {number}")
    visit.enter(alice)
    expect(visit.titles).to_have_count(50)
    visit.page.click("#more")
    expect(visit.titles).to_have_count(60)
    expect(visit.titles.first).to_have_text("Chat 59")
    expect(visit.titles.last).to_have_text("Chat 0")
    expect(visit.page.locator("#more")).to_be_hidden()


def test_earlier_messages_are_read_back(visit: Visit, alice: Caller, session: Session) -> None:
    for number in range(130):
        new_message(session, str(number), "assistant")
    visit.enter(alice, session)
    expect(visit.lines).to_have_count(100)
    expect(visit.lines.last).to_be_in_viewport()
    visit.page.click("#earlier")
    expect(visit.lines.locator(".text")).to_have_text([str(number) for number in range(130)])
    expect(visit.page.locator("#earlier")).to_be_hidden()
    expect(visit.page.locator("#pane")).to_be_focused()


# Who is there


@pytest.mark.parametrize("token", ["cst_nobody", "two words", "tökén"])
def test_a_wrong_token_says_so(visit: Visit, token: str) -> None:
    visit.forgive("401")
    visit.page.goto(f"{visit.site}/")
    visit.page.fill("#token", token)
    visit.page.press("#token", "Enter")
    says = Caller(None, token).get("/api/me/").json()["detail"] if token.isascii() else "special letters"
    expect(visit.page.locator("#refused")).to_contain_text(says if " " not in token else "no spaces")
    expect(visit.page.locator("#message")).to_be_hidden()


def test_a_token_is_known_until_it_is_forgotten(visit: Visit, alice: Caller) -> None:
    visit.enter(alice)
    visit.page.reload()
    expect(visit.page.locator("#who")).to_have_text("alice@example.com")
    visit.page.click("#leave")
    visit.page.reload()
    expect(visit.page.locator("#token")).to_be_visible()
    assert alice.token not in json.dumps(visit.page.context.storage_state())


def test_a_demo_token_opens_the_playground(visit: Visit, alice: Caller) -> None:
    def with_token(route: Route) -> None:
        body = re.sub('(name="demo-token" content=")[^"]*', rf"\g<1>{alice.token}", route.fetch().text())
        route.fulfill(response=route.fetch(), body=body)

    visit.page.route(f"{visit.site}/", with_token)
    visit.page.goto(f"{visit.site}/")
    expect(visit.page.locator("#who")).to_have_text("alice@example.com")


@pytest.mark.parametrize("address", ["**/api/me/", "**/api/sessions/*"])
def test_a_passing_failure_forgets_no_token(visit: Visit, alice: Caller, address: str) -> None:
    visit.enter(alice)
    visit.forgive("503")
    visit.page.route(address, lambda route: route.fulfill(status=503, json={"detail": "Too busy."}), times=1)
    visit.page.reload()
    expect(visit.page.locator("#refused")).to_have_text("Too busy.")
    expect(visit.page.locator("#again")).to_be_focused()
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#who")).to_have_text("alice@example.com")
    expect(visit.page.locator("#message")).to_be_focused()


# Whatever is stored


def test_stored_text_stays_text(visit: Visit, alice: Caller) -> None:
    session = new_session(alice, title=HOSTILE)
    fields: dict[str, Any] = {"tool_name": HOSTILE, "trace_id": HOSTILE, "span_id": HOSTILE}
    for role in ("system", "assistant", "tool_call", "tool", "user"):
        new_message(session, HOSTILE, role, **fields)
    visit.enter(alice, session)
    expect(visit.lines).to_have_count(5)
    visit.page.click("summary")
    expect(visit.page.locator("#transcript .text")).to_have_text([HOSTILE] * 4)
    expect(visit.page.locator(".trace")).to_have_text(HOSTILE)
    expect(visit.titles).to_have_text([HOSTILE])
    expect(visit.page.locator("main :is(img, script), aside :is(img, script)")).to_have_count(0)
    visit.say(HOSTILE)
    expect(visit.page.locator("#transcript .user .text").last).to_have_text(HOSTILE)
    assert visit.page.title() == "Chatstore"


def test_code_stands_in_a_block(visit: Visit, alice: Caller, session: Session) -> None:
    new_message(session, f"Do so:\n\n```python\nif a:\n    b()\n```\n\nThen:\n```\n{HOSTILE}", "assistant")
    new_message(session, "No ``` code\n\n  here\n", "assistant")
    visit.enter(alice, session)
    expect(visit.page.locator("#transcript pre")).to_have_text(["if a:\n    b()", HOSTILE])
    texts = visit.page.locator("#transcript .text").evaluate_all("texts => texts.map((text) => text.textContent)")
    assert texts == [f"Do so:if a:\n    b()Then:{HOSTILE}", "No ``` code\n\n  here\n"]
    expect(visit.page.locator("main :is(img, script)")).to_have_count(0)


def test_text_from_right_to_left_begins_at_the_right(visit: Visit, alice: Caller, session: Session) -> None:
    new_message(session, "مرحبا!", "assistant")
    visit.enter(alice, session)
    offset = """(text) => {
        const words = document.createRange();
        words.selectNodeContents(text);
        return text.getBoundingClientRect().right - words.getBoundingClientRect().right;
    }"""
    assert visit.lines.locator(".text").evaluate(offset) < 1


def test_rows_that_did_not_end_well_say_so(visit: Visit, alice: Caller, session: Session) -> None:
    new_message(session, "Half a", "assistant", status="interrupted")
    new_message(session, "Called it", "tool_call", tool_name="look_up", status="failed")
    visit.enter(alice, session)
    expect(visit.lines.nth(0).locator(".label")).to_have_text("interrupted")
    expect(visit.lines.nth(1)).to_contain_text("look_up failed")


def test_what_was_written_just_now_by_others_soon_counts_as_whole(
    visit: Visit, alice: Caller, session: Session
) -> None:
    visit.enter(alice)
    new_message(session, "Just now", "assistant")
    visit.page.click("#conversations .link")
    expect(visit.lines).to_have_count(1)
    visit.page.wait_for_timeout(4_000)
    expect(visit.page.locator("#send")).to_be_visible()


# Keyboard, phone


def test_everything_works_from_the_keyboard(visit: Visit, alice: Caller) -> None:
    new_session(alice, title="Older")
    new_session(alice, title="Newer")
    keys = visit.page.keyboard
    visit.page.goto(f"{visit.site}/")
    while not visit.page.locator("#token:focus").count():
        keys.press("Tab")
    keys.type(alice.token)
    keys.press("Enter")
    expect(visit.page.locator("#message")).to_be_focused()
    while not visit.page.locator(".link:focus").count():
        keys.press("Shift+Tab")
    visit.page.locator(".link").first.focus()
    keys.press("ArrowDown")
    expect(visit.page.locator(".link").nth(1)).to_be_focused()
    keys.press("Delete")
    expect(visit.page.locator("#undo")).to_be_focused()
    keys.press("Enter")
    expect(visit.titles).to_have_text(["Older", "Newer"])
    expect(visit.page.locator(".link").first).to_be_focused()
    keys.press("Enter")
    expect(visit.page.locator(".link").first).to_have_attribute("aria-current", "page")
    while not visit.page.locator("#message:focus").count():
        keys.press("Tab")
    keys.type("One")
    keys.press("Shift+Enter")
    keys.type("Two")
    keys.press("Enter")
    expect(visit.lines.nth(3)).to_contain_text("word1 ", timeout=PATIENCE_MS)
    keys.press("Escape")
    expect(visit.lines.nth(3).locator(".label")).to_have_text("interrupted")
    assert Message.objects.get(position=1).content == "One\nTwo"


def test_focus_goes_from_send_to_stop_and_back(visit: Visit, alice: Caller, session: Session) -> None:
    stops = visit.requests_to("/stop/")
    visit.enter(alice, session)
    visit.page.fill("#message", "Hello!")
    visit.page.focus("#send")
    visit.page.keyboard.down("Enter")
    visit.page.keyboard.down("Enter")  # It is held, and repeats.
    visit.page.keyboard.up("Enter")
    expect(visit.page.locator("#stop")).to_be_focused()
    expect(visit.lines.nth(1)).to_be_visible()
    assert stops == []
    visit.page.press("#stop", "Enter")
    expect(visit.page.locator("#send")).to_be_visible()
    expect(visit.page.locator("#message")).to_be_focused()


def test_escape_of_an_input_method_stops_nothing(visit: Visit, alice: Caller) -> None:
    stops = visit.requests_to("/stop/")
    visit.enter(alice)
    visit.page.press("#starters button", "Enter")
    expect(visit.page.locator("#message")).to_be_focused()
    expect(visit.lines.nth(1)).to_be_visible()
    escape = "new KeyboardEvent('keydown', { key: 'Escape', isComposing: true, bubbles: true })"
    visit.page.evaluate(f"document.activeElement.dispatchEvent({escape})")
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("#send")).to_be_visible()
    assert len(stops) == 1


def test_on_a_phone_nothing_is_cut_off(visit: Visit, alice: Caller, session: Session) -> None:
    new_message(session, "A" * 300 + "\n" + "many words " * 50)
    new_message(session, "Called it", "tool_call", tool_name="b" * 200, trace_id="c" * 200)
    visit.page.set_viewport_size({"width": 360, "height": 640})
    visit.enter(alice, session)
    visit.page.click("summary")
    width = "[document.documentElement.scrollWidth, document.querySelector('#pane').scrollWidth]"
    assert visit.page.evaluate(width) == [360, 360]
    expect(visit.titles).to_be_hidden()
    visit.page.click("#menu")
    expect(visit.titles).to_be_visible()
    assert visit.page.evaluate(width)[0] == 360
    visit.page.press("#conversations .link", "Enter")
    expect(visit.titles).to_be_hidden()
    expect(visit.page.locator("#menu")).to_be_focused()
    visit.page.keyboard.press("Enter")
    expect(visit.titles).to_be_visible()
    visit.page.keyboard.press("Escape")
    expect(visit.titles).to_be_hidden()
