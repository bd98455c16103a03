"""The lines of sessions, messages and turns. A transaction holds whole sessions, with exact counters.

A session that is here and differs stays as it is, with its messages: two histories are not mixed. To one that is
the same the messages are added that are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import Model

from conversations import bulk, usage
from conversations.models import Message, Session, Turn
from conversations.services import same_json
from conversations.transfer.lines import FIELDS, Line, places_of
from conversations.transfer.people import Known, take_turn
from conversations.transfer.report import Report

# What a transaction holds, and what is in memory of a longer session: so many messages of a kilobyte.
PIECE: Final = 6_000

SESSION: Final = places_of("session")
MESSAGE: Final = places_of("message")
TURN: Final = places_of("turn")
COUNTERS: Final = ("message_count", "tokens")
SESSION_COLUMNS: Final = (*FIELDS["session"], "owner_public_id")
MESSAGE_COLUMNS: Final = tuple(FIELDS["message"])
TURN_COLUMNS: Final = (*FIELDS["turn"], "worker", "lease_until")

Values = tuple[Any, ...]


@dataclass(slots=True)
class Target:
    """A session of the file, with its counters so far; `stored` are those that its row has.

    Without a `pk` it is not taken, nor what follows it.
    """

    line: Line
    pk: int | None
    is_new: bool
    position: int = 0
    count: int = 0
    tokens: int = 0
    stored: tuple[int, int] = (0, 0)

    @property
    def session_id(self) -> UUID:
        found: UUID = self.line.values[SESSION["session_id"]]
        return found

    @property
    def said(self) -> tuple[int, int]:
        """Its counters as the line has them."""
        return self.line.values[SESSION["message_count"]], self.line.values[SESSION["tokens"]]


class Row(NamedTuple):
    """A line to be inserted as these values, or found as that."""

    line: Line
    target: Target
    values: Values

    @property
    def key(self) -> tuple[int | None, int]:
        """The session here, and where it is in it."""
        places = {"message": MESSAGE["position"], "turn": TURN["question"]}
        return self.target.pk, self.values[places[self.line.kind]]


# What goes together


def batches(lines: Iterable[Line]) -> Iterator[Iterator[Line]]:
    """The lines in parts that begin with a session; each is to be read to its end before the next."""
    for _, batch in groupby(lines, key=Numbering()):
        yield batch


class Numbering:
    """The number of a line's batch. None holds a session twice."""

    def __init__(self) -> None:
        self.number = self.weight = 0
        self.sessions: set[UUID] = set()

    def __call__(self, line: Line) -> int:
        if line.kind == "session":
            session = line.values[SESSION["session_id"]]
            if self.weight >= PIECE or session in self.sessions:
                self.number, self.weight, self.sessions = self.number + 1, 0, set()
            self.sessions.add(session)
        self.weight += line.weight
        return self.number


def pieces(batch: Iterator[Line]) -> Iterator[list[Line]]:
    piece: list[Line] = []
    size = 0
    for line in batch:
        piece.append(line)
        size += line.weight
        if size >= PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


# Loading


@transaction.atomic
def load(batch: Iterator[Line], known: Known, report: Report) -> int:
    """Bring in what is missing of a batch; how many lines it had."""
    take_turn()
    targets: list[Target] = []
    read = 0
    for piece in pieces(batch):
        load_piece(piece, targets, known, report)
        read += len(piece)
    for target in targets:
        settle(target, report)
    return read


def load_piece(piece: Sequence[Line], targets: list[Target], known: Known, report: Report) -> None:
    """`targets` are the sessions so far, of which the last one goes on here."""
    opened = open_sessions([line for line in piece if line.kind == "session"], known, report)
    rows: dict[str, list[Row]] = {"message": [], "turn": []}
    for line in piece:
        if line.kind == "session":
            targets.append(opened[line.number])
        elif row := row_of(line, targets[-1] if targets else None, report):
            rows[line.kind].append(row)
    load_messages(missing(Message, "position", rows["message"], report), report)
    load_turns(missing(Turn, "question", rows["turn"], report), report)


def row_of(line: Line, target: Target | None, report: Report) -> Row | None:
    """What the line becomes in this session; None where it cannot."""
    place = MESSAGE["session"] if line.kind == "message" else TURN["session"]
    if target is None or line.values[place] != target.session_id:
        report.refuse(line.number, f"the session of this {line.kind} does not stand before it")
    elif target.pk is None:
        report.left_out += 1
    elif wrong := fault_of_message(line, target) if line.kind == "message" else fault_of_turn(line, target):
        report.refuse(line.number, wrong)
    else:
        return Row(line, target, (*line.values[:place], target.pk, *line.values[place + 1 :]))
    return None


def fault_of_message(line: Line, target: Target) -> str:
    position, session = line.values[MESSAGE["position"]], target.line.values
    if position <= target.position:
        return "position must be higher than that of the message before"
    if position > session[SESSION["last_position"]]:
        return "position is beyond the session's last_position"
    if line.values[MESSAGE["version"]] > session[SESSION["version"]]:
        return "version is beyond the session's"
    if line.values[MESSAGE["created_at"]] > session[SESSION["updated_at"]]:
        return "created_at is after the session's updated_at"
    target.position = position
    return ""


def fault_of_turn(line: Line, target: Target) -> str:
    beyond = line.values[TURN["answer"]] > target.line.values[SESSION["last_position"]]
    return "answer is beyond the session's last_position" if beyond else ""


# Sessions


