"""What PostgreSQL reads for a page: its queries, their plans, and the rows of the big tables that they look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

BIG = ("conversations_session", "conversations_message")
THROWN_AWAY = ("Rows Removed by Filter", "Rows Removed by Index Recheck")


class Asked(NamedTuple):
    """A page that was opened: its number of queries, and those that read sessions or messages."""

    path: str
    queries: int
    big: list[str]


def asked(client: Client, path: str, data: Any = None) -> Asked:
    """Opens a page twice, since content types are remembered from the first time on."""
    for _ in range(2):
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(path) if data is None else client.post(path, data)
            if answer.streaming:
                b"".join(answer)
        assert answer.status_code in (200, 302, 303), f"{path}: {answer.status_code}"
    statements = [query["sql"] for query in captured.captured_queries]
    big = [sql for sql in statements if reads_big(sql)]
    return Asked(path, len([sql for sql in statements if "SAVEPOINT" not in sql]), big)


def reads_big(sql: str) -> bool:
    words = sql.lstrip("( \n")
    return words.startswith(("SELECT", "WITH")) and any(f'"{table}"' in sql for table in BIG)


def plan_of(sql: str) -> dict[str, Any]:
    """The plan, with what was read as it ran."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}")
        explained = cursor.fetchone()[0]
    plan: dict[str, Any] = (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]
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
