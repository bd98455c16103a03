"""Sessions with their messages, loaded in bulk, as if they had been appended one at a time.

Positions run from 1 without gaps, each message has the version its append would have given, and the session's
counters, times and version are those after the last append. The quota and AUTO_TITLE are for people: nothing
here asks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest

from accounts.models import User
from conversations import bulk, usage
from conversations.models import Message, Session
from conversations.seeding import people
from conversations.seeding.people import Owner
from conversations.seeding.plans import PlannedMessage, PlannedSession, digest_of

PIECE = 5_000
MOST_SESSIONS = 500

Advance = Callable[[int], None]

SESSION_COLUMNS = (
    "session_id", "owner", "owner_public_id", "workspace", "title", "titled",
    "pocket", "group", "agent", "metadata", "last_position", "message_count", "tokens", "version",
    "last_activity", "created_at", "updated_at",
    "idempotency_key", "idempotency_digest",
)  # fmt: skip
MESSAGE_COLUMNS = (
    "session", "position", "role", "content", "tool_name", "trace_id", "span_id", "tokens", "metadata",
    "version", "created_at", "updated_at",
)  # fmt: skip


@dataclass
class Added:
    """What a load has added."""

    users: int = 0
    sessions: int = 0
    messages: int = 0

    def __iadd__(self, other: Added) -> Added:
        self.users += other.users
        self.sessions += other.sessions
        self.messages += other.messages
        return self

    def __bool__(self) -> bool:
        return any((self.users, self.sessions, self.messages))


class Opening(NamedTuple):
    """A session about to be inserted with its first messages; the others follow, a piece at a time."""

    planned: PlannedSession
    owner: Owner
    first: list[PlannedMessage]
    rest: Iterator[PlannedMessage]


def load(sessions: Iterable[PlannedSession], advance: Advance) -> Added:
    """Load those of the sessions that are missing, some thousand messages in a transaction, each session whole.

    The owners must be there. `advance` is told of every message planned. Memory is bounded by the piece, not
    by the number of sessions nor by the length of one.
    """
    added = Added()
    for chunk in chunks(sessions):
        added += load_chunk(chunk)
        advance(sum(planned.size for planned in chunk))
    return added


def chunks(sessions: Iterable[PlannedSession]) -> Iterator[list[PlannedSession]]:
    chunk: list[PlannedSession] = []
    size = 0
    for planned in sessions:
        chunk.append(planned)
        size += planned.size
        if size >= PIECE or len(chunk) >= MOST_SESSIONS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


@transaction.atomic
def load_chunk(chunk: Sequence[PlannedSession]) -> Added:
    openings = [opening(planned, owner) for planned, owner in missing(chunk)]
    if not openings:
        return Added()
    bulk.insert(Session, SESSION_COLUMNS, [session_row(opened) for opened in openings])
    ids = ids_of(openings)
    heads = (message_rows(ids[opened.planned], opened.first, 1) for opened in openings)
    bulk.insert(Message, MESSAGE_COLUMNS, list(chain.from_iterable(heads)))
    usage.mark((message.at for opened in openings for message in opened.first), today_too=True)
    added = Added(sessions=len(openings), messages=sum(len(opened.first) for opened in openings))
    for opened in openings:
        added.messages += load_rest(ids[opened.planned], opened)
    return added


def missing(chunk: Sequence[PlannedSession]) -> list[tuple[PlannedSession, Owner]]:
    """Those that are not there yet, with their owners, whom this locks: another run waits, then finds them."""
    owner_of = owners_of(chunk)
    ids = {owner.id for owner in owner_of.values()}
    list(User.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk").values_list("pk"))
    keys = [planned.key for planned in chunk]
    there = set(
        Session.objects.filter(owner__in=ids, idempotency_key__in=keys).values_list("owner_id", "idempotency_key")
    )
    owned = ((planned, owner_of[planned.issuer, planned.subject]) for planned in chunk)
    return [(planned, owner) for planned, owner in owned if (owner.id, planned.key) not in there]


def owners_of(chunk: Sequence[PlannedSession]) -> dict[tuple[str, str], Owner]:
    found: dict[tuple[str, str], Owner] = {}
    for issuer in {planned.issuer for planned in chunk}:
        subjects = {planned.subject for planned in chunk if planned.issuer == issuer}
        found |= {(issuer, subject): owner for subject, owner in people.owners(issuer, subjects).items()}
    return found


def opening(planned: PlannedSession, owner: Owner) -> Opening:
    messages = iter(planned.messages)
    return Opening(planned, owner, list(islice(messages, PIECE)), messages)


def session_row(opened: Opening) -> tuple[Any, ...]:
    planned, owner, first, _ = opened
    last = max([planned.created_at, *(message.at for message in first)])
    return (
        planned.session_id, owner.id, owner.public_id, planned.workspace or owner.workspace,
        planned.stored_title, planned.title is not None,
        planned.pocket, planned.group, planned.agent, planned.metadata,
        len(first), len(first), sum(message.tokens for message in first), 1 + len(first),
        last, planned.created_at, last, planned.key, digest_of("seed", planned.key),
    )  # fmt: skip


def ids_of(openings: Sequence[Opening]) -> dict[PlannedSession, int]:
    planned = {opened.planned.session_id: opened.planned for opened in openings}
    rows = Session.objects.filter(session_id__in=planned).values_list("session_id", "pk")
    return {planned[session_id]: pk for session_id, pk in rows}


def message_rows(session: int, messages: Iterable[PlannedMessage], first: int) -> Iterator[tuple[Any, ...]]:
    """Rows from position `first` on. The session's version is 1 when it is made and one more after each append."""
    for position, said in enumerate(messages, first):
        role, content, at, tokens, tool_name, trace_id, span_id, metadata = said
        yield (
            session, position, role, content, tool_name, trace_id, span_id, tokens, metadata, position + 1, at, at
        )  # fmt: skip


def load_rest(session: int, opened: Opening) -> int:
    """The messages after the first piece; how many there were."""
    count = len(opened.first)
    for piece in bulk.pieces(opened.rest, PIECE):
        bulk.insert(Message, MESSAGE_COLUMNS, list(message_rows(session, piece, count + 1)))
        usage.mark((message.at for message in piece), today_too=True)
        count_up(session, piece)
        count += len(piece)
    return count - len(opened.first)


def count_up(session: int, piece: Sequence[PlannedMessage]) -> None:
    last = max(message.at for message in piece)
    Session.objects.filter(pk=session).update(
        last_position=F("last_position") + len(piece),
        message_count=F("message_count") + len(piece),
        version=F("version") + len(piece),
        tokens=F("tokens") + sum(message.tokens for message in piece),
        last_activity=Greatest("last_activity", last),
        updated_at=Greatest("updated_at", last),
    )
