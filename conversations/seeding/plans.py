"""What is to be loaded: people, sessions and messages that say themselves who, what and when.

All of it is known beforehand, ids and times too, so that two databases get the same rows, and each row
is found again by its key.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from conversations.models import DEFAULT_TITLE

VERSION_7 = 0x7 << 76
VARIANT = 0b10 << 62


def digest_of(*names: str) -> str:
    """64 hex digits that depend on nothing but the names."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


def uuid_at(moment: datetime, *names: str) -> uuid.UUID:
    """A UUIDv7 (RFC 9562) of this moment whose random bits come from the names."""
    milliseconds = int(moment.timestamp() * 1000)
    bits = int(digest_of(*names)[:20], 16)
    random_a, random_b = bits >> 68, bits & (1 << 62) - 1
    return uuid.UUID(int=milliseconds << 80 | VERSION_7 | random_a << 64 | VARIANT | random_b)


@dataclass(frozen=True)
class PlannedPerson:
    """Somebody whom `issuer` calls `subject`; found again by the two."""

    issuer: str
    subject: str
    joined: datetime
    name: str = ""
    email: str = ""

    @property
    def public_id(self) -> uuid.UUID:
        return uuid_at(self.joined, "person", self.issuer, self.subject)


class PlannedMessage(NamedTuple):
    """A message; its position follows from its place in the session."""

    role: str
    content: str
    at: datetime
    tokens: int = 0
    tool_name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(eq=False)
class PlannedSession:
    """A session of the person (`issuer`, `subject`), found again by owner and `key`.

    `messages` are in order, none earlier than `created_at`, and `size` is their number; they are read once,
    and only where the session is missing. Without a `workspace` it goes into the owner's personal one.
    """

    issuer: str
    subject: str
    key: str
    created_at: datetime
    size: int
    messages: Iterable[PlannedMessage]
    title: str | None = None
    workspace: uuid.UUID | None = None
    pocket: str | None = None
    group: str | None = None
    agent: str | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def session_id(self) -> uuid.UUID:
        return uuid_at(self.created_at, "session", self.issuer, self.subject, self.key)

    @property
    def stored_title(self) -> str:
        return self.title or DEFAULT_TITLE
