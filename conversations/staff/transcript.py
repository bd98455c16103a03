"""A session as one reads it: a window of its messages, jumps out of it, and the run that is highlighted.

A session may hold any number of messages, and so may a trace. So nothing here counts or skips rows: each read is a
range of the index (session, position) no longer than a constant, and where that is not the whole session the page
says so. Where nothing but a trace id is asked for, the first messages that carry it are looked at, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

from django.conf import settings
from django.db.models import Exists, Q, QuerySet, Value
from django.db.models.functions import Coalesce, Left

from chatstore.ids import row_id_of, uuid_of
from conversations.models import Message, Session, Turn
from conversations.staff.lookups import look_up, one_of
from conversations.staff.markdown import clean_html

PAGE: Final = 50
BEFORE_MARKED: Final = 24
# How far beyond the window a jump looks, and how far around it the messages of a run are gathered.
REACH: Final = 2_000
MOST_SHOWN: Final = 100_000
# Characters of Markdown that are rendered, of one message and of a page: it costs far more than text, and some of
# it the square of its length. The slowest page known takes a second and a half with these, a usual one a third.
MOST_RENDERED: Final = 10_000
MOST_RENDERED_OF_A_PAGE: Final = 100_000
MOST_TOOLS: Final = 8
LONGEST_TRACE: Final = 255

COLUMNS: Final = (
    "id",
    "session_id",
    "position",
    "role",
    "tool_name",
    "trace_id",
    "span_id",
    "tokens",
    "status",
    "created_at",
    "deleted_at",
)
NOT_THERE: Final = "No message of this session has this trace id."
NOT_LOOKED_AT: Final = "Too many messages carry this trace id to look for those of this session."
RENDERED: Final = {Message.Role.USER, Message.Role.ASSISTANT, Message.Role.SYSTEM}
FAILURES: Final = (Message.Status.FAILED, Message.Status.INTERRUPTED)
HEX: Final = re.compile(r"[0-9a-fA-F]{32}")
OPENAI: Final = re.compile(r"trace_([0-9a-fA-F]{32})")


# What is asked for


@dataclass(frozen=True)
class Asked:
    """What the address asks for. What it spells wrongly is left out, and `notes` say so."""

    first: int | None = None
    last: int | None = None
    message: int | None = None
    trace: str = ""
    is_raw: bool = False
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> dict[str, Any]:
        """What a link to another part of this session takes along."""
        kept = {"message": self.message, "trace": self.trace, "raw": "1" if self.is_raw else None}
        return {name: value for name, value in kept.items() if value}


def read_query(query: Mapping[str, str]) -> Asked:
    numbers = {name: row_id_of(query.get(name, "").strip()) for name in ("from", "to", "message")}
    notes = [f"“{name}” is not a number from 1 on, so it was left out."
             for name, number in numbers.items() if query.get(name, "").strip() and number is None]  # fmt: skip
    trace = query.get("trace", "")
    if "\0" in trace or len(trace) > LONGEST_TRACE:
        trace = ""
        notes.append("“trace” cannot be a trace id, so it was left out.")
    is_raw = query.get("raw") == "1"
    return Asked(numbers["from"], numbers["to"], numbers["message"], trace, is_raw, tuple(notes))


def address(parameters: Mapping[str, Any], position: int | None = None) -> str:
    """A link within the transcript; to a message's place on the page where a position is said."""
    return f"?{urlencode(parameters)}" + (f"#m{position}" if position else "")


# What is read


def messages_of(session: Session) -> QuerySet[Message]:
    return Message.objects.filter(session=session.pk)


def window_from(session: Session, first: int, last: int | None = None) -> QuerySet[Message]:
    """The messages from this position on, no further than `last`."""
    rows = messages_of(session).filter(position__gte=first)
    return (rows.filter(position__lte=last) if last else rows).order_by("position")[:PAGE]


def window_to(session: Session, last: int) -> QuerySet[Message]:
    """The messages up to this position, the latest first."""
    return messages_of(session).filter(position__lte=last).order_by("-position")[:PAGE]


def in_reach(session: Session, after: int) -> QuerySet[Message]:
    """Where a jump looks. Deleted messages have nothing to jump to."""
    ahead = messages_of(session).filter(position__gt=after, position__lte=after + REACH, deleted_at=None)
    return ahead.order_by("position")


def next_said(session: Session, after: int) -> QuerySet[Message]:
    return in_reach(session, after).filter(role=Message.Role.USER)[:1]


def next_failure(session: Session, after: int) -> QuerySet[Message]:
    """Failed or interrupted; so is what still streams where no worker does (`Turn.objects.shown`)."""
    writing = Exists(Turn.objects.alive().filter(session=session.pk))
    failed = Q(status__in=FAILURES) | Q(~writing, status=Message.Status.STREAMING)
    return in_reach(session, after).filter(failed)[:1]


