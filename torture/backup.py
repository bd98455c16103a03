"""A backup that is taken while others write is restored and served: what was acknowledged before it is there.

PostgreSQL by pg_dump and pg_restore, SQLite by VACUUM INTO, as docs/operations.md says.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psycopg

from chatstore.testdatabase import SUPERUSER
from torture.checker import Attempts
from torture.postgres import KillablePostgres
from torture.product import manage, migrate, serving
from torture.report import Result
from torture.writers import wait_for_writes, writing

SESSIONS = 20
WRITERS = 8
PER_SESSION = 50
PER_USER = 200

NAMES = """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"""


class NoDump(Exception):
    """This PostgreSQL comes without pg_dump."""


class Copied(NamedTuple):
    """A restored store, and figures for people."""

    database_url: str
    said: str


def backup(seed: int, *, messages: int = 1_000_000, writes: int = 2_000) -> Result:
    """PostgreSQL: so many messages, and writes while it is dumped. NoDump."""
    server = KillablePostgres()
    try:
        if not (server.binaries / "pg_dump").exists():
            raise NoDump("This PostgreSQL comes without pg_dump.")
        url = server.start()
        return survive("backup", seed, url, messages, writes, lambda: dump_and_restore(server, url))
    finally:
        server.stop()


def backup_sqlite(seed: int, *, messages: int = 1_000_000, writes: int = 500) -> Result:
    """The same with SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder) / "here.sqlite3", Path(folder) / "there.sqlite3"
        url = f"sqlite:///{here}"
        return survive("backup (SQLite)", seed, url, messages, writes, lambda: vacuum(here, there))


def survive(
    name: str, seed: int, url: str, messages: int, writes: int, copy: Callable[[], Copied]
) -> Result:  # fmt: skip
    began, tokens = time.monotonic(), migrate(url, users=1)
    if messages:
        sessions = max(1, messages // PER_SESSION)
        users = max(1, sessions // PER_USER)
        sizes = {"--users": users, "--sessions": sessions, "--messages": messages}
        manage(url, "seed", "--force", *(str(word) for pair in sizes.items() for word in pair))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with serving(url, log, tokens) as product:
            mine, attempts = product.sessions(SESSIONS), Attempts()
            with writing(product, mine, attempts, seed, WRITERS):
                wait_for_writes(attempts, writes)
                moment = time.monotonic()
                copied = copy()
                wait_for_writes(attempts, WRITERS)
        missing = names(url) - names(copied.database_url)
        if missing:
            return Result(name, seed, time.monotonic() - began, said=[f"not restored: {sorted(missing)}"])
        known = as_of(attempts, moment)
        with serving(copied.database_url, log, tokens) as product:
            with writing(product, mine, known, seed + 1, WRITERS):
                wait_for_writes(known, writes // 4)
            result = Result.of(name, seed, began, product, mine, known)
    result.notes.append(copied.said)
    return result


def as_of(attempts: Attempts, moment: float) -> Attempts:
    """What one knew then: of what was not yet answered, nothing."""
    known = Attempts()
    for attempt in attempts.all:
        later = attempt.ended >= moment
        known.note(replace(attempt, status=None, made=()) if later else attempt)
    return known


def names(url: str) -> set[str]:
    """Of all tables, indexes, sequences and constraints."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            return {row[0] for row in file.execute("SELECT name FROM sqlite_master")}
    with psycopg.connect(url) as database:
        return {row[0] for row in database.execute(NAMES)}


def dump_and_restore(server: KillablePostgres, url: str) -> Copied:
    file, there = server.folder / "chatstore.dump", url.replace("/postgres?", "/restored?")
    began = time.monotonic()
    server.run("pg_dump", "-Fc", "--file", str(file), "--dbname", url)
    dumped = time.monotonic()
    server.run("createdb", "-h", str(server.folder), "-U", SUPERUSER, "restored")
    server.run("pg_restore", "--no-owner", "--exit-on-error", "--jobs", "2", "--dbname", there, str(file))
    restored = time.monotonic()
    return Copied(
        there,
        f"{size_of(url):,.0f} MB dumped in {dumped - began:.1f} s beside {WRITERS} writers, to"
        f" {file.stat().st_size / 1e6:,.0f} MB; restored in {restored - dumped:.1f} s",
    )


def size_of(url: str) -> float:
    """Megabytes of a database."""
    with psycopg.connect(url) as database:
        found = database.execute("SELECT pg_database_size(current_database())").fetchone()
    return found[0] / 1e6 if found else 0


def vacuum(here: Path, there: Path) -> Copied:
    began = time.monotonic()
    with closing(sqlite3.connect(here)) as file:
        file.execute("VACUUM INTO ?", [str(there)])
    took = time.monotonic() - began
    return Copied(
        f"sqlite:///{there}",
        f"{here.stat().st_size / 1e6:,.0f} MB copied in {took:.1f} s beside {WRITERS} writers, to"
        f" {there.stat().st_size / 1e6:,.0f} MB",
    )
