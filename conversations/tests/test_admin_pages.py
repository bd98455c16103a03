"""The admin's own look: the product's name and mark, pages that say what to do, and room on every screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client, RequestFactory
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from chatstore.http.problems import bad_request, server_error
from conftest import Caller, new_message
from conversations.models import Session
from conversations.tests.colleagues import FIND, MESSAGES, SESSIONS, holding
from conversations.tests.test_browser import Visit, browser, visit
from docs.screenshots.camera import PAGES, PICTURES, take
from docs.screenshots.scene import plant

__all__ = ["browser", "visit"]

PASSWORD = "correct horse battery staple"
ICON = '<link rel="icon" href="/static/chatstore/icon.svg">'
GONE = f"{SESSIONS}9999/transcript/"


def page_of(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return str(answer.content.decode())


@pytest.mark.parametrize(
    "path", ["/admin/", FIND, SESSIONS, "/admin/accounts/", "/admin/password_change/", "/admin/logout/"]
)
def test_pages_carry_the_name_and_the_mark(staff: Client, path: str) -> None:
    page = page_of(staff, path) if path != "/admin/logout/" else staff.post(path, follow=True).content.decode()
    assert "| Chatstore</title>" in page
    assert ICON in page
    assert "Django" not in page


def test_so_does_the_login_which_has_no_search(db: None) -> None:
    page = page_of(Client(), "/admin/login/")
    assert "| Chatstore</title>" in page
    assert ICON in page
    assert "staff-find" not in page


# Pages that say what to do


def test_who_is_refused_is_told_whom_to_ask(db: None) -> None:
    client = holding()
    for path in (SESSIONS, MESSAGES, f"{FIND}?q=1"):
        page = page_of(client, path, 403)
        assert "Ask an administrator for one of these groups" in page
        assert "You are logged in as <bdi>vera</bdi>" in page


def test_who_is_in_no_group_is_told_so(db: None) -> None:
    page = page_of(holding(), "/admin/")
    assert "You are in no group yet" in page
    assert "<b>Support</b>" in page
    assert 'id="usage"' not in page


def test_a_purged_session_is_said_to_be_gone_and_the_search_is_there(staff: Client) -> None:
    page = page_of(staff, GONE, 404)
    assert "A session that was purged" in page
    assert 'id="staff-find-text"' in page
    assert "into the box on top" in page


def test_strangers_learn_less(db: None) -> None:
    page = page_of(Client(), "/nowhere/<b>", 404)
    assert "There is nothing at this address" in page
    assert "purged" not in page
    assert "nowhere" not in page
    assert 'href="/"' in page


def test_who_may_not_search_is_not_sent_there(db: None) -> None:
    page = page_of(holding("view_session"), "/admin/nowhere/", 404)
    assert "box on top" not in page
    assert "staff-find" not in page


def test_a_form_that_is_out_of_date_says_so(sam: Caller) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(sam.user)
    answer = client.post(FIND, {"q": "1"})
    assert answer.status_code == 403
    assert "This form was out of date" in answer.content.decode()
    assert "<style" not in answer.content.decode()


def test_the_other_errors_have_pages_without_a_request(rf: RequestFactory) -> None:
    request = rf.get("/admin/")
    assert "cannot be understood" in bad_request(request, Exception()).content.decode()
    failed = server_error(request).content.decode()
    assert "The server made an error" in failed
    assert ICON in failed


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (SESSIONS, "No sessions yet. They come through the API"),
        (MESSAGES, "No messages yet. They come through the API"),
        (f"{MESSAGES}?q=12345678", "No message matches"),
        ("/admin/conversations/accessrecord/", "No access records yet. A record comes with the first"),
        ("/admin/accounts/servicetoken/", "No service tokens yet."),
        ("/admin/accounts/user/?q=nobody@example.com", "No user matches"),
        (FIND, "You can paste:"),
        (f"{FIND}?q=12345678", "Nothing is stored under what you pasted."),
        ("/admin/", "Nothing is stored yet."),
    ],
)
def test_what_is_empty_says_what_to_do(staff: Client, path: str, said: str) -> None:
    assert said in page_of(staff, path)


def test_an_empty_session_says_so(staff: Client, session: Session) -> None:
    assert "This session has no messages yet." in page_of(staff, f"{SESSIONS}{session.pk}/transcript/")


# In a browser

WIDTHS = [390, 1024, 1280]


def sideways(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wider


@pytest.mark.once
@pytest.mark.browser
def test_nothing_scrolls_sideways_and_the_search_has_room(visit: Visit, sam: Caller, session: Session) -> None:
    said = "word" * 200
    message = new_message(session, said, trace_id="4bf92f3577b34da6a3ce929d0e0e4736", tool_name="t" * 200)
    visit.log_in(sam)
    page = visit.page
    paths = ["/admin/", FIND, f"{FIND}?q={'f' * 400}", SESSIONS, MESSAGES, f"{SESSIONS}{session.pk}/transcript/",
             f"{SESSIONS}{session.pk}/change/", f"{MESSAGES}{message.pk}/change/",
             "/admin/conversations/accessrecord/", "/admin/password_change/", "/admin/accounts/user/"]  # fmt: skip
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for path in paths:
            page.goto(f"{visit.site}{path}")
            assert (width, path, sideways(page)) == (width, path, 0)
            box = page.locator("#staff-find-text").bounding_box()
            assert box is not None
            assert box["width"] >= min(280, width)


@pytest.mark.once
@pytest.mark.browser
def test_the_key_leads_to_the_search(visit: Visit, sam: Caller, session: Session) -> None:
    new_message(session, "Hello!")
    visit.log_in(sam)
    box = visit.page.locator("#staff-find-text")
    for path in ("/admin/", f"{SESSIONS}{session.pk}/transcript/"):
        visit.page.goto(f"{visit.site}{path}")
        expect(box).not_to_be_focused()
        visit.page.keyboard.press("/")
        expect(box).to_be_focused()
        visit.page.keyboard.type("a/b")
        expect(box).to_have_value("a/b")


@pytest.mark.once
@pytest.mark.browser
def test_the_pictures_can_still_be_taken(
    browser: Browser, live_server: LiveServer, groups: None, tmp_path: Path
) -> None:
    plant(PASSWORD)
    take(browser, live_server.url, PASSWORD, tmp_path, PICTURES)
    files = {picture.file for picture in PICTURES}
    assert {path.name for path in tmp_path.iterdir()} == files
    assert all(10_000 < path.stat().st_size < 150_000 for path in tmp_path.iterdir())
    assert {picture.page for picture in PICTURES} == set(PAGES)