def begin_of_run(session: Session, trace: str) -> tuple[int | None, bool]:
    """Where a run begins, and whether nothing was left out: for a long session only the first messages that carry
    the trace id are looked at, of whatever session they are."""
    if session.last_position <= REACH:
        return run_between(session, trace, 1, REACH).values_list("position", flat=True).first(), True
    keys, has_more = look_up(one_of("trace_id", [trace]))
    begin = min((key.position for key in keys if key.session_id == session.pk), default=None)
    return begin, not has_more


def run_between(session: Session, trace: str, first: int, last: int) -> QuerySet[Message]:
    """A run's messages in this range of positions. COALESCE keeps off the index of trace ids, which finds those of
    every session, however many."""
    near = messages_of(session).filter(position__gte=first, position__lte=last)
    return near.alias(of=Coalesce("trace_id", Value(""))).filter(of=trace).order_by("position")


def run_around(session: Session, trace: str, first: int, last: int) -> QuerySet[Message]:
    """A run's messages within reach of the window."""
    return run_between(session, trace, first - REACH // 2, last + REACH // 2)


def rows_of(window: QuerySet[Message]) -> list[dict[str, Any]]:
    """As they are shown, in order. Of a long text no more is read than the page shows."""
    rows: list[dict[str, Any]] = list(
        window.annotate(text=Left("content", MOST_SHOWN + 1)).values(*COLUMNS, "text")
    )
    return Turn.objects.shown(sorted(rows, key=lambda row: row["position"]))


# What is shown


@dataclass
class Run:
    """The messages of one trace, added up. Deleted ones are highlighted and count for nothing else, as in the
    session's own counters."""

    trace: str
    positions: list[int] = field(default_factory=list)
    turns: int = 0
    tokens: int = 0
    duration: str = ""
    tools: list[tuple[str, int]] = field(default_factory=list)
    more_tools: int = 0
    looked: tuple[int, int] | None = None


@dataclass
class Jump:
    """A link out of the window, or why there is none."""

    label: str
    key: str
    to: str = ""
    position: int | None = None
    why_not: str = ""


def kind_of(trace_id: str) -> tuple[str, str]:
    """Which tracing system such an id is from, and its 32 hex digits where it has them."""
    if HEX.fullmatch(trace_id):
        return "hex", trace_id.lower()
    if as_uuid := uuid_of(trace_id):
        return "uuid", as_uuid.hex
    if found := OPENAI.fullmatch(trace_id):
        return "openai", found[1].lower()
    return "other", ""


def trace_url(trace_id: str | None, span_id: str | None) -> str:
    """Where the tracing system shows this, empty where nobody said. An id of dots alone is none: it would be a
    step up in the path, however it is encoded."""
    if not trace_id or not trace_id.strip("."):
        return ""
    if not span_id or not span_id.strip("."):
        span_id = ""
    kind, digits = kind_of(trace_id)
    template = dict[str, str](settings.ENVIRONMENT.trace_url_templates).get(kind, "")
    ids = {"trace_id": trace_id, "trace_id_hex": digits, "span_id": span_id}
    return template.format(**{name: quote(value, safe="") for name, value in ids.items()})


def spoken(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def rendered(rows: Sequence[Mapping[str, Any]], marked: int | None) -> dict[int, str]:
    """The HTML of messages by their ids, as many as a page may render: the marked one, then from the top."""
    html, room = {}, MOST_RENDERED_OF_A_PAGE
    for row in sorted(rows, key=lambda row: row["id"] != marked):
        length = len(row["text"])
        if row["role"] in RENDERED and length <= min(room, MOST_RENDERED):
            html[row["id"]] = clean_html(row["text"])
            room -= length
    return html


def entry(row: Mapping[str, Any], html: Mapping[int, str], asked: Asked, run: Run | None) -> dict[str, Any]:
    """A message as the template needs it."""
    text = row["text"]
    raw = {"raw": "1"} if asked.is_raw else {}
    return {
        **row,
        "text": text[:MOST_SHOWN],
        "html": html.get(row["id"], ""),
        "is_too_long": row["role"] in RENDERED and bool(text) and row["id"] not in html and not asked.is_raw,
        "is_cut": len(text) > MOST_SHOWN,
        "is_marked": row["id"] == asked.message,
        "is_failed": row["status"] in FAILURES and not row["deleted_at"],
        "in_run": run is not None and row["trace_id"] == run.trace,
        "link": address({"message": row["id"], **raw}, row["position"]),
        "run_link": address({"message": row["id"], "trace": row["trace_id"], **raw}, row["position"]),
        "trace_url": trace_url(row["trace_id"], row["span_id"]),
    }


def added_up(session: Session, trace: str, first: int, last: int) -> Run:
    rows = list(run_around(session, trace, first, last).values(*COLUMNS))
    live = [row for row in rows if not row["deleted_at"]]
    calls = [row for row in live if row["role"] == Message.Role.TOOL_CALL]
    tools = Counter(row["tool_name"] or "unnamed" for row in calls)
    low, high = max(1, first - REACH // 2), min(session.last_position, last + REACH // 2)
    return Run(
        trace,
        positions=[row["position"] for row in rows],
        turns=sum(row["role"] == Message.Role.USER for row in live),
        tokens=sum(row["tokens"] for row in live),
        duration=spoken(elapsed(row["created_at"] for row in live)),
        tools=tools.most_common(MOST_TOOLS),
        more_tools=max(0, len(tools) - MOST_TOOLS),
        looked=(low, high) if (low, high) != (1, session.last_position) else None,
    )


def elapsed(times: Iterable[datetime]) -> timedelta:
    known = list(times)
    return max(known) - min(known) if known else timedelta()


def jump(
    label: str, key: str, what: str, found: QuerySet[Message], session: Session, after: int, asked: Asked
) -> Jump:
    """The first of these beyond the window; where there is none, how far was looked."""
    end = session.last_position
    position = found.values_list("position", flat=True).first() if after < end else None
    if position:
        return Jump(label, key, address({**asked.kept, "from": position}, position), position)
    looked = f"#{after + 1} to #{after + REACH}" if after + REACH < end else "the rest of the session"
    return Jump(label, key, why_not=f"No {what} in {looked}.")


class Transcript:
    """One page of a session: it reads all that it shows when it is made."""

    def __init__(self, session: Session, query: Mapping[str, str]) -> None:
        self.session = session
        self.asked = read_query(query)
        self.notes = list(self.asked.notes)
        marked = self.find_marked()
        self.trace = self.asked.trace or (marked["trace_id"] if marked else None) or ""
        rows = rows_of(self.find_window(marked))
        if not rows and session.last_position:
            self.notes.append("There are no messages here any more.")
        end = session.last_position
        self.first = rows[0]["position"] if rows else min(self.asked.first or 1, end + 1)
        self.last = rows[-1]["position"] if rows else min(self.asked.last or end, end)
        self.run = added_up(session, self.trace, self.first, self.last) if self.trace else None
        html = {} if self.asked.is_raw else rendered(rows, self.asked.message)
        self.messages = [entry(row, html, self.asked, self.run) for row in rows]
        self.jumps = self.find_jumps()

    def find_marked(self) -> dict[str, Any] | None:
        if self.asked.message is None:
            return None
        named = messages_of(self.session).filter(pk=self.asked.message)
        found = named.values("position", "trace_id").first()
        if found is None:
            self.notes.append(f"Message {self.asked.message} is not in this session.")
            return None
        return dict(found)

    def find_window(self, marked: Mapping[str, Any] | None) -> QuerySet[Message]:
        """Positions are asked for first, then the marked message, then the run, else it is the beginning."""
        end = self.session.last_position
        if self.asked.first and self.asked.first > end > 0:
            self.notes.append(f"The session ends at #{end}.")
            return window_to(self.session, end)
        if self.asked.first:
            return window_from(self.session, self.asked.first, self.asked.last)
        if self.asked.last:
            return window_to(self.session, self.asked.last)
        if marked:
            return window_from(self.session, max(1, marked["position"] - BEFORE_MARKED))
        if self.asked.trace:
            begin, is_all = begin_of_run(self.session, self.asked.trace)
            if begin is None:
                self.notes.append(NOT_THERE if is_all else NOT_LOOKED_AT)
            return window_from(self.session, begin or 1)
        return window_from(self.session, 1)

    @property
    def begin(self) -> str:
        return address({**self.asked.kept, "from": 1}, 1)

    @property
    def end(self) -> str:
        last = self.session.last_position
        return address({**self.asked.kept, "to": last}, last)

    @property
    def earlier(self) -> str:
        """Up to what is before the window; its place on the page is the last message there."""
        before = self.first - 1
        return address({**self.asked.kept, "to": before}, before) if before else ""

    @property
    def later(self) -> str:
        after = self.last + 1
        return address({**self.asked.kept, "from": after}, after) if self.last < self.session.last_position else ""

    @property
    def raw_switch(self) -> str:
        """The same window, the other way."""
        asked = {**self.asked.kept, "from": self.asked.first, "to": self.asked.last}
        asked["raw"] = None if self.asked.is_raw else "1"
        return address({name: value for name, value in asked.items() if value})

    def find_jumps(self) -> Sequence[Jump]:
        user, failure = next_said(self.session, self.last), next_failure(self.session, self.last)
        return (
            jump("Next user", "u", "user message", user, self.session, self.last, self.asked),
            jump("Next failure", "f", "failure", failure, self.session, self.last, self.asked),
        )
