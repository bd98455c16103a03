"""Deleting sessions for good: what has been in the trash long enough, or what an erased person owned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import transaction
from django.db.models import QuerySet, Sum

from conversations import usage
from conversations.models import Message, Session, Turn

SESSIONS_AT_ONCE = 100
MESSAGES_AT_ONCE = 10_000
# Sessions no longer than this share one statement, which then deletes MESSAGES_AT_ONCE at most.
SHORT = MESSAGES_AT_ONCE // SESSIONS_AT_ONCE

Advance = Callable[[int], None]


@dataclass
class Removed:
    """Rows that are gone, or would be; `messages` counts the markers of deleted ones too."""

    sessions: int = 0
    messages: int = 0

    def __str__(self) -> str:
        return f"{self.sessions:,} sessions with {self.messages:,} messages"


def purgeable(before: datetime) -> QuerySet[Session]:
    """Sessions that went into the trash before this moment."""
    return Session.objects.deleted().filter(deleted_at__lt=before)


def counted(sessions: QuerySet[Session]) -> Removed:
    """What removing these sessions would remove. Positions have no gaps, so the last one counts the rows."""
    totals = sessions.aggregate(messages=Sum("last_position", default=0))
    return Removed(sessions.count(), totals["messages"])


def purge(before: datetime, advance: Advance) -> Removed:
    """Delete for good what went into the trash before this moment, some sessions in a transaction.

    A session that is being restored right now is locked and passed over; one that is being purged is locked
    too, and whoever restores it waits and then gets SessionGone. `advance` is told of messages as they go.
    """
    return remove_all(purgeable(before).order_by("deleted_at", "pk"), advance, skip_locked=True)


def remove_all(sessions: QuerySet[Session], advance: Advance, *, skip_locked: bool = False) -> Removed:
    """Remove all of these sessions, a batch in each transaction."""
    removed = Removed()
    while batch := remove_batch(sessions, advance, skip_locked):
        removed.sessions += batch.sessions
        removed.messages += batch.messages
    return removed


@transaction.atomic
def remove_batch(sessions: QuerySet[Session], advance: Advance, skip_locked: bool) -> Removed | None:
    """Lock and remove the first of these sessions; None where there are none (left)."""
    batch = list(sessions.select_for_update(skip_locked=skip_locked)[:SESSIONS_AT_ONCE])
    if not batch:
        return None
    messages = remove_messages(batch, advance)
    Turn.objects.filter(session__in=batch).delete()
    Session.objects.filter(pk__in=[session.pk for session in batch]).delete()
    return Removed(len(batch), messages)


def remove_messages(sessions: Sequence[Session], advance: Advance) -> int:
    """Delete the messages of these locked sessions by statements that stay short."""
    removed = 0
    for messages in portions(sessions):
        usage.mark(messages.datetimes("created_at", "day", tzinfo=UTC), today_too=True)
        portion = deleted(messages)
        advance(portion)
        removed += portion
    return removed


def portions(sessions: Sequence[Session]) -> Iterator[QuerySet[Message]]:
    """All messages of these sessions, MESSAGES_AT_ONCE at most in each queryset."""
    yield Message.objects.filter(session__in=[session for session in sessions if session.last_position <= SHORT])
    for session in sessions:
        if session.last_position > SHORT:
            for first in range(0, session.last_position, MESSAGES_AT_ONCE):
                yield Message.objects.filter(session=session, position__lte=first + MESSAGES_AT_ONCE)


def deleted(messages: QuerySet[Message]) -> int:
    _, rows = messages.delete()
    return rows.get(Message._meta.label, 0)
