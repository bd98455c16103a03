"""The look-ups behind "paste anything": messages and sessions by what a text names.

Two rounds. The first looks up ids; only where it finds nothing, the second takes beginnings of ids and email
addresses, which say less. Each query uses an index, and of none more than fifty rows are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Left, Lower
from django.db.models.lookups import In

from accounts.models import User
from chatstore.ids import uuid_of
from conversations.models import Message, Session
from conversations.staff.links import transcript_url
from conversations.staff.traces import IDS, Candidate, Kind

MOST_SHOWN = 50
# Beginnings that are looked up at once, each in several spellings and in two columns.
MOST_PREFIXES = 4
EXCERPT = 120
# Read more than is shown: what people indent is mostly spaces.
READ_FOR_EXCERPT = 480

COLUMNS = ("id", "session_id", "position", "role", "created_at", "deleted_at", "trace_id", "span_id")
SESSION_COLUMNS = ("session_id", "title", "message_count", "updated_at", "deleted_at", "owner__username")


@dataclass(frozen=True)
class MessageHit:
    id: int
    session: Session
    position: int
    role: str
    created_at: datetime
    is_deleted: bool
    trace_id: str | None
    span_id: str | None
    excerpt: str

    @property
    def url(self) -> str:
        return transcript_url(self.session.pk, self.id, self.position)

    @property
    def run(self) -> tuple[str | None, str | int | None]:
        """What the message is a part of: a trace, else a span, else nothing but itself."""
        return (self.trace_id, None) if self.trace_id else (None, self.span_id or self.id)


@dataclass(frozen=True)
class SessionHit:
    session: Session

    @property
    def url(self) -> str:
        return transcript_url(self.session.pk)


@dataclass(frozen=True)
class Found:
    """What was found, the surest first. Deleted messages and sessions are among it: staff see them."""

    messages: list[MessageHit] = field(default_factory=list)
    sessions: list[SessionHit] = field(default_factory=list)
    has_more: bool = False
    # Email addresses name people, who have any number of sessions.
    is_of_people: bool = False

    def __bool__(self) -> bool:
        return bool(self.messages or self.sessions)

    @property
    def destination(self) -> str | None:
        """Where to go without asking: to the one message, run or session found; None where several are."""
        places = {hit.session.pk for hit in self.messages} | {hit.session.pk for hit in self.sessions}
        if len(places) != 1 or self.is_of_people:
            return None
        if not self.messages:
            return self.sessions[0].url
        first = self.messages[0]
        if len(self.messages) == 1:
            return first.url
        if len({hit.run for hit in self.messages}) > 1:
            return None
        return transcript_url(first.session.pk, first.id, first.position, first.trace_id)


def find(candidates: Sequence[Candidate]) -> Found:
    """What the candidates name. At most seven queries, whatever they are."""
    return found_exactly(candidates) or found_loosely(candidates)


def spelled(candidates: Sequence[Candidate], *kinds: Kind) -> list[str]:
    """Each spelling of the candidates of these kinds, once."""
    return list(dict.fromkeys(s for named in candidates if named.kind in kinds for s in named.spellings))


def found_exactly(candidates: Sequence[Candidate]) -> Found:
    ids = spelled(candidates, *IDS)
    numbers = [int(number) for number in spelled(candidates, Kind.MESSAGE)]
    # A message that is named, or whose span is, before the rest of its trace.
    rank = Case(When(pk__in=numbers, then=0), When(span_id__in=ids, then=1), default=2)
    named = Q(trace_id__in=ids) | Q(span_id__in=ids) | Q(pk__in=numbers)
    rows, has_more = bounded(Message.objects.filter(named).annotate(rank=rank), "rank")
    around = {row["session_id"] for row in rows}
    keys = {int(number) for number in spelled(candidates, Kind.SESSION)}
    uuids = {found for found in map(uuid_of, spelled(candidates, Kind.UUID)) if found}
    sessions = shown(Session.objects.filter(Q(pk__in=keys | around) | Q(session_id__in=uuids)))
    asked = [SessionHit(s) for s in sessions if s.pk in keys or s.session_id in uuids]
    return Found(hits(rows, sessions), asked, has_more)


def found_loosely(candidates: Sequence[Candidate]) -> Found:
    began = Q(pk__in=[])
    for candidate in [named for named in candidates if named.kind == Kind.PREFIX][:MOST_PREFIXES]:
        for beginning in candidate.spellings:
            began |= Q(trace_id__startswith=beginning) | Q(span_id__startswith=beginning)
    rows, has_more = bounded(Message.objects.filter(began))
    around = shown(Session.objects.filter(pk__in={row["session_id"] for row in rows}))
    people = people_with(spelled(candidates, Kind.EMAIL))
    # In the order of the owner's index.
    theirs = Session.objects.filter(owner__in=people).order_by("-updated_at", "-id")[: MOST_SHOWN + 1]
    sessions = shown(theirs) if people else []
    owned = [SessionHit(session) for session in sessions[:MOST_SHOWN]]
    has_more = has_more or len(sessions) > MOST_SHOWN
    return Found(hits(rows, around), owned, has_more, is_of_people=bool(owned))


def people_with(emails: list[str]) -> list[int]:
    """Keys of the users with these addresses, in any case; looked up first, because a join would use no index."""
    if not emails:
        return []
    lowered = In(Lower("email"), [Lower(Value(email)) for email in emails])
    return list(User.objects.filter(lowered).values_list("pk", flat=True)[:MOST_SHOWN])


def bounded(messages: QuerySet[Message], *first: str) -> tuple[list[dict[str, Any]], bool]:
    """The first fifty of `messages`, and whether there are more. Where there are, one that is in another session
    is among them if any is: a long run is told from one that goes on elsewhere."""
    # + 0: an order that no index serves. Where one does, PostgreSQL may walk the whole table in that order.
    newest = (F("session_id") + 0).desc()
    excerpt = Left("content", READ_FOR_EXCERPT)
    rows = messages.order_by(*first, newest, "position").values(*COLUMNS, beginning=excerpt)
    page = list(rows[: MOST_SHOWN + 1])
    if len(page) <= MOST_SHOWN:
        return page, False
    return [*page[:MOST_SHOWN], *rows.exclude(session=page[0]["session_id"])[:1]], True


def shown(sessions: QuerySet[Session]) -> list[Session]:
    return list(sessions.select_related("owner").only(*SESSION_COLUMNS))


def hits(rows: list[dict[str, Any]], sessions: list[Session]) -> list[MessageHit]:
    """A message whose session was removed in between is none."""
    by_key = {session.pk: session for session in sessions}
    return [
        MessageHit(
            id=row["id"],
            session=by_key[row["session_id"]],
            position=row["position"],
            role=row["role"],
            created_at=row["created_at"],
            is_deleted=row["deleted_at"] is not None,
            trace_id=row["trace_id"],
            span_id=row["span_id"],
            excerpt=excerpt_of(row["beginning"]),
        )
        for row in rows
        if row["session_id"] in by_key
    ]


def excerpt_of(content: str) -> str:
    """The first words, on one line."""
    line = " ".join(content.split())
    return line if len(line) <= EXCERPT else f"{line[: EXCERPT - 1]}\N{HORIZONTAL ELLIPSIS}"