def open_sessions(lines: Sequence[Line], known: Known, report: Report) -> dict[int, Target]:
    """The sessions of these lines by the lines' numbers, those that are missing made. Others are locked."""
    ids = [line.values[SESSION["session_id"]] for line in lines]
    locked = Session.objects.select_for_update(no_key=True).filter(session_id__in=ids).order_by("pk")
    here = {session.session_id: session for session in locked}
    owners = known.users_here({line.values[SESSION["owner"]] for line in lines})
    workspaces = known.workspaces_here({line.values[SESSION["workspace"]] for line in lines})
    targets = {}
    new, rows = [], []
    for line in lines:
        fields = line.fields
        target = targets[line.number] = Target(line, None, is_new=True)
        owner, workspace = owners.get(fields["owner"]), workspaces.get(fields["workspace"])
        if owner is None or workspace is None:
            report.refuse(line.number, f"the {'workspace' if owner else 'owner'} of this session is not here")
            continue
        wanted = {**fields, "owner": owner.pk, "workspace": workspace, "owner_public_id": owner.public_id}
        if session := here.get(fields["session_id"]):
            compare_session(target, session, wanted, report)
        else:
            new.append(target)
            rows.append(tuple(wanted[name] for name in SESSION_COLUMNS))
    insert_sessions(new, rows, report)
    return targets


def compare_session(target: Target, session: Session, wanted: dict[str, Any], report: Report) -> None:
    here = {**vars(session), "owner": session.owner_id, "workspace": session.workspace_id}
    names = [name for name in SESSION_COLUMNS if name not in COUNTERS and not same_json(here[name], wanted[name])]
    target.is_new = False
    if names:
        report.differs(target.line.number, f"session {session.session_id}", names)
    else:
        target.pk = session.pk
        target.count, target.tokens = target.stored = session.message_count, session.tokens
        report.there["session"] += 1


def insert_sessions(new: Sequence[Target], rows: Sequence[Values], report: Report) -> None:
    refused = bulk.insert_what_fits(Session, SESSION_COLUMNS, rows)
    for place, constraint in refused:
        report.broke(new[place].line.number, constraint)
    taken = {target.session_id for target in new} - {new[place].session_id for place, _ in refused}
    keys = dict(Session.objects.filter(session_id__in=taken).values_list("session_id", "pk"))
    for target in new:
        target.pk, target.stored = keys.get(target.session_id), target.said
    report.added["session"] += len(taken)


def settle(target: Target, report: Report) -> None:
    """Counters are what the messages say, whatever the file does."""
    if target.pk is None:
        return
    counted = (target.count, target.tokens)
    if counted != target.stored:
        Session.objects.filter(pk=target.pk).update(message_count=target.count, tokens=target.tokens)
    if counted != target.said:
        what = (
            f"message_count and tokens of session {target.session_id} are not those of its messages, which count"
        )
        report.refuse(target.line.number, what)


# Messages and turns


def missing(model: type[Model], key: str, rows: Sequence[Row], report: Report) -> list[Row]:
    """Those of the rows that are not here; the others are compared. A session that is new is not looked into."""
    asked = {row.key: row for row in rows if not row.target.is_new}
    if not asked:
        return list(rows)
    places = [place for _, place in asked]
    columns = tuple(FIELDS[rows[0].line.kind])
    stored = model._default_manager.filter(
        session__in={row.target.pk for row in asked.values()}, **{f"{key}__range": (min(places), max(places))}
    )
    here = set()
    session, place = columns.index("session"), columns.index(key)
    for values in bulk.read(stored.values_list(*columns)):
        if row := asked.get((values[session], values[place])):
            here.add(row.key)
            compare(row, columns, values, report)
    return [row for row in rows if row.target.is_new or row.key not in here]


def compare(row: Row, columns: Sequence[str], here: Values, report: Report) -> None:
    pairs = zip(columns, here, row.values, strict=True)
    names = [name for name, value, wanted in pairs if value is not wanted and not same(value, wanted)]
    if names:
        what = f"{row.line.kind} {row.key[1]} of session {row.target.session_id}"
        report.differs(row.line.number, what, names)
    else:
        report.there[row.line.kind] += 1


def same(value: Any, wanted: Any) -> bool:
    """Whether two values of a column are equal. Inside JSON, 1 and true are not."""
    return same_json(value, wanted) if type(value) is dict else bool(value == wanted)


def load_messages(rows: Sequence[Row], report: Report) -> None:
    refused = inserted(Message, MESSAGE_COLUMNS, rows, [row.values for row in rows], report)
    taken = [row for place, row in enumerate(rows) if place not in refused]
    for row in taken:
        if row.values[MESSAGE["deleted_at"]] is None:
            row.target.count += 1
            row.target.tokens += row.values[MESSAGE["tokens"]]
    usage.mark({at.date(): at for at in (row.values[MESSAGE["created_at"]] for row in taken)}.values())


def load_turns(rows: Sequence[Row], report: Report) -> None:
    """They are over: no worker has them."""
    started, finished = TURN["started_at"], TURN["finished_at"]
    values = [(*row.values, "", row.values[finished] or row.values[started]) for row in rows]
    inserted(Turn, TURN_COLUMNS, rows, values, report)


def inserted(
    model: type[Model], columns: Sequence[str], rows: Sequence[Row], values: Sequence[Values], report: Report
) -> set[int]:
    """Insert the values; the places of the rows that were refused."""
    refused = bulk.insert_what_fits(model, columns, values)
    for place, constraint in refused:
        report.broke(rows[place].line.number, constraint)
    if rows:
        report.added[rows[0].line.kind] += len(rows) - len(refused)
    return {place for place, _ in refused}
