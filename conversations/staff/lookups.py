"""Messages by the ids of their traces and spans, sessions by their owners: so many and no more of each.

Whoever stores messages chooses these ids. One of them may stand on every message there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from django.db import connection

from conversations.models import Message, Session

# Of each branch of a look-up.
MOST_LOOKED_AT: Final = 500
LAST_CHARACTER: Final = "\U0010ffff"


class Key(NamedTuple):
    """Which message it is, and what one needs to order such."""

    id: int
    session_id: int
    position: int
    span_id: str | None


class Branch(NamedTuple):
    """What one scan of one index finds, as SQL: that of `column`."""

    column: str
    condition: str
    values: Sequence[Any]


def has_pattern_index(column: str) -> bool:
    return connection.vendor == "postgresql" and column != "id"


def one_of(column: str, values: Sequence[str] | Sequence[int]) -> list[Branch]:
    """The rows with one of these values, in one branch; no branch where there is none. = ANY, because for a single
    value IN is =, which makes the order of `statement_of` pointless to the planner."""
    if not values:
        return []
    if has_pattern_index(column):
        return [Branch(column, f"{column} = ANY(%s)", [list(values)])]
    return [Branch(column, f"{column} IN ({', '.join(['%s'] * len(values))})", values)]


def beginning_with(column: str, beginning: str) -> Branch:
    """A range of the index: by bytes, as SQLite compares anyway. No index of SQLite serves LIKE."""
    least, less = ("~>=~", "~<~") if has_pattern_index(column) else (">=", "<")
    condition = f"{column} {least} %s AND {column} {less} %s"
    return Branch(column, condition, [beginning, beginning + LAST_CHARACTER])


def look_up(branches: Sequence[Branch]) -> tuple[list[Key], bool]:
    """The first rows of each branch as its index has them, each row once; whether a branch has more. One query."""
    if not branches:
        return [], False
    statements = [statement_of(number, branch) for number, branch in enumerate(branches)]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(statements), [value for branch in branches for value in branch.values])
        rows = cursor.fetchall()
    counts = Counter(number for number, *_ in rows)
    keys = {key[0]: Key(*key) for _, *key in rows}
    return list(keys.values()), max(counts.values(), default=0) > MOST_LOOKED_AT


def statement_of(number: int, branch: Branch) -> str:
    """The number of the branch, then a key.

    PostgreSQL is held to the order of the pattern index. With a LIMIT alone it may scan the table in the hope of
    meeting a frequent id early, and by any other order it sorts all that match.
    """
    order = f"ORDER BY {branch.column} USING ~<~" if has_pattern_index(branch.column) else ""
    return f"""
        SELECT * FROM (
            SELECT {number}, id, session_id, position, span_id FROM {Message._meta.db_table}
            WHERE {branch.condition} {order} LIMIT {MOST_LOOKED_AT + 1}
        ) AS branch"""  # noqa: S608


def newest_of(people: Sequence[int], most: int) -> list[int]:
    """Keys of the newest sessions of these owners. One query, which reads of each owner so many at most: with all
    owners in one condition PostgreSQL sorts all that they have."""
    if not people:
        return []
    newest = "ORDER BY updated_at DESC, id DESC LIMIT %s"
    branch = f"""
        SELECT * FROM (
            SELECT id, updated_at FROM "{Session._meta.db_table}" WHERE owner_id = %s {newest}
        ) AS branch"""  # noqa: S608
    branches = " UNION ALL ".join([branch] * len(people))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM ({branches}) AS theirs {newest}",  # noqa: S608
            [*(value for person in people for value in (person, most)), most],
        )
        return [pk for (pk,) in cursor.fetchall()]
