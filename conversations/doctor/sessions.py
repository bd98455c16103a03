"""The sessions with their messages and turns: what the counters say against what is there.

Some sessions at a time are looked at beside the service, in statements that know nothing of each other. What looks
wrong may have changed in between: such a session is looked at alone under its lock, and only that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, Final, NamedTuple

from django.db import Error, connection, transaction
from django.db.models import (
    BooleanField,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    Max,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    TextField,
    Window,
)
from django.db.models.functions import Cast, Greatest, Lag
from django.utils import timezone

from accounts.models import User, Workspace
from chatstore.http.logs import described
from conversations import services, usage
from conversations.doctor import contents
from conversations.doctor.contents import Fault, Values
from conversations.doctor.findings import Finding
from conversations.models import Message, Session, Turn

SESSIONS_AT_ONCE: Final = 1_000
# Of these sessions so many messages, but for one that has more.
MESSAGES_AT_ONCE: Final = 100_000
# The service settles a lost turn within seconds.
PATIENCE: Final = timedelta(minutes=1)
# Clocks that differ by more are wrong.
SLACK: Final = timedelta(days=1)
MOST_NAMED: Final = 10

Advance = Callable[[int], None]
Row = dict[str, Any]

COLUMNS: Final = (
    "pk", "session_id", "owner_public_id", "last_position", "message_count", "tokens", "version", "last_activity",
    "created_at", "updated_at", "deleted_at",
)  # fmt: skip
NOTHING: Final[Row] = {
    "rows": 0, "places": 0, "first": 1, "last": 0, "live": 0, "live_tokens": 0, "lowest_version": 1, "version": 1,
    "oldest": None, "newest": None, "faulty": 0,
}  # fmt: skip
LOST_ROWS: Final = "Bring the lost ones back from a backup, or from an export by importjsonl."
TWICE: Final = "Move one of each to its place by SQL, after the schema is whole."
NO_SESSION: Final = "Bring it back from a backup, or delete them by SQL: nobody can read them."
NO_OWNER: Final = "Bring the owner back from a backup, or give it another by SQL, owner_public_id too."
NO_WORKSPACE: Final = "Bring the workspace back from a backup, or give it another by SQL."
NO_MESSAGE: Final = "Bring the message back from a backup, or delete the turn by SQL."


@dataclass
class Walk:
    """How far the sessions have been looked at: up to this id. `oldest` is when the first message was stored."""

    last: int = 0
    sessions: int = 0
    messages: int = 0
    oldest: datetime | None = None

    @property
    def first_day(self) -> date | None:
        return self.oldest.astimezone(UTC).date() if self.oldest else None


@dataclass
class Page:
    """Sessions in the order of their ids, up to the id `last` (None: to the end), and what names one of them."""

    last: int | None
    sessions: dict[int, Row]
    counts: dict[int, Row]
    turns: dict[int, list[Row]]
    abandoned: set[int]

    def suspects(self, kinds: Container[str]) -> list[int]:
        """Ids of sessions that something seems to be wrong with, or that are named and not there."""
        named = self.sessions.keys() | self.counts.keys() | self.turns.keys()
        return [pk for pk in sorted(named) if any(kind in kinds for kind in self.of(pk).suspicions())]

    def of(self, pk: int) -> Examination:
        counts = self.counts.get(pk, NOTHING)
        return Examination(pk, self.sessions.get(pk), counts, self.turns.get(pk, []), pk in self.abandoned)


def check(walk: Walk, kinds: Container[str], *, fix: bool, advance: Advance) -> Iterator[Finding]:
    """What is wrong with the sessions after `walk.last`, which moves on with each page."""
    while True:
        with unhurried():
            page = page_after(walk.last)
        for pk in page.suspects(kinds):
            yield from examined(pk, kinds, fix=fix)
        walk.sessions += len(page.sessions)
        walk.messages += sum(counts["rows"] for counts in page.counts.values())
        times = [walk.oldest, *(counts["oldest"] for counts in page.counts.values())]
        walk.oldest = min(filter(None, times), default=None)
        advance(len(page.sessions))
        if page.last is None:
            return
        walk.last = page.last


@contextmanager
def unhurried() -> Iterator[None]:
    """Statements inside may take as long as they need. On SQLite no transaction, which would keep writers out."""
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic():
        usage.take_time()
        yield


# Reading


def page_after(after: int) -> Page:
    found = list(rows_of(Session.objects.filter(pk__gt=after))[:SESSIONS_AT_ONCE])
    last = found[-1]["pk"] if len(found) == SESSIONS_AT_ONCE else None
    messages = 0
    for place, row in enumerate(found, 1):
        messages += max(row["last_position"], 0)
        if messages > MESSAGES_AT_ONCE and place < len(found):
            found, last = found[:place], row["pk"]
            break
    return page_between(after, last, found)


def page_between(after: int, last: int | None, sessions: list[Row]) -> Page:
    """It ends earlier where too many are named that are not there: memory is bounded, whatever is lost."""
    counts = list(counts_of(between(Message, after, last))[: 2 * SESSIONS_AT_ONCE])
    if len(counts) == 2 * SESSIONS_AT_ONCE:
        last = counts[-1]["session_id"]
        sessions = [row for row in sessions if row["pk"] <= last]
    turns: dict[int, list[Row]] = {}
    for turn in faulty_turns(between(Turn, after, last)):
        turns.setdefault(turn["session_id"], []).append(turn)
    return Page(
        last,
        {row["pk"]: row for row in sessions},
        {row["session_id"]: row for row in counts},
        turns,
        set(abandoned(between(Message, after, last)).values_list("session_id", flat=True)),
    )


def between(model: type[Any], after: int, last: int | None) -> QuerySet[Any]:
    rows: QuerySet[Any] = model._default_manager.filter(session_id__gt=after)
    return rows if last is None else rows.filter(session_id__lte=last)


def rows_of(sessions: QuerySet[Session]) -> QuerySet[Any]:
    """Numbers and times, and what is wrong with the rest. On SQLite a text may be none that can be read."""
    owners = User.objects.filter(pk=OuterRef("owner_id"))
    faults = contents.session_faults()
    return (
        sessions.order_by("pk")
        .annotate(
            public_id_of_owner=Subquery(owners.values("public_id")),
            has_workspace=Exists(Workspace.objects.filter(public_id=OuterRef("workspace_id"))),
            **flags(faults),
        )
        .values(*COLUMNS, "public_id_of_owner", "has_workspace", *flags(faults))
    )


def counts_of(messages: QuerySet[Message]) -> QuerySet[Any]:
    live = Q(deleted_at=None)
    return (
        messages.order_by("session_id")
        .values("session_id")
        .annotate(
            rows=Count("pk"),
            places=Count("position", distinct=True),
            first=Min("position"),
            last=Max("position"),
            live=Count("pk", filter=live),
            live_tokens=Sum("tokens", filter=live, default=0),
            lowest_version=Min("version"),
            version=Max("version"),
            oldest=Min("created_at"),
            newest=Max("created_at"),
            faulty=Count("pk", filter=contents.either(contents.message_faults())),
        )
    )


def flags(faults: Sequence[Fault]) -> dict[str, Any]:
    """Whether a row has each of these faults, by the names that `flag` gives them."""
    return {flag(fault): ExpressionWrapper(fault.condition, BooleanField()) for fault in faults}


def flag(fault: Fault) -> str:
    return f"is_wrong_{fault.name}"


def faulty_turns(turns: QuerySet[Turn]) -> QuerySet[Any]:
    """Those that have lost their worker, name a message that is not there, or have no such status."""
    there = Message.objects.filter(session=OuterRef("session"))
    lost = Q(status=Turn.Status.RUNNING, lease_until__lte=timezone.now() - PATIENCE)
    flagged = turns.annotate(
        has_lost_worker=ExpressionWrapper(lost, BooleanField()),
        is_unknown=ExpressionWrapper(~Q(status__in=Turn.Status.values), BooleanField()),
        is_whole=ExpressionWrapper(
            Exists(there.filter(position=OuterRef("question")))
            & Exists(there.filter(position=OuterRef("answer"))),
            BooleanField(),
        ),
    )
    wrong = Q(has_lost_worker=True) | Q(is_unknown=True) | Q(is_whole=False)
    return (
        flagged.filter(wrong)
        .order_by("pk")
        .values("pk", "session_id", "has_lost_worker", "is_unknown", "is_whole")
    )


def abandoned(messages: QuerySet[Message]) -> QuerySet[Message]:
    """Streaming, where no turn runs."""
    running = Turn.objects.running().filter(session=OuterRef("session"))
    return messages.filter(~Exists(running), status=Message.Status.STREAMING)


# One session


class Problem(NamedTuple):
    """A finding and what mends it: columns of the session, or of the message or turn that it names. `mark` is the
    time of a message whose day must be counted again."""

    finding: Finding
    columns: Values
    turn: int | None = None
    is_seen: bool = True
    mark: datetime | None = None


def examined(pk: int, kinds: Container[str], *, fix: bool) -> list[Finding]:
    """What is wrong with the session under its lock, mended where `fix` says so and it can be."""
    try:
        with transaction.atomic():
            usage.take_time()
            problems = [each for each in under_lock(pk).problems() if each.finding.kind in kinds]
            if fix:
                mend(pk, [each for each in problems if not each.finding.advice])
        if fix and any(each.finding.kind == "turns" and each.turn is None for each in problems):
            settle(pk)
    except Error as error:
        if not fix:
            raise
        return [failed(each, error) for each in examined(pk, kinds, fix=False)]
    found = [each.finding for each in problems]
    for finding in found:
        finding.is_mended = fix and not finding.advice
    return found


def failed(finding: Finding, error: Error) -> Finding:
    """Told of a session whose mend the database refused."""
    if not finding.advice:
        finding.advice = (
            f"It cannot be mended before the rest of this session ({described(error.__cause__ or error)})."
        )
    return finding


def under_lock(pk: int) -> Examination:
    lock = Session.objects.select_for_update(no_key=True).filter(pk=pk)
    if not lock.values_list("pk"):
        return Examination(pk, None, NOTHING, [], is_abandoned=False)
    return page_between(pk - 1, pk, list(rows_of(Session.objects.filter(pk=pk)))).of(pk)


def mend(pk: int, problems: Sequence[Problem]) -> None:
    """In the lock's transaction. Versions rise once, where clients see any of it."""
    columns: Values = {}
    for each in problems:
        if each.finding.message is None and each.turn is None:
            columns |= each.columns
    row = Session.objects.only("version").get(pk=pk) if problems else None
    if row is None:
        return
    if version := columns.pop("version", None):
        Session.objects.filter(pk=pk).update(version=version)
        row.version = version
    if any(each.is_seen for each in problems):
        services.write_session(row, **columns)
    elif columns:
        Session.objects.filter(pk=pk).update(**columns)
    seen = {"version": row.version, "updated_at": Greatest("updated_at", timezone.now())}
    for each in problems:
        if each.finding.message is not None:
            values = {**each.columns, **(seen if each.is_seen else {})}
            Message.objects.filter(session=pk, pk=each.finding.message).update(**values)
        elif each.turn is not None:
            Turn.objects.filter(session=pk, pk=each.turn).update(**each.columns)
    usage.mark(each.mark for each in problems if each.mark)


