"""Statements that every request sends: written once in a process, bound for each call, planned once by PostgreSQL.

To build a queryset and compile it to SQL costs more than PostgreSQL needs to answer it. So a query that is hot is
written once, as a queryset like any other with a `Parameter` where a value goes, and keeps its SQL:

    theirs = CompiledQuery(lambda: Session.objects.filter(owner=Parameter("owner", Session, "owner")).values("id"))
    theirs.rows(owner=17, limit=50)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import orjson
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Expression, JSONField, Model, QuerySet
from django.db.models.base import ModelState

M = TypeVar("M", bound=Model)


def fetched(sql: str, parameters: Sequence[Any], *, prepare: bool = True) -> list[tuple[Any, ...]]:
    """The rows of a statement whose text is always the same."""
    backend: Any = connections[DEFAULT_DB_ALIAS]
    is_postgres = backend.vendor == "postgresql"
    with backend.bound_cursor(prepare=prepare) if is_postgres else backend.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


@cache
def columns_of(model: type[Model]) -> list[str]:
    """All columns of a model, as `values()` takes them."""
    return [field.attname for field in model._meta.concrete_fields]


@cache
def values_in(model: type[Model], prefix: str) -> Callable[[dict[str, Any]], Any]:
    """Takes the values of all columns out of a row."""
    return itemgetter(*(prefix + name for name in columns_of(model)))


def instance_of(model: type[M], row: dict[str, Any], prefix: str = "") -> M:
    """What a row holds of a model: all its columns, by their names with `prefix` before them.

    As `Model.from_db`, which takes more than twice as long: it sets one attribute after the other, for
    related objects that a new instance has not got yet, and tells who listens to `pre_init` and `post_init`. Only
    image fields and generic relations listen.
    """
    found = model.__new__(model)
    found._state = ModelState()
    found._state.adding, found._state.db = False, DEFAULT_DB_ALIAS
    vars(found).update(zip(columns_of(model), values_in(model, prefix)(row), strict=True))
    return found


class Parameter(Expression):
    """Stands in a queryset for a value that comes with the call, of the kind that this field of `model` stores."""

    def __init__(self, name: str, model: type[Model], field: str) -> None:
        stored: Any = model._meta.get_field(field)
        super().__init__(output_field=getattr(stored, "target_field", stored))
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return "%s", (self,)

    def bound(self, values: dict[str, Any], connection: Any) -> Any:
        """The value as the driver takes it."""
        return self.output_field.get_db_prep_value(values[self.name], connection)


class Compiled(NamedTuple):
    sql: str
    parameters: tuple[Any, ...]  # Parameter, or a value that never changes.
    names: list[str]
    converters: list[tuple[int, list[Any], Any]]  # The column's place, what converts it, its expression.


def quicker(converters: list[Any], expression: Any, connection: Any) -> list[Any]:
    """JSON by orjson, which takes a fifth of the time of json. PostgreSQL's cursor has read it already."""
    field = expression.output_field
    if isinstance(field, JSONField) and field.decoder is None:
        return [] if connection.vendor == "postgresql" else [json_value]
    return converters


def json_value(text: str, expression: Any, connection: Any) -> Any:
    return orjson.loads(text)


class CompiledQuery:
    """`build` makes the queryset, of `values()` and without a limit. It is called once, when first needed.

    `prepare` is for queries whose best plan is the same for all values: PostgreSQL may choose one that knows none.
    """

    def __init__(self, build: Callable[[], QuerySet[Any, Any]], *, prepare: bool = True) -> None:
        self.build, self.prepare = build, prepare

    @cached_property
    def compiled(self) -> Compiled:
        connection: Any = connections[DEFAULT_DB_ALIAS]
        query: Any = self.build().query
        compiler = query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        names = list(query.selected)
        fields = [selected[0] for selected in compiler.select]
        found = compiler.get_converters(fields)
        converters = [(place, quicker(how[0], how[1], connection), how[1]) for place, how in found.items()]
        return Compiled(sql, tuple(parameters), names, [each for each in converters if each[1]])

    def tuples(self, *, limit: int | None = None, skip: int = 0, **values: Any) -> list[Sequence[Any]]:
        """The rows as `values_list()` gives them. `values` are the parameters by name."""
        sql, parameters, _, converters = self.compiled
        connection = connections[DEFAULT_DB_ALIAS]
        bound = [p.bound(values, connection) if isinstance(p, Parameter) else p for p in parameters]
        if limit is not None:  # In the text, where the planner sees it.
            sql += f" LIMIT {limit:d}"
        if skip:
            sql += " OFFSET %s"
            bound.append(skip)
        rows: list[Any] = fetched(sql, bound, prepare=self.prepare)
        if converters:
            rows = [list(row) for row in rows]
        for place, functions, expression in converters:
            for row in rows:
                if row[place] is not None:
                    for convert in functions:
                        row[place] = convert(row[place], expression, connection)
        return rows

    def rows(self, **chosen: Any) -> list[dict[str, Any]]:
        """As `tuples`, but as `values()` gives them."""
        return [dict(zip(self.compiled.names, row, strict=True)) for row in self.tuples(**chosen)]

    def row(self, **values: Any) -> dict[str, Any] | None:
        """The first of them; None where there is none."""
        rows = self.rows(limit=1, **values)
        return rows[0] if rows else None
