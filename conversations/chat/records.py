"""What a turn writes. Each function is one transaction under the lock of the session (design 3.1, 3.6).

A turn is written by the worker that holds its lease. Each write of that worker asks first whether the turn still
runs for it: one that was settled by others meanwhile has nothing more to say (TurnLost).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

import structlog
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from chatstore.http.logs import described
from chatstore.ids import new_uuid
from chatstore.retries import Retry
from conversations import services
from conversations.models import Message, Session, Turn, TurnQuerySet

LEASE: Final = timedelta(seconds=15)
MOST_SETTLED: Final = 100

log = structlog.get_logger("chatstore.chat")


class TurnRunning(Exception):
    """A turn of this session runs already; `turn` is that one."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(turn.pk)
        self.turn = turn


class TurnLost(Exception):
    """The turn does not run any more, or not here."""


class Begun(NamedTuple):
    """A turn, the user's message in it, and whether they were made now."""

    turn: Turn
    said: Message
    is_new: bool


def worker_name() -> str:
    """Names this process: its host, its number, and a part that no later process repeats."""
    return f"{socket.gethostname()[:32]}:{os.getpid()}:{new_uuid().hex[-12:]}"


def begin(session: Session, content: str, worker: str, retry: Retry | None) -> Begun:
    """The user's message and its running turn, committed together; or those that this key made before.

    Raises TurnRunning, SessionGone, MessageGone, KeyReused.
    """
    with transaction.atomic():
        row = services.locked(session)
        if row.deleted_at:
            raise services.SessionGone
        if not retry or not services.made_by(session, retry).exists():
            make_room(row)
        (said,), is_new = services.append(session, [{"role": Message.Role.USER, "content": content}], retry)
        if not is_new:
            return Begun(turn_of(session, said), said, False)
        now = timezone.now()
        turn = Turn(session=session, question=said.position, answer=said.position, worker=worker, started_at=now)
        turn.lease_until = now + LEASE
        turn.save(force_insert=True)
    return Begun(turn, said, True)


def turn_of(session: Session, said: Message) -> Turn:
    """The turn that this message began. Its key may have been used to append it without one: KeyReused is told
    before, by the digest."""
    return Turn.objects.get(session=session, question=said.position)


def make_room(session: Session) -> None:
    """Settle a lost turn of the locked session. TurnRunning where one is alive."""
    turn = Turn.objects.running().filter(session=session).first()
    if turn and not turn.is_lost:
        raise TurnRunning(turn)
    if turn:
        services.end_turn(session, turn, Turn.Status.INTERRUPTED)


def trace_question(turn: Turn, trace_id: str) -> None:
    """The trace of the turn is the trace of the message that began it, unless that has one."""
    with transaction.atomic():
        session = services.locked(turn.session)
        still_held(turn, trace_id=trace_id)
        said = Message.objects.filter(session=session, position=turn.question, deleted_at=None, trace_id=None)
        if row := said.first():
            services.write_message(session, row, added_tokens=0, trace_id=trace_id)
    turn.trace_id = trace_id


def add_row(turn: Turn, **fields: Any) -> Message:
    """The turn's next row, streaming. Once more after a commit whose answer was lost: the row that it made."""
    try:
        with transaction.atomic():
            (row,), _ = services.append(turn.session, [{**fields, "status": Message.Status.STREAMING}])
            still_held(turn, answer=row.position)
    except TurnLost:
        row = added_unheard(turn)
    turn.answer = row.position
    return row


def added_unheard(turn: Turn) -> Message:
    """The row that was added last, where this worker did not hear of it. TurnLost where there is none."""
    answers = running_here(turn).exclude(answer=turn.answer).values("answer")
    row = Message.objects.filter(session=turn.session, position__in=answers).first()
    if row is None:
        raise TurnLost
    return row


def complete_row(turn: Turn, row: Message, **fields: Any) -> None:
    """A row of the turn gets its final state: content, tokens, span_id, trace_id. Once more changes nothing."""
    with transaction.atomic():
        session = services.locked(turn.session)
        still_held(turn)
        if Message.objects.filter(session=session, pk=row.pk, status=Message.Status.STREAMING).exists():
            added = fields.get("tokens", 0)
            services.write_message(session, row, added_tokens=added, status=Message.Status.COMPLETE, **fields)


def running_here(turn: Turn) -> TurnQuerySet:
    """The turn, if it still runs for the worker that began it."""
    return Turn.objects.running().filter(pk=turn.pk, worker=turn.worker)


