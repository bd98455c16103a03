"""What was sent and answered, held against what is stored: an append-only model of every session.

A write that was acknowledged is there, once, at the position that was said; one that was not answered is there
once or not at all; one that was refused is not there. All readers see one order without gaps, in which what ended
before another began stands before it. Counters equal a recount.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg

from torture.product import Product

Query = Callable[[str, str], list[tuple[Any, ...]]]
KINDS = ("lost", "duplicated", "gaps", "reordered", "drifted", "different", "unexpected", "errors")


class Row(NamedTuple):
    """A message as it is stored."""

    id: int
    position: int
    digest: str


@dataclass(frozen=True)
class Attempt:
    """One request that appends, by a client who knows its key, and what came back. Times by one clock."""

    session: str
    key: str
    digests: tuple[str, ...]
    started: float
    ended: float
    status: int | None  # None: no whole answer came.
    made: tuple[tuple[int, int], ...] = ()  # id and position of each message
    is_replay: bool = False
    error: str = ""  # Where no whole answer came: the name of what the client got instead.
    retry_after: str = ""

    @property
    def is_acknowledged(self) -> bool:
        return self.status in (200, 201)

    @property
    def is_unknown(self) -> bool:
        """Whether the write may be there or not. A 503 may be the loss of the database's own answer."""
        return self.status is None or self.status >= 500


class Attempts:
    """A log that threads write to."""

    def __init__(self) -> None:
        self.lock, self.all = threading.Lock(), list[Attempt]()
        self.keys: set[str] = set()

    def note(self, attempt: Attempt) -> None:
        with self.lock:
            self.all.append(attempt)
            if attempt.is_acknowledged:
                self.keys.add(attempt.key)

    @property
    def acknowledged(self) -> int:
        """Writes, not answers: a key counts once."""
        return len(self.keys)


@dataclass
class Findings:
    """How often each thing went wrong, and a sentence for the first of each."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, sentence: str) -> None:
        self.counts[kind] += 1
        self.first.setdefault(kind, sentence)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        return "; ".join(f"{self.counts[kind]} {kind}, such as: {said}" for kind, said in self.first.items())


def digest_of(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def check(product: Product, sessions: Iterable[tuple[int, str]], attempts: Attempts) -> Findings:
    """Read every session by cursor and by SQL, and hold both against the log."""
    found = Findings()
    by_session: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts.all:
        by_session[attempt.session].append(attempt)
        if attempt.status is not None and attempt.status >= 500 and attempt.status != 503:
            found.add("errors", f"{attempt.status} for {attempt.key}")
    with reading(product.database_url) as database:
        for user, session in sessions:
            stored = read_by_sql(database, session, found)
            read = read_by_cursor(product, user, session)
            if read != stored:
                found.add("different", f"{session}: the API gives {len(read)} rows, SQL {len(stored)}")
            check_session(stored, by_session[session], found)
    return found


@contextmanager
def reading(database_url: str) -> Iterator[Query]:
    """What gives the rows of a query about a session."""
    if database_url.startswith("sqlite:///"):
        with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as file:
            yield lambda query, session: list(file.execute(query.replace("%s", "?"), [session.replace("-", "")]))
    else:
        with psycopg.connect(database_url) as database:
            yield lambda query, session: database.execute(query.encode(), [session]).fetchall()


def read_by_sql(database: Query, session: str, found: Findings) -> list[Row]:
    """The session's rows in order; notes gaps and counters that differ from a recount."""
    query = """SELECT m.id, m.position, m.content, m.tokens, m.version FROM conversations_message m
        JOIN conversations_session s ON s.id = m.session_id WHERE s.session_id = %s ORDER BY m.position"""
    rows = database(query, session)
    query = """SELECT message_count, last_position, tokens, version FROM conversations_session
        WHERE session_id = %s"""
    counters = next(iter(database(query, session)), None)
    positions = [row[1] for row in rows]
    if positions != list(range(1, len(rows) + 1)):
        found.add("gaps", f"{session}: {len(rows)} messages, positions to {max(positions, default=0)}")
    newest = max((row[4] for row in rows), default=1)
    recounted = (len(rows), len(rows), sum(row[3] for row in rows), newest)
    if counters != recounted:
        found.add("drifted", f"{session}: {counters} stored, {recounted} recounted")
    return [Row(row[0], row[1], digest_of(row[2])) for row in rows]


def read_by_cursor(product: Product, user: int, session: str) -> list[Row]:
    """The session's rows as the API gives them, page by page."""
    rows: list[Row] = []
    path: str | None = f"/api/sessions/{session}/messages/?limit=200"
    with product.client(user) as client:
        while path:
            answer = client.send("GET", path)
            if answer.status != 200:
                raise RuntimeError(f"{path} answered {answer.status}")
            rows += [Row(each["id"], each["position"], digest_of(each["content"])) for each in answer.body]
            link = answer.headers.get("link", "")
            path = link[1:].partition(">")[0].partition(f":{product.port}")[2] if 'rel="next"' in link else None
    return rows


def check_session(stored: list[Row], attempts: list[Attempt], found: Findings) -> None:
    by_id = {row.id: row for row in stored}
    times_stored = Counter(row.digest for row in stored)
    by_key: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_key[attempt.key].append(attempt)
    sent = {digest for attempt in attempts for digest in attempt.digests}
    for row in stored:
        if row.digest not in sent:
            found.add("unexpected", f"message {row.id} was sent by nobody")
    for key, tries in by_key.items():
        check_write(key, tries, by_id, times_stored, found)
    check_order(attempts, found)


def check_write(
    key: str, tries: list[Attempt], by_id: dict[int, Row], times_stored: Counter[str], found: Findings
) -> None:
    digests = tries[0].digests
    stored = {digest: times_stored[digest] for digest in digests}
    if any(count > 1 for count in stored.values()):
        found.add("duplicated", f"{key} is stored {max(stored.values())} times")
    answers = {attempt.made for attempt in tries if attempt.is_acknowledged}
    if len(answers) > 1:
        found.add("different", f"{key} was answered with {sorted(answers)}")
    for made in answers:
        rows = [by_id.get(row_id) for row_id, _ in made]
        if [row and row.digest for row in rows] != list(digests):
            found.add("lost", f"{key} was acknowledged as {made}")
        elif [row and row.position for row in rows] != [position for _, position in made]:
            found.add("reordered", f"{key} was acknowledged at {made}, and stands elsewhere")
    if not answers:
        if not any(attempt.is_unknown for attempt in tries) and any(stored.values()):
            found.add("unexpected", f"{key} was refused, and is stored")
        if any(stored.values()) and not all(stored.values()):
            found.add("lost", f"{key}: {sum(stored.values())} of {len(digests)} are stored")


def check_order(attempts: list[Attempt], found: Findings) -> None:
    """What was answered before another write was first sent stands before it."""
    started: dict[str, float] = {}
    ended: dict[str, Attempt] = {}
    for attempt in sorted(attempts, key=lambda attempt: attempt.ended):
        started[attempt.key] = min(attempt.started, started.get(attempt.key, attempt.started))
        if attempt.is_acknowledged and attempt.made:
            ended.setdefault(attempt.key, attempt)
    answered, place, highest = list(ended.values()), 0, 0
    for attempt in sorted(answered, key=lambda attempt: started[attempt.key]):
        while answered[place].ended < started[attempt.key]:
            highest = max(highest, answered[place].made[-1][1])
            place += 1
        if attempt.made[0][1] <= highest:
            found.add("reordered", f"{attempt.key} was sent after position {highest}, and stands before")
