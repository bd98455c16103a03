"""The admin's front page with what was used: by day, and who and what was busiest.

The numbers come from the roll-up (`conversations.usage`), which counts the messages of the last two days at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.dateformat import format as formatted

from accounts.models import User, Workspace
from chatstore.http.times import day_of
from chatstore.ids import uuid_of
from conversations.models import Message
from conversations.staff.charts import Chart, Entry, bar_chart, percent
from conversations.usage import Counts, Report, Share, report

PERIODS: Final = (7, 30, 90)
DAYS: Final = 30
EARLIEST: Final = date(1970, 1, 1)
LONGEST_AGENT: Final = 255
# A figure's name and title; what it stacks, by the field of a day's counts: one of it, many of it.
FIGURES: Final[Sequence[tuple[str, str, Mapping[str, tuple[str, str]]]]] = (
    ("messages", "Messages", {"messages": ("message", "messages")}),
    ("tokens", "Tokens", {"tokens": ("token", "tokens")}),
    ("sessions", "Sessions", {"sessions": ("session", "sessions")}),
    ("users", "Active users", {"users": ("user", "users")}),
    (
        "failures",
        "Unfinished replies",
        {"interrupted": ("interrupted", "interrupted"), "failed": ("failed", "failed")},
    ),
)
# One session or user counts on each day it was active: over days they do not add up.
COUNTED_EACH_DAY: Final = {"sessions", "users"}
NEEDED: Final = ("conversations.view_session", "conversations.view_message")


def index(request: HttpRequest) -> HttpResponse:
    """The stock index; with the dashboard for whoever may see sessions and messages."""
    user = cast(User, request.user)
    dashboard = Dashboard(request.GET) if user.has_perms(NEEDED) else None
    return admin.site.index(request, {"dashboard": dashboard})


# What is asked for


@dataclass(frozen=True)
class Asked:
    """What the address asks for. What it spells wrongly is left out, and `notes` say so."""

    today: date
    until: date
    days: int = DAYS
    workspace: Workspace | None = None
    agent: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> date:
        return self.until - timedelta(days=self.days - 1)

    def address(self, **changes: Any) -> str:
        """A link to this page with other parameters; None takes one away."""
        kept = {
            "days": self.days,
            "until": self.until if self.until < self.today else None,
            "workspace": self.workspace and self.workspace.public_id,
            "agent": self.agent,
        }
        return f"?{urlencode({name: value for name, value in (kept | changes).items() if value is not None})}"


def read_query(query: Mapping[str, str], today: date) -> Asked:
    days = {str(days): days for days in PERIODS}.get(query.get("days", ""))
    until = day_of(query.get("until", ""))
    workspace = workspace_of(query.get("workspace", ""))
    agent = query.get("agent")
    notes = []
    if query.get("days") and not days:
        notes.append(f"“days” is 7, 30 or 90. It was left out: these are {DAYS} days.")
    if query.get("until") and not (until and EARLIEST <= until <= today):
        until = None
        notes.append(f"“until” is a day like {today}, and not after it. It was left out.")
    if query.get("workspace") and not workspace:
        notes.append("“workspace” is not the public id of a workspace. It was left out: these are all of them.")
    if agent is not None and ("\0" in agent or len(agent) > LONGEST_AGENT):
        agent = None
        notes.append("“agent” cannot be the name of an agent. It was left out: these are all of them.")
    if workspace and agent is not None:
        agent = None
        notes.append("Either a workspace or an agent: “agent” was left out.")
    return Asked(today, until or today, days or DAYS, workspace, agent, tuple(notes))


def workspace_of(text: str) -> Workspace | None:
    public_id = uuid_of(text)
    return Workspace.objects.filter(public_id=public_id).first() if public_id else None


# What is shown


class Row(NamedTuple):
    day: date
    values: list[str]


class Figure(NamedTuple):
    """A chart of days, and the same as a table."""

    name: str
    title: str
    summary: str
    series: Sequence[str]
    chart: Chart | None  # None: there is nothing to draw.
    rows: list[Row]


class Busy(NamedTuple):
    """One of the busiest. `url` narrows the page to it."""

    label: str
    url: str
    messages: str
    tokens: str
    percent: float  # Of the busiest one's messages.


class Ranking(NamedTuple):
    title: str
    kind: str
    unit: str
    rows: list[Busy]


class Link(NamedTuple):
    label: str
    url: str
    is_here: bool = False


class Dashboard:
    """What the page shows of a period, for everybody or narrowed to a workspace or an agent."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self.asked = read_query(query, timezone.now().date())
        asked = self.asked
        self.report: Report = report(asked.first, asked.until, workspace=asked.workspace, agent=asked.agent)

    @cached_property
    def is_idle(self) -> bool:
        """Whether nothing was said in the period."""
        return not any(counts.messages for counts in self.report.days)

    @cached_property
    def is_empty(self) -> bool:
        """Whether nobody has stored anything yet. By key: without an order PostgreSQL would read the table."""
        newest = Message.objects.order_by("-pk").values_list("pk", flat=True)
        return self.is_idle and self.report.latest_day is None and newest.first() is None

    @property
    def latest(self) -> Link | None:
        """Where nothing was said: the period that ends with the last day on which something was."""
        day = self.report.latest_day
        return Link(day.isoformat(), self.asked.address(until=day)) if self.is_idle and day else None

    @property
    def is_late(self) -> bool:
        """Whether `manage.py rollup` has something to do that this page would show."""
        return self.report.rolled_through is None or self.report.uncounted_days > 0

    @property
    def periods(self) -> list[Link]:
        return [Link(f"{days} days", self.asked.address(days=days), days == self.asked.days) for days in PERIODS]

    @property
    def earlier(self) -> str:
        """Empty where there is no earlier period, and so with `later`."""
        until = self.asked.first - timedelta(days=1)
        return self.asked.address(until=until) if until >= EARLIEST else ""

    @property
    def later(self) -> str:
        until = self.asked.until + timedelta(days=self.asked.days)
        if self.asked.until >= self.asked.today:
            return ""
        return self.asked.address(until=until if until < self.asked.today else None)

    @property
    def without_workspace(self) -> str:
        return self.asked.address(workspace=None)

    @property
    def without_agent(self) -> str:
        return self.asked.address(agent=None)

    @property
    def figures(self) -> list[Figure]:
        return [drawn(name, title, series, self.report.days) for name, title, series in FIGURES]

    @property
    def rankings(self) -> list[Ranking]:
        found = self.report

        def by_agent(name: str) -> str:
            return self.asked.address(agent=name, workspace=None)

        def by_workspace(name: str) -> str:
            return self.asked.address(workspace=name, agent=None)

        rankings = [Ranking("Busiest tools", "Tool", "Calls", busiest(found.tools, "no name"))]
        if self.asked.agent is None:
            agents = busiest(found.agents, "no agent", by_agent)
            rankings.append(Ranking("Busiest agents", "Agent", "Messages", agents))
        if self.asked.workspace is None:
            workspaces = busiest(found.workspaces, "", by_workspace)
            rankings.append(Ranking("Busiest workspaces", "Workspace", "Messages", workspaces))
        return rankings


