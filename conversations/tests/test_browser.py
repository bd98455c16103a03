"""What a real browser makes of the pages: they work under the content security policy, and call nobody else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from conftest import Caller, new_message, new_session
from conversations.models import Session

pytestmark = [pytest.mark.once, pytest.mark.browser]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ON_A_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PASSWORD = "correct horse battery staple"
HOSTILE = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"


def chromium() -> str | None:
    found = (path for name in NAMES if (path := shutil.which(name)))
    return next(found, ON_A_MAC if Path(ON_A_MAC).exists() else None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        pytest.skip(f"NO BROWSER: none of {', '.join(NAMES)} is installed, so no page was looked at")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright runs an event loop in this thread, in which Django refuses to use the database.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        with playwright.chromium.launch(executable_path=executable, args=ARGUMENTS) as browser:
            yield browser


class Visit:
    """A page in a browser, and what went wrong on it."""

    def __init__(self, page: Page, site: str) -> None:
        self.page, self.site = page, site
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.on("console", self.note_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self.note_request)

    def note_console(self, message: ConsoleMessage) -> None:
        """A breach of the content security policy is an error on the console."""
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location['url']})")

    def note_request(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in ("data", "blob") and not request.url.startswith(self.site):
            self.foreign.append(request.url)

    def log_in(self, sam: Caller) -> None:
        assert sam.user is not None
        sam.user.set_password(PASSWORD)
        sam.user.save()
        self.page.goto(f"{self.site}/admin/")
        self.page.fill("#id_username", "sam")
        self.page.fill("#id_password", PASSWORD)
        self.page.click("input[type=submit]")
        expect(self.page.locator("#user-tools")).to_contain_text("sam", ignore_case=True)


@pytest.fixture
def visit(browser: Browser, live_server: LiveServer) -> Iterator[Visit]:
    """A fresh browser window. At the end nothing was refused, broken, or asked of another host."""
    page = browser.new_page()
    visit = Visit(page, live_server.url)
    yield visit
    page.close()
    assert (visit.errors, visit.foreign) == ([], [])


def test_a_trace_id_leads_to_its_message(visit: Visit, sam: Caller, session: Session) -> None:
    new_message(session, "Not this one", trace_id="another")
    message = new_message(session, "Hello!\n    indented", trace_id="4bf92f3577b34da6")
    visit.log_in(sam)
    page = visit.page
    page.click("a[href='/admin/conversations/message/']")
    page.fill("#searchbar", "4bf92f3577b34da6")
    page.press("#searchbar", "Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.click(f"#result_list >> text='{message.pk}'")
    content = page.locator(".field-content_as_sent pre")
    expect(content).to_have_text("Hello!\n    indented")
    expect(content).to_have_css("white-space", "pre-wrap")


def test_a_sessions_messages_are_one_click_away(visit: Visit, sam: Caller, session: Session) -> None:
    new_message(session, "First")
    new_message(session, "Second", "assistant")
    visit.log_in(sam)
    visit.page.goto(f"{visit.site}/admin/conversations/session/?q=alice@example.com")
    visit.page.click(f"#result_list >> text='{session.pk}'")
    visit.page.click("text=Messages of this session")
    expect(visit.page.locator("#result_list .field-position")).to_have_text(["1", "2"])


def test_a_script_in_a_message_is_text(visit: Visit, sam: Caller, alice: Caller) -> None:
    session = new_session(alice, title=HOSTILE)
    fields = {"trace_id": HOSTILE, "tool_name": HOSTILE}
    message = new_message(session, HOSTILE, **fields, metadata={HOSTILE: HOSTILE})
    visit.log_in(sam)
    for path in ("message/", f"message/{message.pk}/change/", "session/", f"session/{session.pk}/change/"):
        visit.page.goto(f"{visit.site}/admin/conversations/{path}")
        expect(visit.page.locator("#content")).to_contain_text("document.title = 'owned'")
        assert "owned" not in visit.page.title()


def test_a_token_is_issued_to_whom_the_field_completes(visit: Visit, sam: Caller, alice: Caller) -> None:
    visit.log_in(sam)
    page = visit.page
    page.goto(f"{visit.site}/admin/accounts/apitoken/add/")
    page.click(".field-user .select2-selection")
    page.fill(".select2-search__field", "Alice@example.com")
    options = page.locator(".select2-results__option")
    expect(options).to_have_text(["alice"])
    options.click()
    page.click("input[name=_save]")
    text = page.locator("#issued-token").inner_text()
    assert Caller(alice.user, text).get("/api/me/").json()["username"] == "alice"
    page.goto(f"{visit.site}/admin/accounts/apitoken/")
    assert text not in page.content()


@pytest.mark.parametrize(
    ("path", "sign"),
    [
        ("/", "text=Admin for staff"),
        ("/docs", ".opblock-summary-path >> nth=0"),
        ("/redoc", "[data-section-id] >> nth=0"),
        ("/admin/login/", "#id_username"),
    ],
)
def test_a_public_page_renders(visit: Visit, path: str, sign: str) -> None:
    visit.page.goto(f"{visit.site}{path}", wait_until="networkidle")
    expect(visit.page.locator(sign)).to_be_visible()


@pytest.mark.parametrize(
    "path",
    ["", "accounts/user/", "accounts/user/add/", "accounts/user/{sam}/change/", "accounts/user/{sam}/password/"],
)
def test_a_page_of_the_admin_renders(visit: Visit, sam: Caller, path: str) -> None:
    assert sam.user is not None
    visit.log_in(sam)
    visit.page.goto(f"{visit.site}/admin/{path.format(sam=sam.user.pk)}", wait_until="networkidle")
    expect(visit.page.locator("#content")).to_be_visible()
