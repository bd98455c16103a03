"""What the tests of loading share: the command, digests and recounts of what is stored, a slice of the dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from io import StringIO
from types import ModuleType
from typing import Any

from django.apps import apps
from django.core.management import call_command
from django.db.models import Count, F, Max, Min, Model, Q, Sum

from accounts.models import Identity, Membership, User, Workspace
from conversations.models import Message, Session

VOLUME = ("--users", "7", "--sessions", "23", "--messages", "400")

# Two conversations of the dataset's shape: one of two people, one of somebody alone who says nothing.
SLICE: Mapping[str, Any] = {
    "c1": {
        "messages": [
            [{"text": "Hello", "timestamp": "2018-05-02T19:38:15Z", "sender": "s1"},
             {"text": "How are you?", "timestamp": "2018-05-02T19:38:20Z", "sender": "s1"}],
            [{"text": "whats up 👋", "timestamp": "2018-05-02T19:38:29Z", "sender": "s2"}],
        ],
        "prompt": " What makes you laugh? ",
        "ratings": {"witty": 10, "upbeat": 9},
        "start": "2018-05-03T01:38:01Z",
    },
    "c2": {
        "messages": [[{"text": "", "timestamp": "2018-05-01T10:00:00Z", "sender": "s2"}]],
        "start": "2018-05-01T10:00:00Z",
    },
}  # fmt: skip


class ModuleOf(ModuleType):
    """Stands in for the package of the dataset."""

    def __init__(self, conversations: Mapping[str, Any]) -> None:
        super().__init__("chitchat_dataset")
        self.Dataset = lambda: conversations


def seeded(*arguments: str) -> str:
    out = StringIO()
    call_command("seed", *arguments, stdout=out)
    return out.getvalue()


# What a set says, by the names that Django's values() takes; ids depend on what else was made.
SAID: dict[type[Model], tuple[str, ...]] = {
    User: ("username", "public_id", "name", "email", "date_joined", "password"),
    Workspace: ("public_id", "name", "personal_of__username", "created_at"),
    Membership: ("user__username", "workspace", "role", "created_at"),
    Identity: ("user__username", "issuer", "subject", "created_at"),
    Session: (
        "session_id", "owner__username", "owner_public_id", "workspace", "title", "titled", "agent", "metadata",
        "last_position", "message_count", "tokens", "version", "last_activity", "created_at", "updated_at",
        "idempotency_key", "idempotency_digest",
    ),
    Message: (
        "session__session_id", "position", "role", "content", "tool_name", "trace_id", "span_id", "tokens",
        "metadata", "status", "version", "created_at", "updated_at",
    ),
}  # fmt: skip


def digest() -> str:
    """Of all that a set says."""
    rows = [sorted(map(str, model._default_manager.values_list(*names))) for model, names in SAID.items()]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def emptied() -> None:
    Session.objects.all().delete()
    User.objects.all().delete()
    Workspace.objects.all().delete()


def counts() -> dict[str, int]:
    return {model._meta.label: model._default_manager.count() for model in apps.get_models()}


def wrongly_counted() -> list[Session]:
    """Sessions that a recount over their messages contradicts, or appends would have left otherwise."""
    wrong = Q(n=F("message_count"), n_last=F("last_position"), n_tokens=F("tokens"), version=F("n") + 1)
    messages = Session.objects.annotate(
        n=Count("messages"),
        distinct=Count("messages__position", distinct=True),
        n_last=Max("messages__position"),
        first=Min("messages__position"),
        n_tokens=Sum("messages__tokens"),
        latest=Max("messages__created_at"),
        odd=Count("messages", filter=~Q(messages__version=F("messages__position") + 1)),
    )
    right = wrong & Q(distinct=F("n"), first=1, odd=0, latest=F("updated_at"), last_activity=F("updated_at"))
    empty = Q(n=0, message_count=0, last_position=0, tokens=0, version=1, updated_at=F("created_at"))
    return list(messages.exclude(right | empty))


def homeless() -> list[Session]:
    """Sessions whose owner is no member of their workspace, or has another public id."""
    found = Session.objects.select_related("owner", "workspace")
    members = {(member.user_id, member.workspace_id) for member in Membership.objects.all()}
    return [
        session
        for session in found
        if (session.owner_id, session.workspace_id) not in members
        or session.owner_public_id != session.owner.public_id
    ]
