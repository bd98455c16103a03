"""What was used, per UTC day: the roll-up of messages, and what the days since it are topped up with.

A day is counted once it is over. Whatever changes a message of an earlier day leaves a mark, in the same
transaction, and the next roll-up counts that day again. Deleting a message or a session leaves none and lowers
nothing: a deleted message is counted like any other, though in a count that comes later a deleted call has lost
its tool's name. What a purge removes was never there: its days are marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Max, Min, Q
from django.utils import timezone

from accounts.models import Workspace
from conversations.models import Message, Session, Usage, UsageMark, UsageState, UsageTotal

DAY: Final = timedelta(days=1)
# Whoever wrote a message at the end of a day has committed it by then.
GRACE: Final = timedelta(minutes=10)
DAYS_AT_ONCE: Final = 31
# A page counts no more days than these by itself, today among them.
MOST_OPEN_DAYS: Final = 2
MOST_SHOWN: Final = 10
# Of a day's tools, agents and workspaces the busiest are kept in its totals: names are whoever's who stores.
MOST_KEPT: Final = 200

Advance = Callable[[int], None]


# Marks


def mark(times: Iterable[datetime], *, today_too: bool = False) -> None:
    """Have the days of messages with these times counted again. Today's are counted anew each time anyway:
    `today_too` is for a transaction that may last longer than GRACE, beyond midnight."""
    today = timezone.now().astimezone(UTC).date()
    days = sorted({at.astimezone(UTC).date() for at in times})
    UsageMark.objects.bulk_create([UsageMark(day=day) for day in days if today_too or day < today])


# Counting


def counting(where: str = "") -> str:
    """The SQL that counts messages from one moment to another (two parameters, then those of `where`), in the
    columns of COUNTED. By session first: fewer rows are joined, and each session is counted once a day."""
    message, session = (connection.ops.quote_name(model._meta.db_table) for model in (Message, Session))
    if connection.vendor == "postgresql":
        day = "(created_at AT TIME ZONE 'UTC')::date"
        # LIMIT, or it would read all sessions to join those of a day.
        join = f"JOIN LATERAL (SELECT * FROM {session} WHERE id = m.session_id LIMIT 1) AS s ON TRUE"
    else:
        day, join = "date(created_at)", f"JOIN {session} AS s ON s.id = m.session_id"
    return f"""
        SELECT m.day, s.workspace_id, s.owner_id, COALESCE(s.agent, '') AS agent, m.role, m.tool_name,
            CAST(SUM(m.messages) AS bigint) AS messages, CAST(SUM(m.tokens) AS bigint) AS tokens,
            CAST(SUM(m.interrupted) AS bigint) AS interrupted, CAST(SUM(m.failed) AS bigint) AS failed,
            CAST(SUM(CASE WHEN m.nth = 1 THEN 1 ELSE 0 END) AS bigint) AS sessions
        FROM (
            SELECT day, session_id, role, tool_name, COUNT(*) AS messages, SUM(tokens) AS tokens,
                SUM(CASE WHEN status = 'interrupted' THEN 1 ELSE 0 END) AS interrupted,
                SUM(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) AS failed,
                ROW_NUMBER() OVER (PARTITION BY session_id, day ORDER BY role, tool_name) AS nth
            FROM (
                SELECT {day} AS day, session_id, role, tokens, status,
                    CASE WHEN role = 'tool_call' THEN COALESCE(tool_name, '') ELSE '' END AS tool_name
                FROM {message} WHERE created_at >= %s AND created_at < %s
            ) AS said
            GROUP BY day, session_id, role, tool_name
        ) AS m
        {join} {where}
        GROUP BY m.day, s.workspace_id, s.owner_id, COALESCE(s.agent, ''), m.role, m.tool_name
    """


COUNTED: Final = (
    "day", "workspace_id", "owner_id", "agent", "role", "tool_name",
    "messages", "tokens", "interrupted", "failed", "sessions",
)  # fmt: skip


def between(first: date, last: date) -> list[Any]:
    """The parameters of `counting` for these days, both included."""
    return [
        connection.ops.adapt_datetimefield_value(datetime.combine(day, time(), UTC)) for day in (first, last + DAY)
    ]


# The roll-up


class Waiting(NamedTuple):
    """The days to count, in order, after which all are counted up to `last`."""

    days: list[date]
    last: date


def waiting() -> Waiting:
    """The days that are over and not counted, and those that are marked."""
    last = (timezone.now() - GRACE).astimezone(UTC).date() - DAY
    state = state_row()
    marked = set(UsageMark.objects.filter(day__lte=last).values_list("day", flat=True).distinct())
    first = state.rolled_through + DAY if state.rolled_through else first_day()
    uncounted = {first + DAY * n for n in range((last - first).days + 1)} if first else set()
    return Waiting(sorted(marked | uncounted), last)


def roll_up(waiting: Waiting, advance: Advance = lambda days: None) -> None:
    """Count these days, some in a transaction: stopped halfway, the next does the rest. Two at once take turns."""
    for first, last in spans(waiting.days):
        count_days(first, last)
        advance((last - first).days + 1)
    behind = Q(rolled_through=None) | Q(rolled_through__lt=waiting.last)
    UsageState.objects.filter(behind).update(rolled_through=waiting.last)
    UsageState.objects.update(rolled_at=timezone.now())


def first_day() -> date | None:
    """The day of the oldest message. Reads the whole table on PostgreSQL: only the first roll-up asks."""
    with transaction.atomic():
        take_time()
        oldest: datetime | None = Message.objects.aggregate(oldest=Min("created_at"))["oldest"]
    return oldest.astimezone(UTC).date() if oldest else None


def spans(days: list[date]) -> Iterator[tuple[date, date]]:
    """Days that follow each other, as their first and last, DAYS_AT_ONCE at most."""
    if not days:
        return
    first = days[0]
    for day, following in pairwise(days):
        if following - day > DAY or (following - first).days >= DAYS_AT_ONCE:
            yield first, day
            first = following
    yield first, days[-1]


@transaction.atomic
def count_days(first: date, last: date) -> None:
    """Their marks go before they are counted: what is marked meanwhile is counted the next time."""
    state = wait_for_turn()
    for counted in (UsageMark, Usage, UsageTotal):
        counted.objects.filter(day__range=(first, last)).delete()
    usage = connection.ops.quote_name(Usage._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {usage} ({', '.join(COUNTED)}) {counting()}", between(first, last))
        add_up(cursor, first, last)
    if state.rolled_through is None or last > state.rolled_through:
        state.rolled_through = last
    state.rolled_at = timezone.now()
    state.save(update_fields=["rolled_through", "rolled_at"])


def wait_for_turn() -> UsageState:
    """Whoever holds the row counts, or removes a person whose usage is counted."""
    take_time()
    return UsageState.objects.select_for_update().get(pk=state_row().pk)


def state_row() -> UsageState:
    """The one row."""
    return UsageState.objects.get_or_create(pk=1)[0]


def take_time() -> None:
    """Let the statements of this transaction run, and wait for their turn, as long as they need."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for limit in ("statement_timeout", "lock_timeout"):
                cursor.execute("SELECT set_config(%s, '0', true)", [limit])


