"""What was used, exact at any moment: the rows of days that are counted, and the messages of the others."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from conversations.models import Message, UsageMark, UsageState


class By(StrEnum):
    """What groups are made by."""

    DAY = "day"
    ROLE = "role"
    AGENT = "agent"
    WORKSPACE = "workspace"


class Group(NamedTuple):
    """`key`: a day in ISO 8601, a role, an agent's name (empty for none) or a workspace's public id.

    `sessions` has each once a day: over days they do not add up.
    """

    key: str
    messages: int
    tokens: int
    interrupted: int
    failed: int
    sessions: int


class Used(NamedTuple):
    """Whatever was committed by `as_of` is in it. Days are in order, others by most messages, then by key."""

    as_of: datetime
    groups: list[Group]


ROW: Final = (
    "day", "workspace_id", "agent", "role", "messages", "tokens", "interrupted", "failed", "sessions",
)  # fmt: skip
PLACE: Final = ("id", "workspace_id", "agent", "updated_at")
COLUMNS: Final = {By.DAY: "day", By.ROLE: "role", By.AGENT: "agent", By.WORKSPACE: "workspace_id"}


def used(first: date, last: date, by: By, sessions: QuerySet[Any], stored: QuerySet[Any]) -> Used:
    """In these UTC days, both included. `sessions` and the rows `stored` are those of the same people and places.

    One statement, so that a roll-up that commits meanwhile is seen as a whole or not at all.
    """
    as_of = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(*statement(first, last, by, sessions, stored))
        groups = [group_of(by, row) for row in cursor.fetchall()]
    return Used(as_of, sorted(groups, key=lambda group: (by != By.DAY and -group.messages, group.key)))


def group_of(by: By, row: tuple[Any, ...]) -> Group:
    key = str(row[0])
    return Group(str(UUID(key)) if by == By.WORKSPACE else key, *map(int, row[1:]))


def statement(
    first: date, last: date, by: By, sessions: QuerySet[Any], stored: QuerySet[Any]
) -> tuple[str, list[Any]]:
    """The SQL, which makes a row for each group, and its parameters."""
    rows, of_rows = stored.filter(day__range=(first, last)).values(*ROW).query.sql_with_params()
    places, of_places = sessions.values(*PLACE).query.sql_with_params()
    sql = f"""
        WITH {uncounted()},
        said AS ({said(places)}),
        used AS (
            SELECT {", ".join(ROW)} FROM ({rows}) AS stored
            WHERE day < (SELECT day FROM uncounted) AND day NOT IN (SELECT day FROM marked)
            UNION ALL
            SELECT day, workspace_id, agent, role, COUNT(*), SUM(tokens),
                SUM(CASE WHEN status = 'interrupted' THEN 1 ELSE 0 END),
                SUM(CASE WHEN status = 'failed' THEN 1 ELSE 0 END),
                CASE WHEN ROW_NUMBER() OVER (PARTITION BY id, day ORDER BY role) = 1 THEN 1 ELSE 0 END
            FROM said
            WHERE day >= (SELECT day FROM uncounted) OR day IN (SELECT day FROM marked)
            GROUP BY id, day, workspace_id, agent, role
        )
        SELECT {COLUMNS[by]}, SUM(messages), SUM(tokens), SUM(interrupted), SUM(failed), SUM(sessions)
        FROM used GROUP BY {COLUMNS[by]}
    """
    begins, ends = (connection.ops.adapt_datefield_value(day) for day in (first, last))
    start, end = (
        connection.ops.adapt_datetimefield_value(moment)
        for moment in (datetime.combine(first, time.min, UTC), datetime.combine(last, time.max, UTC))
    )
    return sql, [begins, ends, begins, *of_places, ends, start, start, end, *of_rows]


def uncounted() -> str:
    """The SQL of the days to count now: those in `marked`, and all from the one in `uncounted` on. They begin with
    `since`. Parameters: the first and the last day, and the first once more."""
    mark, state = (connection.ops.quote_name(model._meta.db_table) for model in (UsageMark, UsageState))
    if connection.vendor == "postgresql":
        following, moment = "MAX(rolled_through) + 1", "CAST(MIN(day) AS timestamp) AT TIME ZONE 'UTC'"
    else:
        following, moment = "date(MAX(rolled_through), '+1 day')", "MIN(day)"
    return f"""
        marked AS (SELECT DISTINCT day FROM {mark} WHERE day >= %s AND day <= %s),
        uncounted AS (SELECT COALESCE({following}, %s) AS day FROM {state}),
        since AS (
            SELECT MIN(day) AS day, {moment} AS moment
            FROM (SELECT day FROM marked UNION ALL SELECT day FROM uncounted) AS days
        )"""


def said(places: str) -> str:
    """The SQL of the messages since the first day to count, of the sessions `places`.

    No message is newer than its session's `updated_at`: sessions that are older are left alone. Parameters: those
    of `places`, the last day, the first moment twice, the last moment.
    """
    message = connection.ops.quote_name(Message._meta.db_table)
    if connection.vendor == "postgresql":
        day = "(m.created_at AT TIME ZONE 'UTC')::date"
        # OFFSET, or it would read everybody's messages where many of them may be the caller's.
        of_session = f"JOIN LATERAL (SELECT * FROM {message} WHERE session_id = s.id OFFSET 0) AS m ON TRUE"
    else:
        day, of_session = "date(m.created_at)", f"JOIN {message} AS m ON m.session_id = s.id"
    return f"""
        SELECT {day} AS day, s.id, s.workspace_id, COALESCE(s.agent, '') AS agent, m.role, m.tokens, m.status
        FROM ({places}) AS s {of_session}
        WHERE (SELECT day FROM since) <= %s
            AND s.updated_at >= %s AND s.updated_at >= (SELECT moment FROM since)
            AND m.created_at >= %s AND m.created_at >= (SELECT moment FROM since) AND m.created_at <= %s"""
