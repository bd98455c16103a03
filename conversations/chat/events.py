"""The live events of one session (contract 5), for one watcher.

What has changed is read from the rows by their versions, whoever changed them; the text of a running reply comes
from the turn where it runs in this process, and as far as it is saved where it does not. The id of an event is the
session's version, and within a running text also how much of it was sent: `12` or `12:340`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from django.db import connections

from chatstore.http.times import wire_time
from conversations.chat.feed import FEED, Watcher
from conversations.chat.keeper import KEEPER
from conversations.chat.sse import frame
from conversations.chat.stored import operations_of, rows_of
from conversations.models import Message, Session, Turn
from conversations.shapes import MESSAGE_COLUMNS, SESSION_COLUMNS, message_shape, session_shape

EVENT_ID = re.compile(r"([0-9]{1,18})(?::([0-9]{1,18}))?")


class Place(NamedTuple):
    """Up to where somebody has read: a version, and characters of the text that was running then."""

    version: int
    offset: int = 0


def place_of(text: str) -> Place | None:
    """What a `Last-Event-ID` says; None for one that is not ours."""
    found = EVENT_ID.fullmatch(text)
    return Place(int(found[1]), int(found[2] or 0)) if found else None


class Events:
    """What one watcher is sent, from `place` on; without one from now on, with a running reply from its beginning.

    An event may come twice after a reconnect, and none is left out: a client keeps messages by their ids.
    """

    def __init__(self, session: Session, watcher: Watcher, place: Place | None) -> None:
        if place and place.version > session.version:
            place = None  # Of another database, or of a backup's future.
        self.session, self.watcher, self.place = session, watcher, place
        self.version = self.session_version = session.version if place is None else place.version
        self.offset = place.offset if place else 0
        self.highest = 0  # The highest position that was sent, or there before.
        self.row: dict[str, Any] | None = None  # Whose text is running.
        self.tools: set[int] = set()  # Markers of tools that run.
        self.turn_over = 0  # The question of the last turn whose end was sent, or was there before.
        self.is_over = False

    def frames(self, heartbeat: float) -> Iterator[bytes]:
        FEED.add(self.watcher)
        try:
            self.catch_up()
            yield from self.news()
            while not self.is_over and not self.watcher.has_ended:
                woken = self.watcher.woken.wait(heartbeat)
                self.watcher.woken.clear()
                if self.watcher.has_ended:
                    return
                yield from self.news() if woken else (b"",)
        finally:
            FEED.remove(self.watcher)

    def catch_up(self) -> None:
        """Where `place` was: what had been sent by then, and the reply that is being written."""
        before = Message.objects.filter(session=self.session, version__lte=self.version)
        self.highest = before.order_by("-position").values_list("position", flat=True).first() or 0
        running = before.filter(status=Message.Status.STREAMING, role=Message.Role.ASSISTANT)
        self.row = running.values(*MESSAGE_COLUMNS).first()
        tools = before.filter(status=Message.Status.STREAMING, role=Message.Role.TOOL_CALL)
        self.tools = set(tools.values_list("pk", flat=True))
        turns = Turn.objects.filter(session=self.session).exclude(status=Turn.Status.RUNNING)
        last = turns.order_by("-question").first()
        if last and not (self.place and self.may_have_missed(last)):
            self.turn_over = last.question

    def may_have_missed(self, turn: Turn) -> bool:
        answer = Message.objects.filter(session=self.session, position=turn.answer)
        return answer.filter(version__gte=self.version).exists()

    def news(self) -> Iterator[bytes]:
        if self.watcher.is_stale:
            self.watcher.is_stale = False
            yield from self.changes()
        yield from self.more_text()

    def changes(self) -> Iterator[bytes]:
        """What the database has that was not sent: rows, the session, the end of a turn. The session and the turn
        are read first: what they count is in the rows, then."""
        session = Session.objects.filter(pk=self.session.pk).values(*SESSION_COLUMNS).first()
        turn = self.last_turn()
        changed = Message.objects.filter(session=self.session, version__gt=self.version)
        rows = list(changed.order_by("version", "position").values(*MESSAGE_COLUMNS))
        tools = any(row["role"] == Message.Role.TOOL_CALL for row in rows)
        writer = self.last_turn() if tools else None  # Read after the rows: it knows of them.
        self.reread()
        connections.close_all()
        for row, following in pairwise([*rows, None]):
            yield from self.changed(row)
            is_new, self.highest = row["position"] > self.highest, max(self.highest, row["position"])
            if following is None or following["version"] > row["version"]:
                self.version = row["version"]  # Not before all rows of a version are sent.
            yield self.named(row, is_new)
            yield from self.of_tool(row, is_new, writer)
        yield from self.of_session(session)
        yield from self.end_of(turn)

    def last_turn(self) -> Turn | None:
        return Turn.objects.filter(session=self.session).order_by("-question").first()

    def of_session(self, session: dict[str, Any] | None) -> Iterator[bytes]:
        if session is None or session["deleted_at"]:
            self.is_over = True
            yield self.event(
                "session_deleted", {"id": self.session.pk, "session_id": str(self.session.session_id)}
            )
        elif session["version"] > self.session_version:
            self.session_version = session["version"]
            self.version = max(self.version, session["version"])
            yield self.event("session_updated", session_shape(session))

    def reread(self) -> None:
        """The saved text of a reply that is written in another process."""
        if self.row and not KEEPER.in_session(self.session.pk):
            self.row = (
                Message.objects.filter(session=self.session, pk=self.row["id"]).values(*MESSAGE_COLUMNS).first()
            )

    # Messages

    def changed(self, row: dict[str, Any]) -> Iterator[bytes]:
        """The rest of a text whose row has changed; and whether its text runs from now on."""
        if self.row and self.row["id"] == row["id"]:
            yield from self.text_up_to(row["content"])
            self.row = None
        if row["role"] == Message.Role.ASSISTANT and row["status"] == Message.Status.STREAMING:
            self.row, self.offset = row, 0

    def named(self, row: dict[str, Any], is_new: bool) -> bytes:
        shape = message_shape({**row, "session__session_id": self.session.session_id})
        if row["deleted_at"]:
            return self.event("message_deleted", shape)
        if self.row is row:
            shape["content"] = ""  # It comes as text_delta.
        return self.event("message_created" if is_new else "message_updated", shape)

    def of_tool(self, row: dict[str, Any], is_new: bool, turn: Turn | None) -> Iterator[bytes]:
        """A marker that a turn has just made or completed, not one that somebody else added or changed."""
        is_of_turn = turn is not None and turn.question < row["position"] <= turn.answer
        if row["role"] != Message.Role.TOOL_CALL or row["deleted_at"] or not is_of_turn:
            return
        said = {"tool_name": row["tool_name"] or "", "message_id": row["id"]}
        if is_new:
            self.tools.add(row["id"])
            yield self.event("tool_call_started", {**said, "timestamp": wire_time(row["created_at"])})
        if row["id"] in self.tools and row["status"] == Message.Status.COMPLETE:
            self.tools.discard(row["id"])
            yield self.event("tool_call_completed", {**said, "timestamp": wire_time(row["updated_at"])})

    # The text of a running reply, and its end

    def more_text(self) -> Iterator[bytes]:
        if self.row is None:
            return
        here = KEEPER.in_session(self.session.pk)
        if here is None:
            yield from self.text_up_to(self.row["content"])
        elif here.row_id == self.row["id"]:
            yield from self.text_up_to(here.text)

    def text_up_to(self, text: str) -> Iterator[bytes]:
        if self.row and (more := text[self.offset :]):
            self.offset = len(text)
            yield self.event("text_delta", {"content": more, "message_id": self.row["id"]})

    def end_of(self, turn: Turn | None) -> Iterator[bytes]:
        if turn is None or turn.question <= self.turn_over:
            return
        if turn.status != Turn.Status.RUNNING or turn.is_lost:
            self.turn_over = turn.question
            status = Turn.Status.INTERRUPTED.value if turn.is_lost else turn.status
            operations = operations_of(rows_of(turn))
            ended = {"conversation_id": self.session.pk, "status": status, "operations": operations}
            yield self.event("done", ended)

    def event(self, name: str, data: dict[str, Any]) -> bytes:
        running = f":{self.offset}" if self.row and self.offset else ""
        return frame({"type": name, **data}, name, f"{self.version}{running}")
