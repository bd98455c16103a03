"""What PostgreSQL reads for a page: its queries, their plans, and the rows of the big tables that they look at."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from chatstore.postgresql.base import PreparedCursor

BIG = ("conversations_session", "conversations_message")
THROWN_AWAY = ("Rows Removed by Filter", "Rows Removed by Index Recheck")


class Prepared(NamedTuple):
    """A statement that PostgreSQL plans without its values, once it was asked some times in a connection."""

    sql: str
    values: Sequence[Any]


class Asked(NamedTuple):
    """What was asked: its number of queries, and those that look for sessions or messages.

    `big` has all of those with their values; `prepared` those that are prepared, once more.
    """

    queries: int
    big: list[str]
    prepared: list[Prepared]


def asked(client: Client, path: str, data: Any = None) -> Asked:
    """Opens a page twice, since content types are remembered from the first time on."""

    def open_page() -> None:
        answer = client.get(path) if data is None else client.post(path, data)
        if answer.streaming:
            b"".join(answer)
        assert answer.status_code in (200, 302, 303), f"{path}: {answer.status_code}"

    open_page()
    return asked_by(open_page)


def asked_by(work: Callable[[], object]) -> Asked:
    """What `work` asks, done once."""
    prepared: list[Prepared] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if isinstance(context["cursor"].cursor, PreparedCursor) and reads_big(sql):
            prepared.append(Prepared(sql, params))
        return execute(sql, params, many, context)

    with CaptureQueriesContext(connection) as captured, connection.execute_wrapper(note):
        work()
    statements = [query["sql"] for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]]
    return Asked(len(statements), [sql for sql in statements if reads_big(sql)], prepared)


def reads_big(sql: str) -> bool:
    """Whether it looks for rows of the big tables, to read or to write them. A plain INSERT does not."""
    begins = sql.lstrip("( \n").startswith(("SELECT", "WITH", "UPDATE", "DELETE"))
    return begins and any(re.search(rf"\b{table}\b", sql) for table in BIG)


def plan_of(sql: str) -> dict[str, Any]:
    """The plan, with what was read as it ran. What it wrote is taken back."""
    with transaction.atomic(), connection.cursor() as cursor:
        plan = explained(cursor, sql)
        transaction.set_rollback(True)
    return plan


def generic_plan_of(prepared: Prepared) -> dict[str, Any]:
    """The plan that PostgreSQL makes where it does not look at the values, run with these."""
    numbers = itertools.count(1)
    sql = re.sub("%s", lambda _: f"${next(numbers)}", prepared.sql).replace("%%", "%")
    places = ", ".join(["%s"] * len(prepared.values))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE generic AS {sql}")
        plan = explained(cursor, f"EXECUTE generic ({places})", prepared.values)
        cursor.execute("DEALLOCATE generic")
        transaction.set_rollback(True)
    return plan


def explained(cursor: Any, sql: str, values: Sequence[Any] | None = None) -> dict[str, Any]:
    cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", values)
    found = cursor.fetchone()[0]
    plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def scanned(plan: dict[str, Any]) -> set[str]:
    """The big tables that are read from one end to the other."""
    return {
        node["Relation Name"]
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG
    }


def rows_read(plan: dict[str, Any], table: str) -> float:
    """Rows of a table that its scans looked at, those they threw away included."""
    return sum(
        (node["Actual Rows"] + sum(node.get(name, 0) for name in THROWN_AWAY)) * node["Actual Loops"]
        for node in nodes(plan)
        if node.get("Relation Name") == table
    )


def most_read(plan: dict[str, Any]) -> float:
    return max(rows_read(plan, table) for table in BIG)
