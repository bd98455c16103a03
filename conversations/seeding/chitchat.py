"""The real conversations of the `chitchat-dataset` package, a development dependency.

Kept: who said what, when, in which order; the prompt as title; ratings and the partner as metadata.
33 texts are empty and a message has at least one character: they are stored as "(empty)".
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Any

from conversations.seeding import people
from conversations.seeding.loading import Added, Advance, load
from conversations.seeding.plans import PlannedMessage, PlannedPerson, PlannedSession

ISSUER = "chitchat"
EMPTY = "(empty)"

Conversations = Mapping[str, Mapping[str, Any]]


class DatasetMissing(Exception):
    """The package is not installed."""


def dataset() -> Conversations:
    """All of it, in memory: 7,168 conversations with 258,145 messages of 1,315 senders. Raises DatasetMissing."""
    try:
        package = importlib.import_module("chitchat_dataset")
    except ModuleNotFoundError:
        raise DatasetMissing from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # It leaves its file open.
        found: Conversations = package.Dataset()
    return found


def plant(conversations: Conversations, advance: Advance) -> Added:
    """Load those that are missing."""
    added = Added(users=people.ensure(planned_people(conversations)))
    added += load(planned_sessions(conversations), advance)
    return added


def count(conversations: Conversations) -> int:
    return sum(len(turn) for conversation in conversations.values() for turn in conversation["messages"])


def utterances(conversation: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """The dataset groups what one sender says in a row; each utterance is a message."""
    return list(chain.from_iterable(conversation["messages"]))


def planned_people(conversations: Conversations) -> Iterator[PlannedPerson]:
    """Everybody who says something, since their first word."""
    joined: dict[str, str] = {}
    for conversation in conversations.values():
        for said in utterances(conversation):
            joined[said["sender"]] = min(said["timestamp"], joined.get(said["sender"], said["timestamp"]))
    for sender, since in joined.items():
        yield PlannedPerson(ISSUER, sender, moment(since), name=f"Chitchat {sender[:8]}")


def planned_sessions(conversations: Conversations) -> Iterator[PlannedSession]:
    for key, conversation in conversations.items():
        if said := utterances(conversation):
            yield planned_session(key, conversation, said)


def planned_session(key: str, conversation: Mapping[str, Any], said: list[Mapping[str, str]]) -> PlannedSession:
    """Who speaks first owns it, and is its user; the other is the assistant."""
    owner = said[0]["sender"]
    partners = sorted({utterance["sender"] for utterance in said} - {owner})
    metadata = {"ratings": conversation.get("ratings"), "partners": partners}
    return PlannedSession(
        ISSUER, owner, f"chitchat:{key}", moment(said[0]["timestamp"]), len(said),
        (message(utterance, owner) for utterance in said),
        title=(conversation.get("prompt") or "").strip() or None,
        metadata={name: value for name, value in metadata.items() if value} or None,
    )  # fmt: skip


def message(utterance: Mapping[str, str], owner: str) -> PlannedMessage:
    role = "user" if utterance["sender"] == owner else "assistant"
    return PlannedMessage(role, utterance["text"] or EMPTY, moment(utterance["timestamp"]))


def moment(text: str) -> datetime:
    """`2018-05-02T19:38:15Z` as a time."""
    return datetime.fromisoformat(text)