def drawn(name: str, title: str, series: Mapping[str, tuple[str, str]], days: Sequence[Counts]) -> Figure:
    units = list(series.values())
    stacks = [(counts.day, [getattr(counts, field) for field in series]) for counts in days]
    entries = [
        Entry(formatted(day, "j M"), f"{formatted(day, 'D Y-m-d')}: {said(stack, units)}", stack)
        for day, stack in stacks
    ]
    rows = [Row(day, [f"{number:,}" for number in stack]) for day, stack in stacks]
    columns = list(zip(*(stack for _, stack in stacks), strict=True))
    if name in COUNTED_EACH_DAY:
        summary = f"at most {said(map(max, columns), units)} on a day"
    else:
        summary = said(map(sum, columns), units)
    chart = bar_chart(entries) if any(map(any, columns)) else None
    return Figure(name, title, summary, [many for _, many in units], chart, rows)


def said(numbers: Iterable[int], units: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{number:,} {unit[number != 1]}" for number, unit in zip(numbers, units, strict=True))


def busiest(shares: Sequence[Share], nameless: str, address: Callable[[str], str] | None = None) -> list[Busy]:
    most = max((share.messages for share in shares), default=0)
    return [
        Busy(
            share.label or share.name or nameless,
            address(share.name) if address else "",
            f"{share.messages:,}",
            f"{share.tokens:,}",
            percent(share.messages, most),
        )
        for share in shares
    ]
