"""ACCESS_REASON_REQUIRED: nobody reads before they have said why."""

from __future__ import annotations

import re
import time

import pytest
from django.test import Client
from pytest_django import Settings

from conftest import Caller, new_message, new_session
from conversations.models import Message, Session
from conversations.tests.chat_clients import configure
from conversations.tests.colleagues import SESSIONS, body, chosen, logged, places


@pytest.fixture
def asking(settings: Settings) -> None:
    configure(settings, access_reason_required=True)


@pytest.fixture
def message(session: Session) -> Message:
    Session.objects.update(title="Xylophone")
    return new_message(session, "Xylophone")


@pytest.mark.parametrize("place", range(4), ids=["transcript", "export", "message", "session"])
def test_a_reason_is_asked_for_and_kept(operations: Client, asking: None, message: Message, place: int) -> None:
    path = places(message)[place]
    page = body(operations.get(path))
    assert "Xylophone" not in page
    assert 'name="reason"' in page
    assert logged("pk") == []
    url = f"{SESSIONS}{message.session.pk}/reason/"
    assert f'action="{url}"' in page
    answer = operations.post(url, {"reason": " Ticket 17 ", "next": path})
    assert answer["Location"] == path
    assert "Xylophone" in body(operations.get(path))
    assert logged("reason") == ["Ticket 17"]


def test_no_reason_is_asked_for_otherwise(operations: Client, message: Message) -> None:
    for path in places(message):
        assert "Xylophone" in body(operations.get(path))
    assert logged("action") == ["transcript", "export", "view", "view"]


def test_a_reason_counts_for_one_session_one_login_and_an_hour(
    operations: Client,
    support: Client,
    asking: None,
    alice: Caller,
    message: Message,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, other = places(message)[2], places(new_message(new_session(alice), "Xylophone"))[2]
    operations.post(f"{SESSIONS}{message.session.pk}/reason/", {"reason": "Ticket 17", "next": path})
    assert "Xylophone" in body(operations.get(path))
    assert "Xylophone" not in body(operations.get(other))
    assert "Xylophone" not in body(support.get(path))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3_601)
    assert "Xylophone" not in body(operations.get(path))


@pytest.mark.parametrize("reason", ["", "   ", "x" * 256, "two\nlines", "a\x00b"])
def test_a_reason_that_is_none_opens_nothing(
    operations: Client, asking: None, message: Message, reason: str
) -> None:
    path = places(message)[2]
    answer = operations.post(f"{SESSIONS}{message.session.pk}/reason/", {"reason": reason, "next": path})
    assert answer.status_code == 200
    assert "Xylophone" not in body(operations.get(path))


@pytest.mark.parametrize(
    "back", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "\\\\evil", ""]
)
def test_nobody_is_led_elsewhere(operations: Client, session: Session, back: str) -> None:
    answer = operations.post(f"{SESSIONS}{session.pk}/reason/", {"reason": "x", "next": back})
    assert answer["Location"] == f"{SESSIONS}{session.pk}/change/"


def test_a_reason_in_a_url_counts_for_nothing(operations: Client, asking: None, message: Message) -> None:
    assert "Xylophone" not in body(operations.get(f"{places(message)[1]}?reason=Ticket"))


def test_an_export_from_the_list_asks_each_time(operations: Client, asking: None, message: Message) -> None:
    page = body(chosen(operations, "export_jsonl", message.session))
    assert 'name="reason"' in page
    sent = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page))
    sent.pop("csrfmiddlewaretoken", None)
    assert sent == {"action": "export_jsonl", "_selected_action": str(message.session.pk), "index": "0"}
    assert "Xylophone" in body(operations.post(SESSIONS, sent | {"reason": "Ticket 18"}))
    assert logged("action", "reason", "detail") == [("export", "Ticket 18", "jsonl")]
    assert 'name="reason"' in body(chosen(operations, "export_jsonl", message.session))
