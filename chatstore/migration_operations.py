"""Migration operations that know which database they run on."""

from __future__ import annotations

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
    """Writers go on meanwhile, on PostgreSQL; its migration says `atomic = False`. Elsewhere it is AddIndex."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *states: ProjectState
    ) -> None:
        is_concurrent = schema_editor.connection.vendor == "postgresql"
        (AddIndexConcurrently if is_concurrent else AddIndex).database_forwards(
            self, app_label, schema_editor, *states
        )

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *states: ProjectState
    ) -> None:
        is_concurrent = schema_editor.connection.vendor == "postgresql"
        (AddIndexConcurrently if is_concurrent else AddIndex).database_backwards(
            self, app_label, schema_editor, *states
        )