def still_held(turn: Turn, **written: Any) -> None:
    """TurnLost unless the turn runs for the worker that began it, and is where that left it. Asked under the
    session's lock."""
    held = running_here(turn).filter(answer=turn.answer)
    if not held.update(lease_until=timezone.now() + LEASE, **written):
        raise TurnLost


def finish(turn: Turn, status: str, texts: Mapping[int, str], trace_id: str | None) -> None:
    """The end of a turn by the worker that holds it. `texts` are the whole texts of its open rows, by id. Once
    more changes nothing."""
    with transaction.atomic():
        session = services.locked(turn.session)
        for row_id, text in texts.items():
            Message.objects.filter(session=session, pk=row_id, status=Message.Status.STREAMING).update(
                content=text
            )
        if services.end_turn(session, turn, status, trace_id):
            return
        transaction.set_rollback(True)
    if not Turn.objects.filter(pk=turn.pk, worker=turn.worker, status=status).exists():
        raise TurnLost


def settle() -> int:
    """Write down as interrupted the turns whose worker is lost; returns how many they were. One that cannot be
    written now, since somebody holds a row of it, does not keep the others waiting."""
    lost = Turn.objects.lost().order_by("session_id").values_list("session_id", "pk")[:MOST_SETTLED]
    settled = 0
    for session_id, turn_id in list(lost):
        try:
            settled += settle_one(session_id, turn_id)
        except OperationalError as error:
            reason = described(error.__cause__ or error)
            log.warning("a lost turn cannot be settled now", turn=turn_id, error=reason)
    return settled


def settle_one(session_id: int, turn_id: int) -> bool:
    """Passes over a session that somebody else holds: it is settled there, or the next time."""
    skip_locked = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        rows = Session.objects.select_for_update(no_key=True, skip_locked=skip_locked).filter(pk=session_id)
        session = rows.first()
        turn = Turn.objects.lost().filter(pk=turn_id).first()
        if session is None or turn is None:
            return False
        services.end_turn(session, turn, Turn.Status.INTERRUPTED)
    return True


def ask_to_stop(session: Session) -> Turn | None:
    """Ask the worker of the running turn to stop; it sees that within a second. None where none runs."""
    turn = Turn.objects.running().filter(session=session).first()
    if turn is not None:
        Turn.objects.filter(pk=turn.pk, stop_requested_at=None).update(stop_requested_at=timezone.now())
    return turn


class Running(NamedTuple):
    """A turn that runs in this worker, with the text of its open row as it is now."""

    turn_id: int
    session_id: int
    row_id: int | None
    text: str


def save_texts(running: Sequence[Running]) -> None:
    """Write the running texts, all in one statement. Neither versions nor times move (design 3.2). A row that
    somebody holds, PostgreSQL passes over: the others do not wait for it, and it is written the next time."""
    rows = [each for each in running if each.row_id]
    if not rows:
        return
    table = connection.ops.quote_name(Message._meta.db_table)
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            sql = (
                "WITH free AS (SELECT m.session_id, m.id, said.content"  # noqa: S608
                " FROM unnest(%s::bigint[], %s::bigint[], %s::text[]) AS said (session_id, id, content)"
                f" JOIN {table} AS m ON m.session_id = said.session_id AND m.id = said.id"
                " WHERE m.status = %s FOR NO KEY UPDATE OF m SKIP LOCKED)"
                f" UPDATE {table} AS m SET content = free.content FROM free"
                " WHERE m.session_id = free.session_id AND m.id = free.id"
            )
            columns = ([r.session_id for r in rows], [r.row_id for r in rows], [r.text for r in rows])
            cursor.execute(sql, [*columns, Message.Status.STREAMING])
        else:
            sql = f"UPDATE {table} SET content = %s WHERE session_id = %s AND id = %s AND status = %s"  # noqa: S608
            cursor.executemany(sql, [(r.text, r.session_id, r.row_id, Message.Status.STREAMING) for r in rows])


def renew(running: Sequence[Running], worker: str) -> dict[int, bool]:
    """Renew the leases of these turns, in one statement; returns those that still run here, and whether somebody
    asked them to stop."""
    ours = Turn.objects.running().filter(pk__in=[each.turn_id for each in running], worker=worker)
    ours.update(lease_until=timezone.now() + LEASE)
    return {pk: bool(asked) for pk, asked in ours.values_list("pk", "stop_requested_at")}
