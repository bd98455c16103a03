"""The roll-up of usage: what is stored of the days that are counted, against a count of their messages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, Final

from django.db import connection
from django.db.models import Min

from conversations import usage
from conversations.doctor.findings import Finding
from conversations.doctor.sessions import unhurried
from conversations.models import Usage, UsageMark, UsageState, UsageTotal

DAYS: Final = timedelta(days=usage.DAYS_AT_ONCE)
# A deleted call has lost its tool's name, so that a later count would have it elsewhere.
PLACE: Final = ("day", "workspace_id", "owner_id", "agent", "role")
NUMBERS: Final = ("messages", "tokens", "interrupted", "failed", "sessions")
NUMBERS_OF_TOTALS: Final = ("messages", "tokens", "sessions", "users", "interrupted", "failed")


def check(first_message: date | None, *, fix: bool) -> Iterator[Finding]:
    """Days up to the last one that is counted; those that are marked will be counted again anyway."""
    state = UsageState.objects.first()
    first_counted: date | None = Usage.objects.aggregate(first=Min("day"))["first"]
    days = [day for day in (first_message, first_counted) if day]
    if state is None or state.rolled_through is None or not days:
        return
    first = min(days)
    while first <= state.rolled_through:
        last = min(first + DAYS - usage.DAY, state.rolled_through)
        for day in differing(first, last):
            if fix:
                usage.count_days(day, day)
            yield Finding("usage", f"The usage of {day} is not that of its messages.", is_mended=fix)
        first = last + usage.DAY


def differing(first: date, last: date) -> list[date]:
    """The days, in order. One statement, so that a roll-up which commits meanwhile is seen as a whole or not."""
    sql, parameters = statement(first, last)
    with unhurried(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found = [row[0] for row in cursor.fetchall()]
    return sorted(day if isinstance(day, date) else date.fromisoformat(day) for day in found)


def statement(first: date, last: date) -> tuple[str, list[Any]]:
    """What is counted comes with its numbers, what is stored below zero: in sum nothing, if they agree."""
    stored, totals, marks, states = (
        connection.ops.quote_name(model._meta.db_table) for model in (Usage, UsageTotal, UsageMark, UsageState)
    )
    of_days = "day >= %s AND day <= %s"
    added_up = " UNION ALL ".join(f"SELECT * FROM ({usage.totals(scope)}) AS t" for scope in UsageTotal.Scope)
    place_of_total = ("scope", "subject", "day", "kind", "name")
    sql = f"""
        WITH counted AS (SELECT * FROM {stored} WHERE {of_days}),
        differing AS (
            SELECT day FROM (
                SELECT {", ".join((*PLACE, *NUMBERS))} FROM ({usage.counting()}) AS said
                UNION ALL SELECT {", ".join((*PLACE, *negative(NUMBERS)))} FROM counted
            ) AS both_counts GROUP BY {", ".join(PLACE)} HAVING {any_left(NUMBERS)}
            UNION
            SELECT day FROM (
                SELECT {", ".join((*place_of_total, *NUMBERS_OF_TOTALS))} FROM ({added_up}) AS added_up
                UNION ALL
                SELECT {", ".join((*place_of_total, *negative(NUMBERS_OF_TOTALS)))} FROM {totals} WHERE {of_days}
            ) AS both_totals GROUP BY {", ".join(place_of_total)} HAVING {any_left(NUMBERS_OF_TOTALS)}
        )
        SELECT day FROM differing
        WHERE day NOT IN (SELECT day FROM {marks}) AND day <= (SELECT MAX(rolled_through) FROM {states})
    """
    ends = [connection.ops.adapt_datefield_value(day) for day in (first, last)]
    return sql, [*ends, *usage.between(first, last), *ends]


def negative(names: tuple[str, ...]) -> list[str]:
    return [f"-{name}" for name in names]


def any_left(names: tuple[str, ...]) -> str:
    return " OR ".join(f"SUM({name}) <> 0" for name in names)
