from __future__ import annotations

import sys

import pytest
from django.core.management import CommandError

from accounts.models import User
from conversations.models import Session
from conversations.seeding import chitchat
from conversations.tests.seeds import SLICE, seeded, wrongly_counted

pytestmark = pytest.mark.django_db


def test_the_dataset_becomes_sessions_with_their_times() -> None:
    chitchat.plant(SLICE, lambda _: None)
    session = Session.objects.get(idempotency_key="chitchat:c1")
    rows = session.messages.order_by("position").values_list("role", "content", "created_at")
    shown = [(role, content, at.isoformat()) for role, content, at in rows]
    assert shown == [
        ("user", "Hello", "2018-05-02T19:38:15+00:00"),
        ("user", "How are you?", "2018-05-02T19:38:20+00:00"),
        ("assistant", "whats up 👋", "2018-05-02T19:38:29+00:00"),
    ]
    assert session.created_at.isoformat() == "2018-05-02T19:38:15+00:00"
    assert session.title == "What makes you laugh?"
    assert session.metadata == {"ratings": {"witty": 10, "upbeat": 9}, "partners": ["s2"]}


def test_who_speaks_first_owns_it() -> None:
    chitchat.plant(SLICE, lambda _: None)
    identities = User.objects.filter(identities__issuer="chitchat").values_list("identities__subject", flat=True)
    assert sorted(identities) == ["s1", "s2"]
    assert Session.objects.get(idempotency_key="chitchat:c1").owner.identities.get().subject == "s1"


def test_an_empty_text_is_stored_as_a_word_and_a_missing_title_as_the_default() -> None:
    chitchat.plant(SLICE, lambda _: None)
    session = Session.objects.get(idempotency_key="chitchat:c2")
    assert [message.content for message in session.messages.all()] == ["(empty)"]
    assert (session.title, session.titled, session.metadata) == ("New Chat", False, None)


def test_some_of_the_real_dataset() -> None:
    pytest.importorskip("chitchat_dataset")
    assert seeded("--dataset", "chitchat", "--limit", "20").startswith("Added 22 users, 20 sessions, 396 messages")
    assert wrongly_counted() == []
    assert seeded("--dataset", "chitchat", "--limit", "20") == "Nothing to add: everything is there.\n"


def test_a_missing_dataset_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chitchat_dataset", None)
    with pytest.raises(CommandError, match="pip install chitchat-dataset"):
        seeded("--dataset", "chitchat")
