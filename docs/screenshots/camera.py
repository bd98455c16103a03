"""Takes the pictures: a browser of fixed size, and the steps that lead to each page. Imports nothing of Django."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from playwright.sync_api import Browser, Page, Playwright, ViewportSize

STAFF: Final = "nora"
# The scene's: two runs of different sessions, and what a log says of the first.
TRACE: Final = "8f3a1c5e9b7d4f20a6c2e4881d0b93f7"
SPAN: Final = "a1b2c3d4e5f60718"
OTHER_TRACE: Final = "2b7d90c4e1f84a6b93d5a0c7f1e6284d"
LOG_LINE: Final = f'level=error msg="card declined" traceparent=00-{TRACE}-{SPAN}-01'

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE_WIDTH: Final = 390
ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


class Mode(NamedTuple):
    scheme: Literal["light", "dark"]
    size: ViewportSize


class Picture(NamedTuple):
    page: str
    mode: str

    @property
    def file(self) -> str:
        return f"admin-{self.page}-{self.mode}.png"


MODES: Final = {
    "light": Mode("light", {"width": 1280, "height": 740}),
    "dark": Mode("dark", {"width": 1280, "height": 740}),
    "phone": Mode("light", {"width": PHONE_WIDTH, "height": 844}),
}


def front(page: Page, site: str) -> None:
    page.goto(f"{site}/admin/")


def find(page: Page, site: str) -> None:
    paste(page, site, f"Both failed: {TRACE} and {OTHER_TRACE}")
    page.wait_for_selector(".staff-found")


def transcript(page: Page, site: str) -> None:
    paste(page, site, LOG_LINE)
    page.wait_for_selector("article.marked")
    if (page.viewport_size or {"width": 0})["width"] > PHONE_WIDTH:
        page.evaluate("scrollTo(0, 0)")


def messages(page: Page, site: str) -> None:
    page.goto(f"{site}/admin/conversations/message/")
    page.locator("#changelist-filter a", has_text="20").first.click()
    page.wait_for_selector("#changelist-filter summary:has-text('role')")
    make_room(page)


def access_log(page: Page, site: str) -> None:
    page.goto(f"{site}/admin/conversations/accessrecord/")
    make_room(page)


def make_room(page: Page) -> None:
    """Without the sidebar; a phone has none."""
    if (toggle := page.locator("#toggle-nav-sidebar")).is_visible():
        toggle.click()
        page.evaluate("scrollTo(0, 0)")


def paste(page: Page, site: str, text: str) -> None:
    page.goto(f"{site}/admin/")
    page.fill("#staff-find-text", text)
    page.press("#staff-find-text", "Enter")


PAGES: Final[Mapping[str, Callable[[Page, str], None]]] = {
    # First, or it would show little else than these visits.
    "access-log": access_log,
    "front": front,
    "find": find,
    "transcript": transcript,
    "messages": messages,
}
PICTURES: Final = [
    Picture("access-log", "dark"),
    Picture("front", "light"),
    Picture("front", "dark"),
    Picture("find", "light"),
    Picture("transcript", "light"),
    Picture("transcript", "dark"),
    Picture("transcript", "phone"),
    Picture("messages", "light"),
]
EVERY: Final = [Picture(page, mode) for page in PAGES for mode in MODES]


@contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    executable = next((path for name in NAMES if (path := shutil.which(name))), None)
    if executable is None:
        raise SystemExit(f"Pictures need a browser: none of {', '.join(NAMES)} is installed.")
    with playwright.chromium.launch(executable_path=executable, args=ARGUMENTS) as browser:
        yield browser


def take(browser: Browser, site: str, password: str, folder: Path, pictures: list[Picture]) -> None:
    """Each picture in a window of its own, all in one login."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site}/admin/")
        page.fill("#id_username", STAFF)
        page.fill("#id_password", password)
        page.press("#id_password", "Enter")
        page.wait_for_selector("#user-tools")
        login = context.storage_state()
    for picture in pictures:
        mode = MODES[picture.mode]
        with browser.new_context(
            viewport=mode.size, color_scheme=mode.scheme, device_scale_factor=1, storage_state=login
        ) as context:
            page = context.new_page()
            PAGES[picture.page](page, site)
            page.wait_for_load_state("networkidle")
            page.mouse.move(0, 0)
            page.screenshot(path=folder / picture.file, animations="disabled", caret="hide")
