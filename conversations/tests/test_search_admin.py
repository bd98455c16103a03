"""Staff search what was said: within something, recorded, escaped."""

from __future__ import annotations

import uuid
from datetime import UTC, timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Workspace
from conftest import Caller, new_message, new_session
from conversations.models import Message, Session
from conversations.staff import filters
from conversations.tests.colleagues import MESSAGES, body, holding, logged

pytestmark = pytest.mark.django_db


@pytest.fixture
def said(session: Session) -> Message:
    new_message(session, "A haystack")
    return new_message(session, "A <i>Needle</i> & more")


def today(**shift: int) -> str:
    return str((timezone.now().astimezone(UTC) + timedelta(**shift)).date())


def shown(client: Client, query: str) -> list[int]:
    answer = client.get(f"{MESSAGES}?{query}")
    assert answer.status_code == 200, answer.headers.get("Location")
    return [row.pk for row in answer.context["cl"].result_list]


def places(alice: Caller, said: Message) -> list[str]:
    return [
        f"owner={alice.user.public_id}",
        f"workspace={said.session.workspace_id}",
        f"owner={alice.user.public_id}&workspace={said.session.workspace_id}",
        f"session={said.session_id}",
        f"day={today()}",
        f"day={today(days=-3)}&until={today()}",
        f"day={today()}&owner={alice.user.public_id}",
    ]


def elsewhere() -> list[str]:
    return [
        f"owner={uuid.uuid4()}",
        f"workspace={uuid.uuid4()}",
        f"day={today(days=-1)}",
        f"day={today(days=-6)}&until={today(days=-1)}",
        f"day={today()}&owner={uuid.uuid4()}",
        f"session={2**63 - 1}",
    ]


def test_words_are_found_within_a_place(support: Client, alice: Caller, said: Message) -> None:
    assert [place for place in places(alice, said) if shown(support, f"{place}&text=needle") != [said.pk]] == []
    assert [place for place in elsewhere() if shown(support, f"{place}&text=needle")] == []
    assert shown(support, f"day={today()}&text=needle+haystack") == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("text=needle", "within a session, an owner, a workspace or days: choose that first."),
        ("text=needle&owner=&workspace=&day=", "choose that first."),
        ("text=needle&owner=alice", "give an owner&#x27;s public id"),
        (f"text=needle&owner={uuid.uuid4()}&until=2025-01-01", "choose that first."),
        ("text=a+b+c+d+e+f+g+h+i+j+k&day=2025-01-01", "at most 10 words"),
        (f"text={'x' * 256}&day=2025-01-01", "at most 10 words"),
        ("text=a%00b&day=2025-01-01", "at most 10 words"),
        ("text=needle&day=2025-01-01&until=2025-01-08", "of 7 days at most"),
        ("text=needle&day=2025-01-02&until=2025-01-01", "of 7 days at most"),
        (f"owner={uuid.uuid4()}", "choose that first."),
    ],
)
def test_what_is_out_of_place_is_said(support: Client, query: str, says: str) -> None:
    answer = support.get(f"{MESSAGES}?{query}")
    assert answer.status_code == 302
    assert says in body(support.get(answer.headers["Location"]))
    assert logged("detail") == []


def test_the_excerpt_is_escaped_and_leads_to_the_message(support: Client, said: Message) -> None:
    page = body(support.get(f"{MESSAGES}?day={today()}&text=needle"))
    assert "A &lt;i&gt;<mark>Needle</mark>&lt;/i&gt; &amp; more" in page
    assert f"/transcript/?message={said.pk}#m2" in page


def test_hostile_words_are_escaped(support: Client, said: Message) -> None:
    page = body(support.get(f"{MESSAGES}?day={today()}&text=%22%3E%3Cscript%3Ealert(1)"))
    assert "<script>alert" not in page


def test_a_search_is_recorded_for_each_session_it_shows(support: Client, said: Message) -> None:
    shown(support, f"day={today()}&text=Needle")
    assert logged("action", "session_id", "detail") == [
        ("search", said.session_id, f"messages: Needle; day {today()}")
    ]


def test_a_search_that_finds_nothing_is_recorded(support: Client, said: Message) -> None:
    shown(support, f"day={today()}&text=pin")
    assert logged("action", "session_id", "detail") == [("search", None, f"messages: pin; day {today()}")]


def test_nothing_is_quoted_where_a_reason_is_asked_for(support: Client, said: Message, settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"access_reason_required": True})
    assert shown(support, f"day={today()}&text=needle") == [said.pk]
    assert "Needle" not in body(support.get(f"{MESSAGES}?day={today()}&text=needle"))


def test_who_may_not_see_messages_finds_none(said: Message) -> None:
    assert holding("view_session").get(f"{MESSAGES}?day={today()}&text=needle").status_code == 403
    assert logged("detail") == []


def test_the_newest_are_looked_at(
    support: Client, alice: Caller, shared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "NEWEST", 2)
    keys = [new_message(new_session(alice, shared), "needle").pk for _ in range(3)]
    for place in (f"owner={alice.user.public_id}", f"workspace={shared.public_id}", f"day={today()}"):
        assert shown(support, f"{place}&text=needle") == [keys[2], keys[1]]
        assert "among the newest 2." in body(support.get(f"{MESSAGES}?{place}&text=needle"))
