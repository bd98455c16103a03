"""Migration operations that know which database they run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AddIndex, RunSQL
from django.db.migrations.state import ProjectState


class PostgresSQL(RunSQL):
    """RunSQL on PostgreSQL, nothing elsewhere. One statement, so that it can be routed on a cluster."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *states: ProjectState, **kwargs: Any
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, *states, **kwargs)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *states: ProjectState, **kwargs: Any
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, *states, **kwargs)


class AddIndexOnline(AddIndexConcurrently):
    """Writers go on meanwhile, on PostgreSQL; its migration says `atomic = False`. Elsewhere it is AddIndex.

    It waits for readers, who do not wait for it, however long that takes. What is left of one that was cancelled
    goes first.
    """

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *states: ProjectState
    ) -> None:
        if schema_editor.connection.vendor != "postgresql":
            AddIndex.database_forwards(self, app_label, schema_editor, *states)
            return
        with without_timeouts(schema_editor):
            drop_invalid(schema_editor, self.index.name)
            super().database_forwards(app_label, schema_editor, *states)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *states: ProjectState
    ) -> None:
        if schema_editor.connection.vendor != "postgresql":
            AddIndex.database_backwards(self, app_label, schema_editor, *states)
            return
        with without_timeouts(schema_editor):
            super().database_backwards(app_label, schema_editor, *states)


@contextmanager
def without_timeouts(schema_editor: BaseDatabaseSchemaEditor) -> Iterator[None]:
    """Of the connection and not of a transaction, which a concurrent statement cannot be in."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
        lock, statement = cursor.fetchone()
    try:
        schema_editor.execute("SET lock_timeout = 0")
        schema_editor.execute("SET statement_timeout = 0")
        yield
    finally:
        schema_editor.execute(f"SET lock_timeout = '{lock}'")
        schema_editor.execute(f"SET statement_timeout = '{statement}'")


def drop_invalid(schema_editor: BaseDatabaseSchemaEditor, name: str) -> None:
    quoted = schema_editor.quote_name(name)
    with schema_editor.connection.cursor() as cursor:
        sql = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid"
        cursor.execute(sql, [quoted])
        is_invalid = cursor.fetchone()
    if is_invalid:
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {quoted}")
