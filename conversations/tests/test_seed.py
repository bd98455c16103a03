from __future__ import annotations

import sys
from io import StringIO
from uuid import UUID

import pytest
from django.conf import settings
from django.contrib.auth.hashers import is_password_usable
from django.core.management import CommandError, call_command
from pytest_django import Settings

from accounts.models import LOCAL_ISSUER, ApiToken, Membership, User, Workspace
from conftest import Caller
from conversations import services
from conversations.models import Message, Session
from conversations.tests.seeds import (
    SLICE,
    VOLUME,
    ModuleOf,
    counts,
    digest,
    emptied,
    homeless,
    seeded,
    wrongly_counted,
)

pytestmark = pytest.mark.django_db


def said_in(title: str) -> list[tuple[str, str]]:
    messages = Message.objects.filter(session__title=title).order_by("position")
    return list(messages.values_list("role", "content"))


# The story


def test_it_works() -> None:
    assert seeded().startswith("Added 3 users, 4 sessions, 12 messages in ")
    assert said_in("Welcome Chat") == [("user", "Hello!"), ("assistant", "Hey there 👋")]


def test_the_story_belongs_to_the_person_whom_createtoken_finds() -> None:
    seeded()
    user, created = User.objects.of_identity(LOCAL_ISSUER, "seed@example.com")
    assert not created
    assert Session.objects.owned_by(user).count() == 2


def test_somebody_who_has_a_token_already_gets_the_story() -> None:
    call_command("createtoken", "seed@example.com", stdout=StringIO(), stderr=StringIO())
    assert seeded().startswith("Added 2 users, 4 sessions")
    owner = ApiToken.objects.get().user
    assert Session.objects.get(title="Welcome Chat").owner == owner


def test_the_second_session_has_a_question_a_tool_and_an_answer_with_tokens() -> None:
    seeded()
    question, marker, answer = Message.objects.filter(session__agent="analyst").order_by("position")
    assert (question.role, marker.role, answer.role) == ("user", "tool_call", "assistant")
    assert (marker.content, marker.tool_name) == ("Called search_database", "search_database")
    assert len(marker.span_id or "") == 16
    assert len(marker.trace_id or "") == 32
    assert question.trace_id == marker.trace_id == answer.trace_id
    assert answer.tokens > 0


def test_the_shared_workspace_has_members_with_sessions() -> None:
    seeded()
    shared = Workspace.objects.get(personal_of=None)
    assert Membership.objects.filter(workspace=shared).count() == 3
    assert Session.objects.filter(workspace=shared).values("owner").distinct().count() == 2


def test_the_api_shows_the_story() -> None:
    seeded()
    user, _ = User.objects.of_identity(LOCAL_ISSUER, "seed@example.com")
    caller = Caller(user, ApiToken.objects.issue(user)[1])
    shared = Workspace.objects.get(personal_of=None)
    assert [s["title"] for s in caller.get("/api/sessions/").json()] == ["Orders of last week", "Welcome Chat"]
    others = caller.get(f"/api/sessions/?workspace={shared.public_id}&owner=all").json()
    assert [s["title"] for s in others] == ["Delivery times", "Refund for a damaged parcel"]


# Every kind of set


@pytest.fixture(params=["story", "volume", "chitchat"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The options of each kind of set; the dataset is the slice above."""
    monkeypatch.setitem(sys.modules, "chitchat_dataset", ModuleOf(SLICE))
    return {"story": (), "volume": VOLUME, "chitchat": ("--dataset", "chitchat")}[request.param]


def test_a_second_run_adds_nothing(kind: tuple[str, ...]) -> None:
    seeded(*kind)
    before = counts(), digest()
    assert seeded(*kind) == "Nothing to add: everything is there.\n"
    assert (counts(), digest()) == before


def test_counters_equal_a_recount(kind: tuple[str, ...]) -> None:
    seeded(*kind)
    assert Message.objects.exists()
    assert wrongly_counted() == []


def test_everybody_is_a_member_where_their_sessions_are(kind: tuple[str, ...]) -> None:
    seeded(*kind)
    assert homeless() == []
    assert not User.objects.exclude(personal__isnull=False).exists()
    assert not any(is_password_usable(user.password) for user in User.objects.all())


def test_the_same_seed_makes_the_same_rows_again(kind: tuple[str, ...]) -> None:
    seeded(*kind, "--seed", "5")
    before = digest()
    emptied()
    new_session_of_somebody_else()
    emptied()
    seeded(*kind, "--seed", "5")
    assert digest() == before


def new_session_of_somebody_else() -> None:
    """Ids go on, so that nothing can depend on them."""
    user = User.objects.create_user("else")
    services.create_session(user, user.personal_workspace(), {})


def test_ids_are_version_7(kind: tuple[str, ...]) -> None:
    seeded(*kind)
    ids: list[UUID] = [*Session.objects.values_list("session_id", flat=True)]
    for model in (User, Workspace):
        ids += model._default_manager.values_list("public_id", flat=True)
    assert {uuid.version for uuid in ids} == {7}


def test_the_story_and_the_volume_are_the_same_in_every_database() -> None:
    """The digest is the same on both databases and on every Python. Where the sets change, it is another."""
    seeded("--seed", "5")
    seeded("--seed", "5", *VOLUME)
    assert digest() == "65671a91200f5e4672033a7a6806b2ec019b28d25e2d0d943b3821b6ad0698fe"


@pytest.mark.parametrize("options", [(), VOLUME], ids=["story", "volume"])
def test_another_seed_makes_other_rows(options: tuple[str, ...]) -> None:
    seeded(*options, "--seed", "1")
    first = digest()
    emptied()
    seeded(*options, "--seed", "2")
    assert digest() != first


# What is refused


@pytest.fixture
def production(settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"env": "production"})


def test_outside_development_it_refuses(production: None) -> None:
    assert not settings.ENVIRONMENT.is_development
    with pytest.raises(CommandError, match="seed is for development"):
        seeded()
    assert not User.objects.exists()


def test_force_does_it_anyway(production: None) -> None:
    assert seeded("--force").startswith("Added 3 users")


@pytest.mark.parametrize(
    "options",
    [
        ("--messages", "-1"),
        ("--users", "0", "--messages", "5"),
        ("--users", "2", "--sessions", "0", "--messages", "5"),
        ("--messages", "10000000000"),
        ("--messages", "5", "--dataset", "chitchat"),
    ],
    ids=["negative", "no user", "no session", "too many", "two kinds"],
)
def test_what_makes_no_sense_is_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        seeded(*options)
    assert not User.objects.exists()
