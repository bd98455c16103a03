"""The schema: what the models say of indexes and constraints, against what the database has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from django.apps import apps
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import ForeignKey, Index, Model

from chatstore.http.logs import described
from chatstore.migration_operations import drop_invalid, without_timeouts
from conversations import search_index
from conversations.doctor.findings import Finding

HOW_TO_MAKE: Final = "`manage.py sqlmigrate` shows the statement that makes it."
SEARCH: Final = "`manage.py searchindex` makes it again."
REINDEX: Final = "REINDEX it, or drop it where it is left from a REINDEX."


class Lacking(NamedTuple):
    """What a table lacks; the index where that is one that can be made beside the service."""

    what: str
    plain_index: Index | None = None


def unapplied() -> int:
    """How many migrations are not applied."""
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def models() -> list[type[Model]]:
    return [model for model in apps.get_models(include_auto_created=True) if model._meta.managed]


def check_indexes(*, fix: bool) -> Iterator[Finding]:
    """Those that are missing or broken, and constraints that are missing."""
    broken = set(invalid())
    for model in models():
        for lacking in missing(model):
            said = f"{model._meta.db_table} has no {lacking.what}."
            index = lacking.plain_index
            yield tried(Finding("schema", said, "" if index else HOW_TO_MAKE), fix, made(model, index))
        for index in model._meta.indexes:
            if index.name in broken:
                broken.remove(index.name)
                yield tried(Finding("schema", f"The index {index.name} is invalid."), fix, made(model, index))
    for name in sorted(broken):
        advice = SEARCH if name == search_index.INDEX else REINDEX
        yield Finding("schema", f"The index {name} is invalid.", advice)


def check_constraints(*, fix: bool) -> Iterator[Finding]:
    """Those that hold for new rows alone. To be asked last: old rows may be mended by then."""
    for table, name in not_valid():
        finding = Finding("schema", f"The constraint {name} of {table} is NOT VALID: old rows may break it.")
        yield tried(finding, fix, validated(table, name))


def tried(finding: Finding, fix: bool, work: Callable[[], None]) -> Finding:
    """Mended where it can be."""
    if fix and not finding.advice:
        try:
            work()
        except Error as error:
            finding.advice = f"It cannot be mended ({described(error.__cause__ or error)})."
        else:
            finding.is_mended = True
    return finding


# What is missing


def missing(model: type[Model]) -> Iterator[Lacking]:
    table = model._meta.db_table
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, table)
    for constraint in model._meta.constraints:
        if constraint.name not in found:
            yield Lacking(f"constraint {constraint.name}")
    for index in model._meta.indexes:
        if index.name not in found:
            yield Lacking(f"index {index.name}", index)
    unique = [each["columns"] for each in found.values() if each["unique"] or each["primary_key"]]
    for columns in unique_columns(model):
        if columns not in unique:
            yield Lacking(f"unique constraint on {', '.join(columns)}")
    referring = [each["columns"] for each in found.values() if each["foreign_key"]]
    indexed = [each["columns"] for each in found.values() if each["index"]]
    for field in model._meta.concrete_fields:
        column = [str(field.column)]
        if isinstance(field, ForeignKey) and has(field, "db_constraint") and column not in referring:
            yield Lacking(f"foreign key on {field.column}")
        if has(field, "db_index") and not field.unique and column not in indexed:
            yield Lacking(f"index on {field.column}")


def has(field: Any, option: str) -> bool:
    return bool(getattr(field, option))


def unique_columns(model: type[Model]) -> Iterator[list[str]]:
    for field in model._meta.concrete_fields:
        if field.unique:
            yield [str(field.column)]
    for names in model._meta.unique_together:
        yield [str(model._meta.get_field(name).column) for name in names]  # type: ignore[union-attr]


def made(model: type[Model], index: Index | None) -> Callable[[], None]:
    """What makes the index; on PostgreSQL beside writers, after what is left of one that was cancelled."""

    def make() -> None:
        assert index is not None
        if connection.vendor != "postgresql":
            with connection.schema_editor() as editor:
                editor.add_index(model, index)
            return
        with connection.schema_editor(atomic=False) as any_editor, without_timeouts(any_editor):
            editor_of_postgresql: Any = any_editor
            drop_invalid(any_editor, index.name)
            editor_of_postgresql.add_index(model, index, concurrently=True)

    return make


# What is not whole: PostgreSQL's


def invalid() -> list[str]:
    """Indexes that no query may use, those left out that are being made."""
    if connection.vendor != "postgresql":
        return []
    return [
        name
        for (name,) in of_our_tables(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_class t ON t.oid = i.indrelid"
            " WHERE NOT i.indisvalid AND t.relname = ANY(%s) AND pg_table_is_visible(t.oid) AND NOT EXISTS"
            " (SELECT 1 FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) ORDER BY 1"
        )
    ]


def not_valid() -> list[tuple[str, str]]:
    """Constraints that were never checked on the rows of before, with their tables."""
    if connection.vendor != "postgresql":
        return []
    return of_our_tables(
        "SELECT t.relname, c.conname FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid"
        " WHERE NOT c.convalidated AND t.relname = ANY(%s) AND pg_table_is_visible(t.oid) ORDER BY 1, 2"
    )


def of_our_tables(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, [[model._meta.db_table for model in models()]])
        return list(cursor.fetchall())


def validated(table: str, name: str) -> Callable[[], None]:
    def validate() -> None:
        quoted = connection.ops.quote_name
        with connection.schema_editor(atomic=False) as editor, without_timeouts(editor):
            editor.execute(f"ALTER TABLE {quoted(table)} VALIDATE CONSTRAINT {quoted(name)}")

    return validate
