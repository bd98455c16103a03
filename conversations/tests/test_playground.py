"""The playground on the front page, in a real browser, with a real server and an assistant that takes its time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from chatstore.tests.serving import own_database_url, serving
from conftest import Caller, new_message, new_session
from conversations.models import Message, Session
from conversations.tests import test_browser
from conversations.tests.scripted_playground import ANSWER, FOUND, OPENING, SPAN, TRACE

pytestmark = [pytest.mark.browser, pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

browser = test_browser.browser
ASSISTANT = "conversations.tests.scripted_playground.Slow"
HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
PATIENCE_MS = 20_000


class Visit(test_browser.Visit):
    """A page of the playground."""

    def __init__(self, page: Page, site: str) -> None:
        super().__init__(page, site)
        self.forgiven: list[str] = []

    @property
    def lines(self) -> Locator:
        return self.page.locator("#transcript > li")

    @property
    def titles(self) -> Locator:
        return self.page.locator("#conversations .title")

    def enter(self, person: Caller, session: Session | None = None) -> None:
        self.page.goto(f"{self.site}/{f'#{session.session_id}' if session else ''}")
        self.page.fill("#token", person.token)
        self.page.press("#token", "Enter")
        expect(self.page.locator("#message")).to_be_visible()

    def say(self, text: str) -> None:
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")

    def expect_whole_reply(self, question: str) -> None:
        """Every line of the one turn, once and in order."""
        expect(self.page.locator("#send")).to_be_visible(timeout=PATIENCE_MS)
        expect(self.lines).to_have_count(4)
        texts = [text.inner_text().strip() for text in self.page.locator("#transcript .text").all()]
        assert texts == [question, OPENING, ANSWER]
        expect(self.lines.nth(2)).to_contain_text("search_database ran")

    def forgive(self, error: str) -> None:
        """Chromium writes every refused request to the console."""
        self.forgiven.append(error)

    def unforgiven(self) -> list[str]:
        return [error for error in self.errors if not any(known in error for known in self.forgiven)]


@pytest.fixture(scope="module")
def site(django_db_setup: None) -> Iterator[str]:
    with serving(own_database_url(), ASSISTANT=ASSISTANT, ENV="development") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def visit(browser: Browser, site: str) -> Iterator[Visit]:
    """A fresh browser window. At the end nothing was refused, broken, or asked of another host."""
    context = browser.new_context()
    visit = Visit(context.new_page(), site)
    yield visit
    context.close()
    assert (visit.unforgiven(), visit.foreign) == ([], [])


def last_line_of(session: Session) -> Message:
    return Message.objects.filter(session=session).latest("position")


def without_events(page: Page) -> None:
    page.route("**/events/", lambda route: route.fulfill(status=404, json={"detail": "No such stream."}))


# Sending


def test_it_works(visit: Visit, alice: Caller) -> None:
    visit.enter(alice)
    visit.say("When is the Pantheon open?")
    expect(visit.lines.nth(2)).to_have_text(re.compile(r"Calling search_database\.\.\."))
    visit.expect_whole_reply("When is the Pantheon open?")
    expect(visit.titles).to_have_text(["When is the Pantheon open?"])
    expect(visit.page.locator("#conversations .about")).to_contain_text("4 messages")
    assert Session.objects.get().title == "When is the Pantheon open?"


def test_a_tools_marker_opens_to_its_result_and_trace(visit: Visit, alice: Caller) -> None:
    visit.enter(alice)
    visit.say("Hello!")
    marker = visit.lines.nth(2)
    expect(marker).to_contain_text("search_database ran", timeout=PATIENCE_MS)
    expect(marker.locator("dl")).to_be_hidden()
    visit.expect_whole_reply("Hello!")
    marker.locator("summary").click()
    for fact in (FOUND, TRACE, SPAN):
        expect(marker.locator("dl")).to_contain_text(fact)


def test_a_second_question_goes_to_the_same_conversation(visit: Visit, alice: Caller, session: Session) -> None:
    new_message(session, "Before")
    new_message(session, "Yes?", "assistant")
    visit.enter(alice, session)
    expect(visit.lines).to_have_count(2)
    visit.say("And now?")
    expect(visit.page.locator("#send")).to_be_visible(timeout=PATIENCE_MS)
    expect(visit.lines).to_have_count(6)
    assert Session.objects.get().message_count == 6


# Reloading, stopping, losing the connection


@pytest.mark.parametrize(("scheme", "by"), [("light", "events"), ("dark", "polling")])
@pytest.mark.parametrize("at", ["Calling search_database", "word3 "])
def test_after_a_reload_in_the_middle_the_reply_is_whole_and_there_once(
    visit: Visit, alice: Caller, scheme: Literal["light", "dark"], by: str, at: str, tmp_path: Path
) -> None:
    visit.page.emulate_media(color_scheme=scheme)
    if by == "polling":
        without_events(visit.page)
        visit.forgive("/events/")
    visit.enter(alice)
    visit.say("Hello!")
    expect(visit.page.locator("#transcript")).to_contain_text(at, timeout=PATIENCE_MS)
    visit.page.reload()
    expect(visit.page.locator("#transcript")).to_contain_text(at, timeout=PATIENCE_MS)
    expect(visit.page.locator("#stop")).to_be_visible()
    visit.page.screenshot(path=tmp_path / "middle.png")
    visit.expect_whole_reply("Hello!")
    visit.page.screenshot(path=tmp_path / "end.png")
    assert Message.objects.count() == 4


def test_a_message_can_follow_at_once_upon_a_reloaded_reply(visit: Visit, alice: Caller) -> None:
    without_events(visit.page)
    visit.forgive("/events/")
    visit.enter(alice)
    visit.say("Hello!")
    expect(visit.lines.nth(3)).to_contain_text("word3 ", timeout=PATIENCE_MS)
    visit.page.reload()
    expect(visit.page.locator("#stop")).to_be_visible()
    visit.expect_whole_reply("Hello!")
    visit.say("Again")
    expect(visit.page.locator("#stop")).to_be_visible()
    expect(visit.page.locator("#send")).to_be_visible(timeout=PATIENCE_MS)
    expect(visit.lines).to_have_count(8)


def test_stop_keeps_what_had_come(visit: Visit, alice: Caller) -> None:
    visit.enter(alice)
    visit.say("Hello!")
    expect(visit.lines.nth(3)).to_contain_text("word3 ", timeout=PATIENCE_MS)
    visit.page.click("#stop")
    expect(visit.page.locator("#said")).to_have_text("The reply was interrupted.")
    expect(visit.lines.nth(3).locator(".label")).to_have_text("interrupted")
    kept = last_line_of(Session.objects.get())
    assert (kept.status, kept.content[:12]) == ("interrupted", "word0 word1 ")
    expect(visit.lines.nth(3).locator(".text")).to_have_text(kept.content)
    expect(visit.page.locator("#message")).to_be_focused()
    visit.page.reload()
    expect(visit.lines.nth(3).locator(".label")).to_have_text("interrupted")


def test_stop_works_before_anything_has_come(visit: Visit, alice: Caller) -> None:
    visit.enter(alice)
    visit.say("wait")
    expect(visit.page.locator(".waiting")).to_be_visible()
    expect(visit.lines).to_have_count(1)
    expect(visit.titles).to_have_count(1)
    visit.page.wait_for_timeout(500)
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("#said")).to_have_text("The reply was interrupted.")
    expect(visit.page.locator("#send")).to_be_visible()


def test_a_reloaded_reply_can_be_stopped(visit: Visit, alice: Caller) -> None:
    visit.enter(alice)
    visit.say("Hello!")
    expect(visit.lines.nth(3)).to_contain_text("word3 ", timeout=PATIENCE_MS)
    visit.page.reload()
    visit.page.click("#stop")
    expect(visit.lines.nth(3).locator(".label")).to_have_text("interrupted")
    expect(visit.page.locator("#send")).to_be_visible()


def passed_on(route: Route, site: str) -> bytes:
    """Send a request to the server, and leave with the first kilobyte of its answer."""
    asked = route.request
    link = HTTPConnection(site.removeprefix("http://"), timeout=10)
    link.request(asked.method, "/api/chat/stream", asked.post_data, asked.headers)
    begun = link.getresponse().read(200)
    link.close()
    return begun


def test_a_reply_goes_on_where_its_connection_breaks(visit: Visit, alice: Caller) -> None:
    def broken(route: Route) -> None:
        route.fulfill(status=200, content_type="text/event-stream", body=passed_on(route, visit.site))

    visit.page.route("**/api/chat/stream", broken)
    visit.enter(alice)
    visit.say("Hello!")
    visit.expect_whole_reply("Hello!")
    assert Message.objects.count() == 4


def test_a_message_whose_answer_was_lost_is_there_once(visit: Visit, alice: Caller) -> None:
    def lost(route: Route) -> None:
        passed_on(route, visit.site)
        route.abort()

    visit.page.route("**/api/chat/stream", lost)
    visit.forgive("/api/chat/stream")
    visit.enter(alice)
    visit.say("Hello!")
    visit.expect_whole_reply("Hello!")
    assert Message.objects.count() == 4


def test_a_message_that_never_arrived_is_given_back_and_keeps_its_key(visit: Visit, alice: Caller) -> None:
    keys: list[str] = []

    def refuse_once(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.abort()
        else:
            route.continue_()

    visit.page.route("**/api/chat/stream", refuse_once)
    visit.forgive("/api/chat/stream")
    visit.enter(alice)
    visit.say("Hello!")
    expect(visit.page.locator("#message")).to_have_value("Hello!", timeout=PATIENCE_MS)
    expect(visit.page.locator("#said")).to_have_text("This was not sent. Please try again.")
    expect(visit.lines).to_have_count(0)
    visit.page.press("#message", "Enter")
    visit.expect_whole_reply("Hello!")
    assert (len(keys), len(set(keys)), Session.objects.count()) == (2, 1, 1)


def test_a_reply_that_runs_elsewhere_is_watched(visit: Visit, alice: Caller) -> None:
    """Another tab began it: the second message is refused, kept, and the running reply shown."""
    visit.enter(alice)
    visit.say("Hello!")
    expect(visit.lines.nth(1)).to_be_visible()
    other = visit.page.context.new_page()
    other.goto(f"{visit.site}/")
    other.fill("#token", alice.token)
    other.press("#token", "Enter")
    other.route("**/messages/?order=desc", lambda route: route.fulfill(json=[]))
    other.click("#conversations .link")
    other.fill("#message", "Me too")
    other.press("#message", "Enter")
    expect(other.locator("#said")).to_have_text("A reply is being written in this conversation.")
    expect(other.locator("#message")).to_have_value("Me too")
    expect(other.locator("#transcript .text").last).to_have_text(ANSWER, timeout=PATIENCE_MS)
    expect(other.locator("#send")).to_be_visible(timeout=PATIENCE_MS)


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
    visit.page.keyboard.press("Escape")
    expect(visit.titles).to_be_hidden()
