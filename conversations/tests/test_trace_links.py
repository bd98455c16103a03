"""Links to the tracing system, by the kind of an id: TRACE_URL_TEMPLATES."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from chatstore.environment import Environment
from conftest import new_message
from conversations.models import Session
from conversations.staff import transcript
from conversations.tests.transcripts import TRACE, page_of


def templates(monkeypatch: pytest.MonkeyPatch, value: str) -> Environment:
    monkeypatch.setenv("TRACE_URL_TEMPLATES", value)
    return Environment()


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
        (TRACE, ".", f"https://t.example/hex/{TRACE}/{TRACE}?s="),
        (TRACE, "..", f"https://t.example/hex/{TRACE}/{TRACE}?s="),
        (TRACE, "..a", f"https://t.example/hex/{TRACE}/{TRACE}?s=..a"),
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
