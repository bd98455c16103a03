"""The whole store as lines, in one order and from one moment, some rows in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import QuerySet

from accounts.models import Identity, Membership, User, Workspace
from chatstore.http.times import wire_time
from conversations import bulk
from conversations.models import Message, Session, Turn
from conversations.transfer.lines import COUNTED, FIELDS, FORMAT, IDENTITY, line_of, plain
from conversations.usage import take_time

ROWS: Final = 500
# So many messages are sorted at once, but for a session that has more.
MESSAGES: Final = 5_000

# Read as PostgreSQL writes them: making objects of them takes longer than all the rest.
AS_TEXT: Final = {"uuid": "text", "timestamp with time zone": "text"}
UNFINISHED: Final = {Message.Status.STREAMING.value, Turn.Status.RUNNING.value}

# Where a field is in our tables; it has its own name where nothing stands here.
RENAMED: Final[dict[str, dict[str, str]]] = {
    "user": {"created_at": "date_joined"},
    "identity": {"user": "user__public_id"},
    "creation": {"created_by": "created_by__public_id", "user": "public_id"},
    "workspace": {"personal_of": "personal_of__public_id"},
    "membership": {"user": "user__public_id"},
    "session": {"owner": "owner_public_id"},
    "message": {"session": "session__session_id"},
    "turn": {"session": "session__session_id"},
}

Row = dict[str, Any]


def exported(expect: Callable[[int], None] = lambda lines: None) -> Iterator[bytes]:
    """Every line of the file. Needs a `snapshot`. `expect` is told how many there are."""
    counts = counted()
    expect(1 + sum(counts.values()))
    yield line_of({"counts": dict(sorted(counts.items())), "format": FORMAT, "type": "store"})
    yield from map(line_of, chain(users(), creations(), workspaces(), memberships(), conversations()))


@contextmanager
def snapshot() -> Iterator[None]:
    """What is read inside is of one moment; nothing can be written, and others are not kept from writing."""
    if connection.vendor == "postgresql":
        with transaction.atomic(durable=True):
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            take_time()
            yield
        return
    with connection.cursor() as cursor:
        cursor.execute("BEGIN DEFERRED")  # Django's own would take the lock of writers.
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")


def counted() -> dict[str, int]:
    """How many lines there are of each kind."""
    rows: list[QuerySet[Any]] = [
        User.objects.all(), made_users(), Workspace.objects.all(), Membership.objects.all(),
        Session.objects.all(), Message.objects.all(), Turn.objects.all(),
    ]  # fmt: skip
    return {kind: found.count() for kind, found in zip(COUNTED, rows, strict=True)}


# People and workspaces


def creations() -> Iterator[Row]:
    return chain.from_iterable(pages("creation", made_users(), "public_id"))


def workspaces() -> Iterator[Row]:
    return chain.from_iterable(pages("workspace", Workspace.objects.all(), "public_id"))


def made_users() -> QuerySet[User]:
    """Those whom somebody made who is still there."""
    return User.objects.filter(created_by__isnull=False)


def users() -> Iterator[Row]:
    for page in pages("user", User.objects.all(), "public_id"):
        known: dict[str, list[Row]] = {str(row["public_id"]): [] for row in page}
        for row in rows("identity", Identity.objects.filter(user__public_id__in=known)):
            known[str(row["user"])].append({name: row[name] for name in IDENTITY})
        for row in page:
            identified = sorted(known[str(row["public_id"])], key=itemgetter("issuer", "subject"))
            yield dict(sorted({**row, "identities": identified}.items()))


def memberships() -> Iterator[Row]:
    for page in pages("workspace", Workspace.objects.all(), "public_id"):
        members = Membership.objects.filter(workspace__in=[row["public_id"] for row in page])
        yield from rows("membership", members.order_by("workspace_id", "user__public_id"))


# Conversations


def conversations() -> Iterator[Row]:
    """Each session, its messages and its turns. What is still being written is interrupted here: whoever reads
    the file has no worker that would finish it."""
    for page in pages("session", Session.objects.all(), "session_id"):
        for piece in of_bounded_size(page):
            yield from rows_of_sessions(piece)


def of_bounded_size(sessions: Sequence[Row]) -> Iterator[list[Row]]:
    piece: list[Row] = []
    size = 0
    for session in sessions:
        if piece and size + session["last_position"] > MESSAGES:
            yield piece
            piece, size = [], 0
        piece.append(session)
        size += session["last_position"]
    if piece:
        yield piece


def rows_of_sessions(sessions: Sequence[Row]) -> Iterator[Row]:
    ids = [session["session_id"] for session in sessions]
    keys = list(Session.objects.filter(session_id__in=ids).values_list("pk", flat=True))
    asked = Turn.objects.filter(session__in=keys).order_by("session__session_id", "question")
    said = Message.objects.filter(session__in=keys).order_by("session__session_id", "position")
    turns = Following(iter(list(by_session("turn", asked))))  # One COPY at a time.
    messages = Following(by_session("message", said))
    for session in sessions:
        yield session
        yield from messages.of(session["session_id"])
        yield from turns.of(session["session_id"])


def by_session(kind: str, found: QuerySet[Any]) -> Iterator[Row]:
    for row in rows(kind, found):
        if row["status"] in UNFINISHED:
            row["status"] = Message.Status.INTERRUPTED.value
        yield row


class Following:
    """Rows in the order of their sessions, given out a session at a time."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self.rows = rows
        self.next = next(rows, None)

    def of(self, session: Any) -> Iterator[Row]:
        while self.next and self.next["session"] == session:
            yield self.next
            self.next = next(self.rows, None)


# Rows


def pages(kind: str, found: QuerySet[Any], key: str) -> Iterator[list[Row]]:
    """All rows in the order of a unique column, ROWS at a time."""
    last = None
    while True:
        following = found.filter(**{f"{key}__gt": last}) if last else found
        page = list(rows(kind, following.order_by(key)[:ROWS]))
        if page:
            yield page
        if len(page) < ROWS:
            return
        last = page[-1]["user" if kind == "creation" else key]


def rows(kind: str, found: QuerySet[Any]) -> Iterator[Row]:
    """These rows as their lines say them."""
    fields = [*IDENTITY, "user"] if kind == "identity" else list(FIELDS[kind])
    fields = [field for field in fields if field != "identities"]
    columns = [RENAMED[kind].get(field, field) for field in fields]
    place_of_type = sum(field < "type" for field in fields)
    names = [*fields[:place_of_type], "type", *fields[place_of_type:]]
    times = [n for n, field in enumerate(fields) if field.endswith("_at") or field == "last_activity"]
    for found_values in bulk.read(found.values_list(*columns), AS_TEXT):
        values = list(found_values)
        for place in times:
            if values[place] is not None:
                values[place] = spelled(values[place])
        values.insert(place_of_type, kind)
        row = dict(zip(names, values, strict=True))
        if row.get("metadata") is not None:
            row["metadata"] = plain(row["metadata"])
        yield row


def spelled(value: str | datetime) -> str:
    """A time with six digits of a second, from PostgreSQL's words in UTC or from a value."""
    if isinstance(value, datetime):
        return wire_time(value)
    return f"{value[:10]}T{value[11:19]}.{value[20:-3]:0<6}Z"
