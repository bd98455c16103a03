"""The look-ups behind "paste anything": messages and sessions by what a text names.

Two rounds. The first looks up ids; only where it finds nothing, the second takes beginnings of ids and email
addresses, which say less. Each query uses an index, and reads so many rows at most (`lookups`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Left, Lower
from django.db.models.lookups import In

from accounts.models import User
from chatstore.ids import uuid_of
from conversations.models import Message, Session
from conversations.staff.links import transcript_url
from conversations.staff.lookups import Key, beginning_with, look_up, newest_of, one_of
from conversations.staff.traces import IDS, Candidate, Kind

MOST_SHOWN = 50
# Beginnings that are looked up at once, each in several spellings and in two columns.
MOST_PREFIXES = 4
EXCERPT = 120
# Read more than is shown: what people indent is mostly spaces.
READ_FOR_EXCERPT = 480

COLUMNS = ("id", "session_id", "position", "role", "created_at", "deleted_at", "trace_id", "span_id")
OWNER_COLUMNS = ("owner__name", "owner__username")
SESSION_COLUMNS = ("session_id", "title", "message_count", "updated_at", "deleted_at", *OWNER_COLUMNS)


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
    # There are more under one id than were looked at.
    is_cut: bool = False
    # Email addresses name people, who have any number of sessions.
    is_of_people: bool = False

    def __bool__(self) -> bool:
        return bool(self.messages or self.sessions)

    @property
    def places(self) -> dict[int, Session]:
        """The sessions of all that was found, by key."""
        sessions = [hit.session for hit in self.messages] + [hit.session for hit in self.sessions]
        return {session.pk: session for session in sessions}

    def is_under(self, named: Candidate) -> bool:
        """Whether a message that was found has this as its id, or an id that goes on after this beginning."""
        ids = {stored for hit in self.messages for stored in (hit.trace_id, hit.span_id) if stored}
        if named.kind == Kind.PREFIX:
            return any(stored.startswith(named.spellings) for stored in ids.difference(named.spellings))
        return not ids.isdisjoint(named.spellings)

    @property
    def destination(self) -> str | None:
        """Where to go without asking: to the one message, run or session found; None where several are."""
        if len(self.places) != 1 or self.is_of_people or self.is_cut:
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
    keys, is_cut = look_up([*one_of("id", numbers), *one_of("span_id", ids), *one_of("trace_id", ids)])
    named, spans = set(numbers), set(ids)

    def rank(key: Key) -> int:
        """A message that is named, or whose span is, before the rest of its trace."""
        return 0 if key.id in named else 1 if key.span_id in spans else 2

    page = first_of(keys, rank)
    around = {key.session_id for key in page}
    pks = {int(number) for number in spelled(candidates, Kind.SESSION)}
    uuids = {found for found in map(uuid_of, spelled(candidates, Kind.UUID)) if found}
    sessions = shown(Session.objects.filter(Q(pk__in=pks | around) | Q(session_id__in=uuids)))
    asked = [SessionHit(s) for s in sessions if s.pk in pks or s.session_id in uuids]
    return Found(hits(page, sessions), asked, len(keys) > MOST_SHOWN, is_cut)


def found_loosely(candidates: Sequence[Candidate]) -> Found:
    prefixes = [named for named in candidates if named.kind == Kind.PREFIX][:MOST_PREFIXES]
    beginnings = dict.fromkeys(beginning for prefix in prefixes for beginning in prefix.spellings)
    keys, is_cut = look_up(
        [beginning_with(column, text) for text in beginnings for column in ("trace_id", "span_id")]
    )
    page = first_of(keys)
    theirs = newest_of(people_with(spelled(candidates, Kind.EMAIL)), MOST_SHOWN + 1)
    sessions = shown(Session.objects.filter(pk__in={*theirs, *(key.session_id for key in page)}))
    by_key = {session.pk: session for session in sessions}
    owned = [SessionHit(by_key[pk]) for pk in theirs[:MOST_SHOWN] if pk in by_key]
    has_more = len(keys) > MOST_SHOWN or len(theirs) > MOST_SHOWN
    return Found(hits(page, sessions), owned, has_more, is_cut, is_of_people=bool(owned))


def people_with(emails: list[str]) -> list[int]:
    """Keys of the users with these addresses, in any case; looked up first, because a join would use no index."""
    if not emails:
        return []
    lowered = In(Lower("email"), [Lower(Value(email)) for email in emails])
    return list(User.objects.filter(lowered).values_list("pk", flat=True)[:MOST_SHOWN])


def first_of(keys: list[Key], rank: Callable[[Key], int] = lambda key: 0) -> list[Key]:
    """The first fifty, newest sessions first. Where there are more, one of another session is added, if any is:
    a long run is told from one that goes on elsewhere."""
    ordered = sorted(keys, key=lambda key: (rank(key), -key.session_id, key.position))
    page, rest = ordered[:MOST_SHOWN], ordered[MOST_SHOWN:]
    elsewhere = (key for key in rest if key.session_id != page[0].session_id)
    return [*page, *islice(elsewhere, 1)]


def shown(sessions: QuerySet[Session]) -> list[Session]:
    return list(sessions.select_related("owner").only(*SESSION_COLUMNS))


def hits(keys: list[Key], sessions: list[Session]) -> list[MessageHit]:
    """A message that was removed in between, or whose session was, is none."""
    by_key = {session.pk: session for session in sessions}
    read = Message.objects.filter(pk__in=[key.id for key in keys]).order_by()
    rows = {row["id"]: row for row in read.values(*COLUMNS, beginning=Left("content", READ_FOR_EXCERPT))}
    found = (rows[key.id] for key in keys if key.id in rows)
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
        for row in found
        if row["session_id"] in by_key
    ]


def excerpt_of(content: str) -> str:
    """The first words, on one line."""
    return cut(" ".join(content.split()), EXCERPT)


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
