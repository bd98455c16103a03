"""Every migration on a million messages, while others write 50 times a second: nobody waits for over a second.

Forwards; back, while a long transaction reads every table (a dump, say); and forwards again, while one has
written to them. Writers send the SQL of the first schema: the release before runs until the new one is there.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

import psycopg

from torture.postgres import KillablePostgres
from torture.product import MARK, manage
from torture.report import Result, check_store

PER_SESSION = 50
PER_USER = 200
THREADS = 10
CREATE_SHARE = 0.2
SETTLE_SECONDS = 0.5
FIRST = ("conversations", "0001")
# What a migration could break, of what rows that are made in SQL have right.
KEPT = ("schema", "counters", "positions", "contents", "usage")

LOAD = (
    """INSERT INTO accounts_user (password, is_superuser, username, email, is_staff, is_active, date_joined, name,
        public_id) SELECT '', false, 'user' || n, '', false, true, now(), '', gen_random_uuid()
        FROM generate_series(1, %(users)s) n""",
    """INSERT INTO accounts_workspace (public_id, name, created_at, personal_of_id)
        SELECT gen_random_uuid(), 'Personal', now(), id FROM accounts_user""",
    """INSERT INTO conversations_session (session_id, owner_id, owner_public_id, workspace_id, title, titled,
        last_position, message_count, tokens, version, last_activity, created_at, updated_at)
        SELECT gen_random_uuid(), u.id, u.public_id, w.public_id, 'New Chat', false, %(each)s, %(each)s, %(each)s,
        %(each)s + 1, now(), now(), now() FROM generate_series(1, %(sessions)s) n
        JOIN accounts_user u ON u.username = 'user' || (n %% %(users)s + 1)
        JOIN accounts_workspace w ON w.personal_of_id = u.id""",
    """INSERT INTO conversations_message (session_id, position, version, role, content, tokens, status, trace_id,
        created_at, updated_at, idempotency_index)
        SELECT s.id, n, n + 1, 'user', %(mark)s || repeat(' word', 40), 1, 'complete', md5(n::text), now(),
        now(), 0
        FROM conversations_session s, generate_series(1, %(each)s) n""",
    "ANALYZE",
    "CHECKPOINT",
)
APPEND = """WITH counted AS (
    UPDATE conversations_session SET last_position = last_position + 1, message_count = message_count + 1,
    tokens = tokens + 1, version = version + 1, last_activity = now(), updated_at = now()
    WHERE id = %(session)s AND deleted_at IS NULL RETURNING last_position, version)
    INSERT INTO conversations_message (session_id, position, version, role, content, tokens, status, created_at,
    updated_at, idempotency_index) SELECT %(session)s, last_position, version, 'user', %(mark)s, 1, 'complete',
    now(), now(), 0 FROM counted"""
CREATE = """INSERT INTO conversations_session (session_id, owner_id, owner_public_id, workspace_id, title, titled,
    last_position, message_count, tokens, version, last_activity, created_at, updated_at)
    SELECT gen_random_uuid(), owner_id, owner_public_id, workspace_id, 'New Chat', false, 0, 0, 0, 1, now(), now(),
    now() FROM conversations_session WHERE id = %(session)s"""
AUTHENTICATE = """SELECT 1 FROM accounts_user u LEFT JOIN accounts_apitoken t ON t.user_id = u.id
    WHERE u.id = (SELECT owner_id FROM conversations_session WHERE id = %(session)s)"""
READ = "SELECT 1 FROM accounts_user, accounts_workspace, conversations_session, conversations_message LIMIT 1"
# The first rows, which no writer touches.
WRITE = (
    "UPDATE accounts_user SET name = name WHERE id = (SELECT min(id) FROM accounts_user)",
    "UPDATE accounts_workspace SET name = name WHERE id = (SELECT min(id) FROM accounts_workspace)",
    "UPDATE conversations_session SET title = title WHERE id = (SELECT min(id) FROM conversations_session)",
    "UPDATE conversations_message SET tokens = tokens WHERE id = (SELECT min(id) FROM conversations_message)",
)


class Waited(NamedTuple):
    """A write: when it was due and when it was done."""

    due: float
    done: float


class Step(NamedTuple):
    """A migration, what went on beside it, how long it took, and the longest wait of a write; seconds."""

    name: str
    beside: str
    seconds: float
    longest: float

    @property
    def row(self) -> str:
        return f"{self.name} | {self.beside} | {self.seconds:.1f} | {self.longest * 1000:.0f}"


class Writing:
    """Writers at a fixed rate, on connections of their own."""

    def __init__(self, url: str, seed: int, rate: float) -> None:
        self.url, self.seed, self.rate = url, seed, rate
        self.waited, self.errors = list[Waited](), list[str]()
        self.stopped = threading.Event()
        with psycopg.connect(url) as database:
            query = "SELECT id FROM conversations_session ORDER BY id OFFSET 1 LIMIT 2000"
            self.sessions: list[int] = [row[0] for row in database.execute(query)]

    def write(self, number: int) -> None:
        rng, every = random.Random(f"{self.seed}-{number}"), THREADS / self.rate
        first = time.monotonic() + every * number / THREADS
        try:
            with psycopg.connect(self.url, autocommit=True) as database:
                for turn in count():
                    due = first + turn * every
                    if self.stopped.wait(max(0, due - time.monotonic())):
                        return
                    # Where the last one was late, this one has waited only since then.
                    began = max(due, time.monotonic() - every)
                    given = {"session": rng.choice(self.sessions), "mark": MARK}
                    database.execute(AUTHENTICATE, given)
                    database.execute(CREATE if rng.random() < CREATE_SHARE else APPEND, given)
                    self.waited.append(Waited(began, time.monotonic()))
        except psycopg.Error as error:
            self.errors.append(f"a write failed: {error.sqlstate} {type(error).__name__}")

    def longest(self, since: float, until: float) -> float:
        """The longest that a write has waited between these moments, in seconds."""
        times = (each.done - each.due for each in self.waited if each.done >= since and each.due <= until)
        return max(times, default=0.0)


@contextmanager
def writing(url: str, seed: int, rate: float) -> Iterator[Writing]:
    writers = Writing(url, seed, rate)
    threads = [threading.Thread(target=writers.write, args=[n], daemon=True) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        writers.stopped.set()
        for thread in threads:
            thread.join(30)


@contextmanager
def a_long_transaction(url: str, statements: tuple[str, ...], seconds: float) -> Iterator[None]:
    """One that holds what its statements take for so long, whatever the block does."""
    took = threading.Event()

    def hold() -> None:
        with psycopg.connect(url) as database:
            for statement in statements:
                database.execute(statement)
            took.set()
            time.sleep(seconds)
            database.rollback()

    thread = threading.Thread(target=hold, daemon=True)
    if statements:
        thread.start()
        took.wait(30)
    try:
        yield
    finally:
        if statements:
            thread.join(seconds + 30)


def migrations_under_load(
    seed: int,
    *,
    messages: int = 1_000_000,
    rate: float = 50,
    hold: float = 5,
    longest: float = 1.0,
    one_by_one: bool = True,
) -> Result:
    """`longest`: seconds that a write may wait. Not `one_by_one`: all at once, forwards only, beside somebody who
    has written to conversations."""
    server, began = KillablePostgres(), time.monotonic()
    try:
        url = server.start()
        manage(url, "migrate", *FIRST, "--verbosity", "0", DB_STATEMENT_TIMEOUT="0")
        load(url, messages)
        before = rows_of(url)
        with writing(url, seed, rate) as writers:
            if one_by_one:
                steps = there_and_back(url, writers, hold)
            else:
                steps = [step(url, writers, "all", [], "a writer", WRITE[2:], hold)]
        manage(url, "migrate", "--check", "--verbosity", "0")
        lost = max(0, len(writers.waited) - (rows_of(url) - before))
        wrong = check_store(url, *KEPT)
    finally:
        server.stop()
    said = [f"{each.name}: a write waited for {each.longest:.1f} s" for each in steps if each.longest > longest]
    said += wrong
    return Result(
        "migrations under load", seed, time.monotonic() - began, acknowledged=len(writers.waited), lost=lost,
        other=len(said) + len(writers.errors), said=[*said, *writers.errors[:1]],
        counted=("acknowledged", "lost", "other"),
        notes=["migration | beside | seconds | longest wait of a write, ms", *(each.row for each in steps)],
    )  # fmt: skip


def load(url: str, messages: int) -> None:
    sessions = max(10, messages // PER_SESSION)
    users = max(2, sessions // PER_USER)
    sizes = {"users": users, "sessions": sessions, "each": PER_SESSION, "mark": MARK}
    with psycopg.connect(url, autocommit=True) as database:
        for statement in LOAD:
            database.execute(statement, sizes)


def rows_of(url: str) -> int:
    """How many sessions and messages there are: one for each write."""
    query = "SELECT (SELECT count(*) FROM conversations_session) + (SELECT count(*) FROM conversations_message)"
    with psycopg.connect(url) as database:
        found = database.execute(query).fetchone()
    return int(found[0]) if found else 0


def there_and_back(url: str, writers: Writing, hold: float) -> list[Step]:
    began = time.monotonic()
    time.sleep(3)
    steps = [Step("none", "nothing", 3.0, writers.longest(began, time.monotonic()))]
    names = unapplied(url)

    def all_of(beside: str, statements: tuple[str, ...], order: list[str], goal: Callable[[str], str]) -> None:
        for name in order:
            words = [name.partition(".")[0], goal(name)]
            steps.append(step(url, writers, name, words, beside, statements, hold))

    all_of("nothing", (), names, own_name)
    all_of("back, a reader", (READ,), names[::-1], lambda name: name_before(name, names))
    all_of("a writer", WRITE, names, own_name)
    return steps


def own_name(name: str) -> str:
    return name.partition(".")[2]


def name_before(name: str, names: list[str]) -> str:
    """The migration of its app before it, by its name or number."""
    app, _, own = name.partition(".")
    before = [own_name(each) for each in names if each.startswith(f"{app}.") and own_name(each) < own]
    return before[-1] if before else {"accounts": "0001", "conversations": "0001"}.get(app, "zero")


def unapplied(url: str) -> list[str]:
    """The migrations to come, in their order."""
    lines = manage(url, "showmigrations", "--plan").splitlines()
    return [line.split()[-1] for line in lines if line.startswith("[ ]")]


def step(
    url: str, writers: Writing, name: str, words: list[str], beside: str, statements: tuple[str, ...], hold: float
) -> Step:
    """`make migrate` to there. With no timeout of locks but the migrations' own."""
    with a_long_transaction(url, statements, hold):
        began = time.monotonic()
        no_limits = {"DB_STATEMENT_TIMEOUT": "0", "DB_LOCK_TIMEOUT": "0"}
        manage(url, "migrate", *words, "--verbosity", "0", **no_limits)
        ended = time.monotonic()
    time.sleep(SETTLE_SECONDS)
    return Step(name, beside, ended - began, writers.longest(began, ended))
