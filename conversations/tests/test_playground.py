"""The playground on the front page, in a real browser, with a real server and an assistant that takes its time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect

from chatstore.tests.serving import own_database_url, serving
from conftest import Caller, new_message, new_session
from conversations.models import Message, Session
from conversations.tests import test_browser
from conversations.tests.scripted_playground import ANSWER, FOUND, OPENING, SEPARATED, SPAN, TRACE, held_at

pytestmark = [pytest.mark.browser, pytest.mark.once, pytest.mark.django_db(transaction=True)]

browser = test_browser.browser
ASSISTANT = "conversations.tests.scripted_playground.Slow"
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

    def requests_to(self, path: str) -> list[str]:
        """The addresses that end so, as they will be asked for."""
        asked: list[str] = []

        def note(request: Request) -> None:
            if request.url.endswith(path):
                asked.append(request.url)

        self.page.on("request", note)
        return asked

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
@pytest.mark.parametrize(("place", "shown"), [("the tool", "Calling search_database"), ("word3", "word3 ")])
def test_after_a_reload_in_the_middle_the_reply_is_whole_and_there_once(
    visit: Visit, alice: Caller, scheme: Literal["light", "dark"], by: str, place: str, shown: str, tmp_path: Path
) -> None:
    question = held_at(place, tmp_path / "go on")
    visit.page.emulate_media(color_scheme=scheme)
    if by == "polling":
        without_events(visit.page)
        visit.forgive("/events/")
    visit.enter(alice)
    visit.say(question)
    expect(visit.page.locator("#transcript")).to_contain_text(shown, timeout=PATIENCE_MS)
    visit.page.reload()
    expect(visit.page.locator("#transcript")).to_contain_text(shown, timeout=PATIENCE_MS)
    expect(visit.page.locator("#stop")).to_be_visible()
    visit.page.screenshot(path=tmp_path / "middle.png")
    (tmp_path / "go on").touch()
    visit.expect_whole_reply(question)
    visit.page.screenshot(path=tmp_path / "end.png")
    assert Message.objects.count() == 4


def test_a_message_can_follow_at_once_upon_a_reloaded_reply(visit: Visit, alice: Caller, tmp_path: Path) -> None:
    question = held_at("word3", tmp_path / "go on")
    without_events(visit.page)
    visit.forgive("/events/")
    visit.enter(alice)
    visit.say(question)
    expect(visit.lines.nth(3)).to_contain_text("word3 ", timeout=PATIENCE_MS)
    visit.page.reload()
    expect(visit.page.locator("#stop")).to_be_visible()
    (tmp_path / "go on").touch()
    visit.expect_whole_reply(question)
    visit.say("Again")
    expect(visit.page.locator("#stop")).to_be_visible()
    expect(visit.page.locator("#send")).to_be_visible(timeout=PATIENCE_MS)
    expect(visit.lines).to_have_count(8)


def test_stop_keeps_what_had_come(visit: Visit, alice: Caller, tmp_path: Path) -> None:
    visit.enter(alice)
    visit.say(held_at("word3", tmp_path / "go on"))
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


def test_a_reloaded_reply_can_be_stopped(visit: Visit, alice: Caller, tmp_path: Path) -> None:
    visit.enter(alice)
    visit.say(held_at("word3", tmp_path / "go on"))
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


def test_a_reply_that_runs_elsewhere_is_watched(visit: Visit, alice: Caller, tmp_path: Path) -> None:
    """Another tab began it: the second message is refused, kept, and the running reply shown."""
    visit.enter(alice)
    visit.say(held_at("word3", tmp_path / "go on"))
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
    (tmp_path / "go on").touch()
    expect(other.locator("#transcript .text").last).to_have_text(ANSWER, timeout=PATIENCE_MS)
    expect(other.locator("#send")).to_be_visible(timeout=PATIENCE_MS)


# What goes wrong meanwhile


def held(page: Page, address: str) -> list[Route]:
    """Requests that wait until the test lets them go."""
    waiting: list[Route] = []
    page.route(address, lambda route: waiting.append(route))  # noqa: PLW0108 - Playwright wants a function.
    return waiting


def begin(visit: Visit, text: str, waiting: list[Route]) -> Route:
    visit.say(text)
    wait_until(visit, lambda: bool(waiting))
    return waiting[0]


def wait_until(visit: Visit, holds: Callable[[], bool]) -> None:
    for _ in range(100):
        if holds():
            return
        visit.page.wait_for_timeout(50)
    raise AssertionError("It did not come.")


def is_stored(text: str) -> bool:
    return Message.objects.filter(role="user", content=text).exists()


def test_line_separators_break_no_stream(visit: Visit, alice: Caller) -> None:
    followed = visit.requests_to("/events/")
    visit.enter(alice)
    visit.say("quick")
    expect(visit.page.locator("#transcript .assistant .text")).to_have_text(SEPARATED)
    expect(visit.page.locator("#send")).to_be_visible()
    assert followed == []


def test_events_are_read_wherever_the_network_cuts_them(visit: Visit) -> None:
    visit.page.goto(f"{visit.site}/")
    read = """async (text) => {
        const { events } = await import('/static/chatstore/api.js');
        const bytes = new TextEncoder().encode(text);
        const heard = new Set();
        for (let cut = 0; cut <= bytes.length; cut += 1) {
            const parts = new ReadableStream({ start(to) {
                for (const part of [bytes.slice(0, cut), bytes.slice(cut)]) if (part.length) to.enqueue(part);
                to.close();
            } });
            const all = [];
            for await (const event of events(new Response(parts))) all.push(event);
            heard.add(JSON.stringify(all));
        }
        return [...heard];
    }"""
    told = [{"type": "text_delta", "content": f"{SEPARATED}é\n\ndata: x"}, {"type": "done"}]
    said = [json.dumps(event, ensure_ascii=False) for event in told]
    text = f": open\n\nid: 1:2\nevent: text_delta\ndata: {said[0]}\n\n: keep-alive\n\ndata:{said[1]}\n\n"
    heard = [json.loads(each) for each in visit.page.evaluate(read, text)]
    assert heard == [[None, told[0], None, told[1]]]


@pytest.mark.parametrize("address", ["**/api/chat/stream", "**/api/sessions/"])
def test_who_leaves_takes_no_words_back(visit: Visit, alice: Caller, session: Session, address: str) -> None:
    new_message(session, "Elsewhere", "assistant")
    visit.enter(alice)
    going = begin(visit, "quick", held(visit.page, address))
    visit.page.click(f"#conversations [href='#{session.session_id}']")
    expect(visit.lines).to_have_text([re.compile("Elsewhere")])
    going.continue_()
    visit.page.unroute(address)
    wait_until(visit, lambda: is_stored("quick"))
    expect(visit.lines).to_have_text([re.compile("Elsewhere")])
    visit.page.click("#conversations .link >> text=quick")
    expect(visit.page.locator("#transcript .text")).to_have_text(["quick", SEPARATED])
    expect(visit.page.locator("#message")).to_have_value("")


def test_who_comes_back_before_the_words_are_stored_sees_them(visit: Visit, alice: Caller) -> None:
    session, other = new_session(alice), new_session(alice, title="Other")
    visit.enter(alice, session)
    going = begin(visit, "quick", held(visit.page, "**/api/chat/stream"))
    visit.page.click("#conversations .link >> text=Other")
    expect(visit.page.locator("[aria-current]")).to_have_attribute("href", f"#{other.session_id}")
    visit.page.click("#conversations .link >> text=New Chat")
    expect(visit.lines).to_have_count(0)
    going.continue_()
    expect(visit.page.locator("#transcript .text")).to_have_text(["quick", SEPARATED])


def test_refused_words_wait_where_they_were_written(visit: Visit, alice: Caller, session: Session) -> None:
    new_session(alice, title="Other")
    visit.forgive("503")
    visit.enter(alice, session)
    going = begin(visit, "Hello!", held(visit.page, "**/api/chat/stream"))
    visit.page.click("#conversations .link >> text=Other")
    expect(visit.page.locator("#send")).to_be_visible()
    going.fulfill(status=503, json={"detail": "Too many streams."})
    expect(visit.page.locator("#said")).to_have_text("“Hello!” was not sent. Too many streams.")
    expect(visit.page.locator("#message")).to_have_value("")
    visit.page.click("text=Go there")
    expect(visit.page.locator("#message")).to_have_value("Hello!")
    expect(visit.page.locator("[aria-current]")).to_have_attribute("href", f"#{session.session_id}")


def test_words_that_are_refused_stand_before_those_written_since(
    visit: Visit, alice: Caller, session: Session
) -> None:
    visit.forgive("503")
    visit.enter(alice, session)
    going = begin(visit, "First", held(visit.page, "**/api/chat/stream"))
    visit.page.fill("#message", "Second")
    going.fulfill(status=503, json={"detail": "Too many streams."})
    expect(visit.page.locator("#said")).to_have_text("Too many streams.")
    expect(visit.page.locator("#message")).to_have_value("First\n\nSecond")


def end_of_another_reply(route: Route) -> None:
    told = json.dumps({"type": "done", "conversation_id": 1, "status": "interrupted", "operations": []})
    route.fulfill(content_type="text/event-stream", body=f": open\n\nid: 1\nevent: done\ndata: {told}\n\n")


def test_the_end_of_the_reply_before_is_no_end_of_this_one(visit: Visit, alice: Caller, tmp_path: Path) -> None:
    question = held_at("word3", tmp_path / "go on")
    visit.enter(alice)
    visit.say(question)
    expect(visit.lines.nth(3)).to_contain_text("word3 ", timeout=PATIENCE_MS)
    visit.page.route("**/events/", end_of_another_reply, times=1)
    visit.page.reload()
    expect(visit.page.locator("#stop")).to_be_visible()
    (tmp_path / "go on").touch()
    visit.expect_whole_reply(question)
    expect(visit.page.locator("#said")).to_have_text("")


def test_the_end_of_the_reply_before_loses_no_words(visit: Visit, alice: Caller, session: Session) -> None:
    new_message(session, "Before")
    visit.forgive("/api/chat/stream")
    visit.page.route("**/events/", end_of_another_reply)
    visit.page.route("**/api/chat/stream", lambda route: route.abort())
    visit.enter(alice, session)
    expect(visit.page.locator("#said")).to_have_text("The reply was interrupted.")
    expect(visit.page.locator("#send")).to_be_visible()
    visit.say("Hello!")
    expect(visit.page.locator("#said")).to_have_text("This was not sent. Please try again.")
    expect(visit.page.locator("#message")).to_have_value("Hello!")
    expect(visit.lines).to_have_count(1)