# Totals: what a page reads of a day, however many people it had


def add_up(cursor: Any, first: date, last: date) -> None:
    """The totals of days whose usage is counted."""
    usage, total = (connection.ops.quote_name(model._meta.db_table) for model in (Usage, UsageTotal))
    of_days = f"SELECT * FROM {usage} WHERE day >= %s AND day <= %s"
    ends = [connection.ops.adapt_datefield_value(day) for day in (first, last)]
    for scope in UsageTotal.Scope:
        rows = f"WITH counted AS ({of_days}) {totals(scope)}"
        cursor.execute(f"INSERT INTO {total} ({', '.join(TOTALED)}) {rows}", ends)


TOTALED: Final = (
    "scope", "subject", "day", "kind", "name", "messages", "tokens", "sessions", "users", "interrupted", "failed",
)  # fmt: skip
NAMES: Final = {
    "workspace": "CAST(workspace_id AS text)",
    "agent": "agent",
    "tool": "tool_name",
    "all": "CAST('' AS text)",
}


def totals(scope: str) -> str:
    """The SQL that adds up rows of `counted` in the columns of TOTALED: each day as a whole, with its people, and
    its busiest tools, agents and workspaces."""
    subject = NAMES[scope]
    sums = ", ".join(f"CAST(SUM({name}) AS bigint) AS {name}" for name in ("messages", "tokens", "sessions"))
    unfinished = ", ".join(f"CAST(SUM({name}) AS bigint) AS {name}" for name in ("interrupted", "failed"))
    whole = f"""
        SELECT '{scope}' AS scope, subject, day, 'day' AS kind, '' AS name, {sums}, COUNT(*) AS users, {unfinished}
        FROM (
            SELECT {subject} AS subject, day, owner_id, {sums}, {unfinished}
            FROM counted GROUP BY {subject}, day, owner_id
        ) AS people GROUP BY subject, day"""
    parts = [
        f"""
        SELECT '{scope}', subject, day, '{kind}', name, messages, tokens, 0, 0, 0, 0
        FROM (
            SELECT {subject} AS subject, day, {NAMES[kind]} AS name, {sums},
                ROW_NUMBER() OVER (PARTITION BY {subject}, day ORDER BY SUM(messages) DESC, {NAMES[kind]}) AS place
            FROM counted {"WHERE role = 'tool_call'" if kind == "tool" else ""}
            GROUP BY {subject}, day, {NAMES[kind]}
        ) AS ranked WHERE place <= {MOST_KEPT}"""
        for kind in ("tool", "agent", "workspace")
        if kind != scope
    ]
    return " UNION ALL ".join([whole, *parts])


