from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from contextlib import contextmanager
from types import SimpleNamespace

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, ProgrammingError, connection

from chatstore.management.commands import migrate
from chatstore.tests.serving import own_database_url


def tables() -> set[str]:
    with connection.cursor() as cursor:
        return {t for t in connection.introspection.table_names(cursor) if t != "django_migrations"}


@pytest.mark.django_db(transaction=True)
def test_the_migrations_go_back_to_nothing_and_forwards_again() -> None:
    everything = tables()
    assert {"accounts_user", "conversations_session", "conversations_message"} <= everything
    for app in ("conversations", "admin", "accounts"):
        call_command("migrate", app, "zero", verbosity=0)
    assert not {t for t in tables() if t.startswith(("accounts_", "conversations_"))}
    call_command("migrate", verbosity=0)
    assert tables() == everything


@pytest.mark.postgres
@pytest.mark.django_db
def test_a_sessions_page_keeps_room_for_its_next_version() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE relname = 'conversations_session'")
        assert cursor.fetchone() == (["fillfactor=85"],)


@pytest.mark.postgres
@pytest.mark.django_db
@pytest.mark.parametrize("name", ["message_trace", "message_span"])
def test_the_indexes_on_traces_serve_prefixes(name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = %s", [name])
        (definition,) = cursor.fetchone()
    assert "varchar_pattern_ops" in definition
    assert "IS NOT NULL" in definition


# An index that is made while others write


@pytest.fixture
def before_the_index(transactional_db: None) -> Iterator[None]:
    """Without the index `message_time`."""
    call_command("migrate", "conversations", "0005", verbosity=0)
    yield
    call_command("migrate", verbosity=0)


def run(sql: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def is_valid() -> list[tuple[object, ...]]:
    return run("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('message_time')")


@contextmanager
def impatient() -> Iterator[None]:
    """Statements of this thread wait for a tenth of a second, before as after."""
    run("SET lock_timeout = '100ms'")
    run("SET statement_timeout = '7s'")
    yield
    set_to = run("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
    run("RESET lock_timeout")
    run("RESET statement_timeout")
    assert set_to == [("100ms", "7s")]


def migrate_impatiently() -> None:
    try:
        with impatient():
            call_command("migrate", verbosity=0)
    finally:
        connection.close()


@contextmanager
def an_old_snapshot() -> Iterator[None]:
    """Of another connection. Whoever makes an index beside writers waits for its end."""
    with psycopg.connect(own_database_url()) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1 FROM conversations_message").fetchall()
        yield


@pytest.mark.postgres
def test_an_index_waits_for_a_long_reader(before_the_index: None) -> None:
    with ThreadPoolExecutor(1) as pool:
        with an_old_snapshot():
            migrating = pool.submit(migrate_impatiently)
            with pytest.raises(TimeoutError):
                migrating.result(1)
        migrating.result(10)
    assert is_valid() == [(True,)]


@pytest.mark.postgres
def test_an_index_that_was_cancelled_is_made_again(before_the_index: None) -> None:
    with impatient(), an_old_snapshot(), pytest.raises(OperationalError):
        run("CREATE INDEX CONCURRENTLY message_time ON conversations_message (created_at)")
    assert is_valid() == [(False,)]
    call_command("migrate", verbosity=0)
    assert is_valid() == [(True,)]
    assert "brin" in str(run("SELECT indexdef FROM pg_indexes WHERE indexname = 'message_time'"))


@pytest.mark.postgres
def test_an_index_of_that_name_that_serves_is_left(before_the_index: None) -> None:
    run("CREATE INDEX message_time ON conversations_message (created_at)")
    with impatient(), pytest.raises(ProgrammingError, match="already exists"):
        call_command("migrate", verbosity=0)
    assert is_valid() == [(True,)]
    run("DROP INDEX message_time")


# A table that is in use


@contextmanager
def a_long_transaction(sql: str) -> Iterator[None]:
    with psycopg.connect(own_database_url()) as other:
        other.execute(sql)
        yield


def migrate_in_a_thread(*words: str) -> None:
    try:
        call_command("migrate", *words, verbosity=0)
    finally:
        connection.close()


def longest_read(seconds: float) -> float:
    """Of somebody who reads users all the time, while the migration wants them for itself."""
    longest, until = 0.0, time.monotonic() + seconds
    with psycopg.connect(own_database_url(), autocommit=True) as other:
        while (began := time.monotonic()) < until:
            other.execute("SELECT 1 FROM accounts_user LIMIT 1")
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.01)
    return longest


@pytest.fixture
def at_newest(transactional_db: None) -> Iterator[None]:
    yield
    call_command("migrate", verbosity=0)


@pytest.mark.postgres
def test_nobody_waits_behind_a_migration_that_waits(
    at_newest: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """To drop a table with a foreign key, PostgreSQL locks the other one, too, for readers as well."""
    monkeypatch.setattr(migrate, "PAUSE_SECONDS", 0.2)
    with ThreadPoolExecutor(1) as pool:
        with a_long_transaction("SELECT 1 FROM accounts_user"):
            migrating = pool.submit(migrate_in_a_thread, "conversations", "0004")
            longest = longest_read(seconds=2.5)
            assert not migrating.done()
        migrating.result(20)
    # 300 ms, and as much again for a busy machine; without a timeout it is all the time.
    assert longest < 1.5
    assert "conversations_usage" not in tables()
    assert "in use by a long transaction" in capfd.readouterr().err


@pytest.mark.postgres
def test_a_migration_waits_for_a_long_writer(at_newest: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign key is made at the end of its migration, and locks the other table for writers."""
    monkeypatch.setattr(migrate, "PAUSE_SECONDS", 0.2)
    call_command("migrate", "conversations", "0004", verbosity=0)
    with ThreadPoolExecutor(1) as pool:
        with a_long_transaction("LOCK TABLE accounts_user IN ROW EXCLUSIVE MODE"):
            migrating = pool.submit(migrate_in_a_thread)
            with pytest.raises(TimeoutError):
                migrating.result(1)
        migrating.result(20)
    assert "conversations_usage" in tables()


@pytest.mark.postgres
def test_a_migration_that_never_gets_its_lock_says_so(at_newest: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(migrate, "PATIENCE_SECONDS", 0.1)
    with a_long_transaction("SELECT 1 FROM accounts_user"), pytest.raises(CommandError, match="ten minutes"):
        call_command("migrate", "conversations", "0004", verbosity=0)
    assert "conversations_usage" in tables()


@pytest.mark.once
def test_what_a_migration_takes_is_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that takes half an hour leaves the next migration its ten minutes."""
    clock, answers = [0.0], [False, True]

    def is_done(self: migrate.Command, *args: object, **options: object) -> bool:
        clock[0] += 1800
        return answers.pop(0)

    monkeypatch.setattr(migrate.Command, "is_done", is_done)
    monkeypatch.setattr(migrate, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: None))
    migrate.Command().handle()
    assert answers == []


@pytest.mark.postgres
def test_another_error_is_not_tried_again(at_newest: None) -> None:
    run("SET statement_timeout = '100ms'")
    try:
        with a_long_transaction("SELECT 1 FROM accounts_user"), pytest.raises(OperationalError, match="statement"):
            call_command("migrate", "conversations", "0004", verbosity=0)
    finally:
        run("RESET statement_timeout")