def settle(pk: int) -> None:
    """In a transaction of its own, since it raises the version by itself."""
    with suppress(services.SessionGone), transaction.atomic():
        services.settle_lost(services.locked(Session(pk=pk)))


@dataclass
class Examination:
    """What is known of a session, and what is wrong with that. Of rows that name one which is not there, too."""

    pk: int
    session: Row | None
    counts: Row
    turns: list[Row]
    is_abandoned: bool

    def suspicions(self) -> Iterator[str]:
        """The kinds of what seems to be wrong, without a query."""
        if self.session is None:
            yield "orphans"
            return
        yield from (each.finding.kind for each in self.of_session())
        counts = self.counts
        if counts["places"] != counts["rows"] or self.positions_wrong:
            yield "positions"
        if counts["lowest_version"] < 1:
            yield "versions"
        if counts["faulty"]:
            yield "contents"
        if self.turns or self.is_abandoned:
            yield "turns"

    def problems(self) -> Iterator[Problem]:
        """All that is wrong, each message by its id."""
        if self.session is None:
            yield from self.leftovers()
            return
        yield from self.of_session()
        yield from self.of_positions()
        yield from self.of_versions()
        yield from self.of_turns()
        yield from self.of_contents()

    # The session's row

    def problem(self, kind: str, sentence: str, advice: str = "", **columns: Any) -> Problem:
        assert self.session is not None
        return Problem(Finding(kind, sentence, advice, self.session["session_id"]), columns)

    def of_session(self) -> Iterator[Problem]:
        yield from self.of_owner()
        yield from self.of_counters()
        yield from self.of_times()
        for fault in contents.session_faults():
            if self.session and self.session[flag(fault)]:
                yield self.of_fault(fault, None)

    def of_owner(self) -> Iterator[Problem]:
        assert self.session is not None
        owner = self.session["public_id_of_owner"]
        if owner is None:
            yield self.problem("orphans", "Its owner is not there.", NO_OWNER)
        elif owner != self.session["owner_public_id"]:
            yield self.problem("orphans", "Its owner has another public id.", owner_public_id=owner)
        if not self.session["has_workspace"]:
            yield self.problem("orphans", "Its workspace is not there.", NO_WORKSPACE)

    def of_counters(self) -> Iterator[Problem]:
        assert self.session is not None
        row, counts = self.session, self.counts
        for name, counted, what in (
            ("message_count", counts["live"], "live messages"),
            ("tokens", counts["live_tokens"], "tokens of live messages"),
        ):
            if row[name] != counted:
                said = f"{name} is {row[name]}, and there are {counted} {what}."
                yield self.problem("counters", said, **{name: counted})
        if row["last_position"] < self.last:
            said = f"last_position is {row['last_position']}, and a message has {self.last}."
            yield self.problem("counters", said, last_position=self.last)
        if row["version"] < self.least_version:
            said = f"version is {row['version']}, and must be {self.least_version} at least."
            yield self.problem("versions", said, version=self.least_version)

    @property
    def last(self) -> int:
        return int(self.counts["last"])

    @property
    def least_version(self) -> int:
        return max(1, self.counts["version"])

    def of_times(self) -> Iterator[Problem]:
        """A message that is lost may have been the last one."""
        assert self.session is not None
        row = self.session
        created, activity, updated, deleted = (
            row[name] for name in ("created_at", "last_activity", "updated_at", "deleted_at")
        )
        added = max(created, self.counts["newest"] or created)
        if activity < added or (activity > added and not self.positions_wrong):
            activity = added
            yield self.problem("times", "last_activity is not that of the last message.", last_activity=added)
        if updated < max(added, activity):
            said = "updated_at is before the session was made, or before its last message."
            yield self.problem("times", said, updated_at=max(added, activity))
        now = timezone.now()
        if deleted and (deleted > now + SLACK or deleted < min(created, now) - SLACK):
            said = "deleted_at is before the session was made, or to come; a purge goes by it."
            yield self.problem("times", said, deleted_at=now)

    # Its messages and turns

    @property
    def messages(self) -> QuerySet[Message]:
        return Message.objects.filter(session=self.pk)

    def of_message(self, pk: int, kind: str, sentence: str, advice: str = "", **columns: Any) -> Problem:
        assert self.session is not None
        return Problem(Finding(kind, sentence, advice, self.session["session_id"], pk), columns)

    @property
    def given(self) -> int:
        """The highest position that was ever given, as far as anything says."""
        return max(self.session["last_position"] if self.session else 0, self.last)

    @property
    def positions_wrong(self) -> bool:
        """Whether one is not given, or has no message."""
        return self.counts["first"] < 1 or self.counts["places"] != self.given

    def of_positions(self) -> Iterator[Problem]:
        if self.counts["places"] != self.counts["rows"]:
            twice = self.messages.values("position").annotate(rows=Count("pk")).filter(rows__gt=1)
            places = twice.order_by("position").values_list("position", flat=True)[:MOST_NAMED]
            said = f"Several messages have the position {', '.join(map(str, places))}."
            yield self.problem("positions", said, TWICE)
        if not self.positions_wrong:
            return
        for pk in self.messages.filter(position__lt=1).order_by("pk").values_list("pk", flat=True):
            yield self.of_message(pk, "positions", "Its position is below 1.", contents.BY_HAND)
        if gaps := list(islice(self.gaps(), MOST_NAMED)):
            said = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in gaps)
            yield self.problem("positions", f"No message has the position {said}.", LOST_ROWS)

    def gaps(self) -> Iterator[tuple[int, int]]:
        """The first and last position of each gap, in order."""
        rows = self.messages.filter(position__gte=1)
        before = Window(Lag("position"), order_by="position")
        last = 0
        if first := rows.aggregate(first=Min("position"))["first"]:
            if first > 1:
                yield 1, first - 1
            jumps = rows.annotate(jump=F("position") - before).filter(jump__gt=1).order_by("position")
            for position, jump in jumps.values_list("position", "jump"):
                yield position - jump + 1, position - 1
            last = self.last
        if last < self.given:
            yield last + 1, self.given

    def of_versions(self) -> Iterator[Problem]:
        if self.counts["lowest_version"] < 1:
            for pk in self.messages.filter(version__lt=1).order_by("pk").values_list("pk", flat=True):
                yield self.of_message(pk, "versions", "Its version is below 1.")

    def of_turns(self) -> Iterator[Problem]:
        for turn in self.turns:
            if turn["has_lost_worker"]:
                lost = self.problem("turns", f"Turn {turn['pk']} runs, and has lost its worker.")
                yield lost._replace(is_seen=False)
            if turn["is_unknown"]:
                said = f"Turn {turn['pk']} has no such status."
                ended = {"status": Turn.Status.INTERRUPTED, "finished_at": timezone.now()}
                yield self.problem("turns", said)._replace(columns=ended, turn=turn["pk"], is_seen=False)
            if not turn["is_whole"]:
                said = f"Turn {turn['pk']} names a message that is not there."
                yield self.problem("turns", said, NO_MESSAGE)
        if self.is_abandoned:
            rows = abandoned(self.messages).order_by("pk").values_list("pk", "created_at")
            for pk, created_at in rows:
                found = self.of_message(
                    pk, "turns", "It is streaming, and no turn runs.", status=Message.Status.INTERRUPTED
                )
                yield found._replace(mark=created_at)

    def of_contents(self) -> Iterator[Problem]:
        faults = contents.message_faults()
        if not self.counts["faulty"]:
            return
        rows = self.messages.filter(contents.either(faults)).order_by("pk").annotate(**flags(faults))
        for row in rows.values("pk", *flags(faults)):
            for fault in faults:
                if row[flag(fault)]:
                    yield self.of_fault(fault, row["pk"])

    def of_fault(self, fault: Fault, message: int | None) -> Problem:
        assert self.session is not None
        columns = fault.values
        if fault.name in contents.OF_METADATA:
            row: QuerySet[Any] = (
                self.messages.filter(pk=message) if message else Session.objects.filter(pk=self.pk)
            )
            stored = row.annotate(text=Cast("metadata", TextField())).values_list("text", flat=True)[0]
            columns = contents.mended_metadata(stored)
        advice = "" if columns is not None else fault.advice
        finding = Finding("contents", fault.sentence, advice, self.session["session_id"], message)
        return Problem(finding, columns or {}, is_seen=fault.is_seen)

    # What is left of one that is not there

    def leftovers(self) -> Iterator[Problem]:
        """Asked in one statement each: a session may just have been made, or purged."""
        gone = ~Exists(Session.objects.filter(pk=OuterRef("session_id")))
        for model, what in ((Message, "messages"), (Turn, "turns")):
            left = model._default_manager.filter(gone, session_id=self.pk).count()
            if left:
                said = f"{left} {what} name the session {self.pk}, which is not there."
                yield Problem(Finding("orphans", said, NO_SESSION), {})
