from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection


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