# What pages show


class Counts(NamedTuple):
    """Of one day."""

    day: date
    messages: int = 0
    tokens: int = 0
    sessions: int = 0
    users: int = 0
    interrupted: int = 0
    failed: int = 0


class Share(NamedTuple):
    """One of the busiest: a tool or an agent by its name, empty for none, a workspace by its public id."""

    name: str
    label: str
    messages: int
    tokens: int


@dataclass(frozen=True)
class Report:
    """What was used from `first` to `last`, UTC days, both included. `as_of`: until when it is counted,
    None where nothing ever was.

    `uncounted_days` of the range are neither rolled up nor topped up. `latest_day` is the last one rolled up that
    has messages, in the range or not.
    """

    first: date
    last: date
    as_of: datetime | None
    rolled_through: date | None
    uncounted_days: int
    latest_day: date | None
    days: list[Counts]
    tools: list[Share]
    agents: list[Share]
    workspaces: list[Share]


def report(first: date, last: date, *, workspace: Workspace | None = None, agent: str | None = None) -> Report:
    """The roll-up of these days, topped up with the last ones that are not in it: of all, or of one workspace, or
    of one agent ("" for sessions without one)."""
    now = timezone.now()
    today = now.astimezone(UTC).date()
    state = UsageState.objects.first() or UsageState()
    through = state.rolled_through
    open_from = max(through + DAY if through else date.min, today - DAY * (MOST_OPEN_DAYS - 1))
    counts, busiest = added_up(*rows_of(first, last, max(first, open_from), workspace, agent))
    days = [first + DAY * n for n in range((last - first).days + 1)]
    uncounted = [day for day in days if (through is None or day > through) and day < open_from]
    return Report(
        first,
        last,
        as_of=now if last >= open_from else state.rolled_at,
        rolled_through=through,
        uncounted_days=len(uncounted),
        latest_day=Usage.objects.aggregate(latest=Max("day"))["latest"],
        days=[counts.get(day, Counts(day)) for day in days],
        tools=busiest["tool"],
        agents=busiest["agent"],
        workspaces=named(busiest["workspace"]),
    )


def rows_of(
    first: date, last: date, open_from: date, workspace: Workspace | None, agent: str | None
) -> tuple[str, list[Any]]:
    """The SQL of the totals of these days, by kind and name, and its parameters: those that are stored, and those
    of the days since `open_from`, which are counted now."""
    scope, subject, where, narrowed = "all", "", "", []
    if workspace is not None:
        stored: Any = Workspace._meta.get_field("public_id").get_db_prep_value(workspace.public_id, connection)
        scope, subject, where, narrowed = "workspace", str(stored), "WHERE s.workspace_id = %s", [stored]
    elif agent is not None:
        scope, subject, where, narrowed = "agent", agent, "WHERE COALESCE(s.agent, '') = %s", [agent]
    table, columns = connection.ops.quote_name(UsageTotal._meta.db_table), ", ".join(TOTALED)
    sql = f"""
        WITH counted AS ({counting(where)}),
        shown AS (
            SELECT {columns} FROM {table} WHERE scope = %s AND subject = %s AND day >= %s AND day < %s
            UNION ALL {totals(scope)}
        )
        SELECT kind, CASE WHEN kind = 'day' THEN CAST(day AS text) ELSE name END, SUM(messages), SUM(tokens),
            SUM(sessions), SUM(users), SUM(interrupted), SUM(failed)
        FROM shown GROUP BY 1, 2
    """
    ends = [connection.ops.adapt_datefield_value(day) for day in (first, min(open_from, last + DAY))]
    return sql, [*between(open_from, last), *narrowed, scope, subject, *ends]


def added_up(sql: str, parameters: list[Any]) -> tuple[dict[date, Counts], dict[str, list[Share]]]:
    """The days, and the busiest tools, agents and workspaces."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows = cursor.fetchall()
    days: dict[date, Counts] = {}
    shares: dict[str, list[Share]] = {"tool": [], "agent": [], "workspace": []}
    for kind, name, messages, tokens, *rest in rows:
        if kind == "day":
            day = date.fromisoformat(name)
            days[day] = Counts(day, int(messages), int(tokens), *map(int, rest))
        else:
            shares[kind].append(Share(name, name, int(messages), int(tokens)))
    return days, {kind: sorted(found, key=by_size)[:MOST_SHOWN] for kind, found in shares.items()}


def by_size(share: Share) -> tuple[int, str]:
    return -share.messages, share.name


def named(shares: list[Share]) -> list[Share]:
    """Workspaces by their public ids as people write them, labelled with their names."""
    ids = [UUID(share.name) for share in shares]
    names = dict(Workspace.objects.filter(public_id__in=ids).values_list("public_id", "name"))
    return [share._replace(name=str(id), label=names.get(id, "")) for id, share in zip(ids, shares, strict=True)]
