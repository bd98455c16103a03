"""Rows by the thousand, in and out: COPY on PostgreSQL. No `save()` and no signal runs."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from django.db import DataError, IntegrityError, connection, models, transaction

# Kinds of columns whose Python value is not what the driver takes: JSON everywhere, times and UUIDs on SQLite.
ADAPTED = {"JSONField"}
ADAPTED_ON_SQLITE = {"JSONField", "UUIDField", "DateTimeField"}

Item = TypeVar("Item")
Adapter = Callable[[Any, Any], Any]


@contextmanager
def many_objects() -> Iterator[None]:
    """Inside, objects come and go by the million: the garbage collector passes over those from before."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def insert(model: type[models.Model], columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows whose values stand in the order of `columns` (fields by name; for a foreign key, the key).

    Fields not named get their default, ids come from the database. One statement on PostgreSQL: keep `rows`
    to some thousands (statement timeout), and give what is ready, since the statement waits for its rows.
    On PostgreSQL foreign keys are checked here, not at the commit, which would take too long after many pieces.
    Raises Django's own database errors; nothing is inserted then.
    """
    named = [model._meta.get_field(name) for name in columns]
    others = [f for f in model._meta.concrete_fields if f not in named and not f.primary_key]
    fields: list[Any] = [*named, *others]
    defaults = tuple(field.get_default() for field in others)
    ready = adapted(fields, ((*row, *defaults) for row in rows))
    quoted = [connection.ops.quote_name(field.column) for field in fields]
    table = connection.ops.quote_name(model._meta.db_table)
    if connection.vendor == "postgresql":
        copy(f"COPY {table} ({', '.join(quoted)}) FROM STDIN (FORMAT BINARY)", fields, ready)
        connection.check_constraints()
    else:
        places = ", ".join(["%s"] * len(fields))
        with connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {table} ({', '.join(quoted)}) VALUES ({places})", list(ready))


class Refused(NamedTuple):
    """A row that the database did not take: its place among those given, and the constraint that it breaks."""

    place: int
    constraint: str


def insert_what_fits(
    model: type[models.Model], columns: Sequence[str], rows: Sequence[Sequence[Any]], first: int = 0
) -> list[Refused]:
    """Insert those of the rows that break no rule of the database; the others in order. Needs a transaction.

    All at once, and by halves where that fails: what costs time are the refused ones.
    """
    if not rows:
        return []
    try:
        with transaction.atomic():
            insert(model, columns, rows)
    except (IntegrityError, DataError) as error:
        if len(rows) == 1:
            return [Refused(first, constraint_of(error))]
        half = len(rows) // 2
        return [
            *insert_what_fits(model, columns, rows[:half], first),
            *insert_what_fits(model, columns, rows[half:], first + half),
        ]
    return []


def constraint_of(error: Exception) -> str:
    """The name of the constraint, or of its columns on SQLite; never a value. Empty where the driver says none."""
    diagnosis = getattr(error.__cause__, "diag", None)
    if diagnosis is not None:
        return diagnosis.constraint_name or ""
    return str(error).partition("constraint failed: ")[2]


def read(found: models.QuerySet[Any], types: Mapping[str, str] | None = None) -> Iterator[tuple[Any, ...]]:
    """The rows of a `values_list`, streamed; needs a transaction. On PostgreSQL `types` may name other types for
    its own to be read as.

    A COPY needs no cursor of the server's: behind a pooler in transaction mode Django has none, and would load
    all rows.
    """
    if connection.vendor != "postgresql":
        yield from found.iterator()
        return
    compiler = found.query.get_compiler(connection=connection)
    statement, parameters = compiler.as_sql()
    fields = [expression.output_field for expression, *_ in compiler.select]
    own = types_of(fields)
    of_json = [place for place, kind in enumerate(own) if kind == "jsonb"]
    operations: Any = connection.ops
    with (
        connection.cursor() as cursor,
        connection.wrap_database_errors,
        # In one text: the cursor that Django has with DEBUG takes no more.
        cursor.copy(operations.compose_sql(f"COPY ({statement}) TO STDOUT", parameters)) as copying,
    ):
        copying.set_types([(types or {}).get(kind, kind) for kind in own])
        for row in copying.rows():
            yield with_json(row, of_json) if of_json else row


def with_json(row: tuple[Any, ...], places: Sequence[int]) -> tuple[Any, ...]:
    """The row with what Django reads as text parsed."""
    for place in places:
        if row[place] is not None:
            row = (*row[:place], json.loads(row[place]), *row[place + 1 :])
    return row


def types_of(fields: Iterable[Any]) -> list[str]:
    """The types of the fields' columns, by the names that PostgreSQL's driver knows."""
    return [str(field.db_type(connection)).partition("(")[0] for field in fields]


def copy(statement: str, fields: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
    """psycopg's COPY in binary form, with its errors turned into Django's."""
    with connection.cursor() as cursor, connection.wrap_database_errors, cursor.copy(statement) as copying:
        copying.set_types(types_of(fields))
        for row in rows:
            copying.write_row(row)


def adapted(fields: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """The rows as the driver takes them."""
    adapters = [(place, adapter) for place, field in enumerate(fields) if (adapter := adapter_of(field))]
    for row in rows:
        values = list(row)
        for place, adapter in adapters:
            if values[place] is not None:
                values[place] = adapter(values[place], connection)
        yield values


def adapter_of(field: Any) -> Adapter | None:
    """What turns a value of this field into the driver's, None where they are the same."""
    stored = getattr(field, "target_field", field)
    kinds = ADAPTED if connection.vendor == "postgresql" else ADAPTED_ON_SQLITE
    adapter: Adapter = stored.get_db_prep_save
    return adapter if stored.get_internal_type() in kinds else None


def pieces(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of `size`, the last one shorter (itertools.batched, which Python 3.11 has not)."""
    iterator = iter(items)
    while piece := list(islice(iterator, size)):
        yield piece
