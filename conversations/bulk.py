"""Rows by the thousand: COPY on PostgreSQL, executemany on SQLite. No `save()` and no signal runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from django.db import connection, models

# Kinds of columns whose Python value is not what the driver takes: JSON everywhere, times and UUIDs on SQLite.
ADAPTED = {"JSONField"}
ADAPTED_ON_SQLITE = {"JSONField", "UUIDField", "DateTimeField"}

Item = TypeVar("Item")
Adapter = Callable[[Any, Any], Any]


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
        copy(f"COPY {table} ({', '.join(quoted)}) FROM STDIN", ready)
        connection.check_constraints()
    else:
        places = ", ".join(["%s"] * len(fields))
        with connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {table} ({', '.join(quoted)}) VALUES ({places})", list(ready))


def copy(statement: str, rows: Iterable[Sequence[Any]]) -> None:
    """psycopg's COPY, with its errors turned into Django's."""
    with connection.cursor() as cursor, connection.wrap_database_errors, cursor.copy(statement) as copying:
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
