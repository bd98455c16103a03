"""The live events of one session (contract 5), for one watcher.

What has changed is read from the rows by their versions, whoever changed them; the text of a running reply comes
from the turn where it runs in this process, and from the feed, as far as it is saved, where it does not. The id of
an event is the session's version, and within a running text also how much of it was sent: `12` or `12:340`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

from django.db import connections

from chatstore.http.times import wire_time
from conversations.chat.feed import FEED, Watcher, Wish
from conversations.chat.keeper import KEEPER
from conversations.chat.sse import frame
from conversations.chat.stored import operations_of
from conversations.models import Message, Session, Turn
from conversations.shapes import MESSAGE_COLUMNS, SESSION_COLUMNS, message_shape, session_shape

EVENT_ID = re.compile(r"([0-9]{1,18})(?::([0-9]{1,18}))?")
SLICE: Final = 500  # As many changed rows are in memory at once.
MARKER_COLUMNS: Final = ("position", "role", "tool_name", "status")

Row = dict[str, Any]
Named = tuple[str, dict[str, Any]]  # An event: its name, and what it says.


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
        self.session, self.watcher = session, watcher
        self.is_over = False
        self.is_back = place is not None  # Until all that came meanwhile is sent.
        self.turns: list[Turn] = []  # Whose end is not told yet, as last read.
        self.markers: list[Row] = []  # Of the tools that they have called.
        begun = Turn.objects.filter(session=session).order_by("-question").values_list("question", flat=True)
        # Before the version is read, which so holds all rows of that turn.
        over = begun.exclude(status=Turn.Status.RUNNING).first() or 0
        newest = Session.objects.filter(pk=session.pk).values_list("version", flat=True).first() or 0
        if place and place.version > newest:
            place = Place(0)  # Of another database, or of a backup's future: all there is, rather than silence.
        self.version = place.version if place else newest  # Up to it everything is sent.
        self.offset = place.offset if place else 0
        self.catch_up()
        # The session's own change and the end of a turn raise no row's version, so that a place does not tell
        # whether they arrived: whoever comes back is told the last ones again.
        self.session_version = 0 if place else newest
        known = begun.filter(question__lte=self.highest)
        self.turn_over: int = next(iter(known[1:2]), 0) if place else over  # Its question.

    def catch_up(self) -> None:
        """What had been sent by the version, and the reply and the tools that ran then and still do."""
        before = Message.objects.filter(session=self.session, version__lte=self.version)
        self.highest = before.order_by("-position").values_list("position", flat=True).first() or 0
        running = before.filter(status=Message.Status.STREAMING)
        texts = running.filter(role=Message.Role.ASSISTANT).values(*MESSAGE_COLUMNS)
        self.row: Row | None = texts.first()  # Whose text is running.
        # Markers of tools that run: positions by ids.
        self.tools = dict(running.filter(role=Message.Role.TOOL_CALL).values_list("pk", "position"))

    def frames(self, heartbeat: float) -> Iterator[bytes]:
        FEED.add(self.watcher)
        try:
            yield from self.news()
            while not self.is_over and not self.watcher.has_ended:
                woken = self.watcher.woken.wait(heartbeat)
                self.watcher.woken.clear()
                if self.watcher.has_ended:
                    return
                yield from self.news() if woken else (b"",)
        finally:
            FEED.remove(self.watcher)

    def news(self) -> Iterator[bytes]:
        if self.watcher.is_stale:
            self.watcher.is_stale = False
            yield from self.changes()
        yield from self.more_text()

    def changes(self) -> Iterator[bytes]:
        """What the database has that was not sent: rows, the session, the ends of turns. The session is read
        first: what it counts is in the rows, then.

        Versions do not follow the positions: a row is new where it comes after all that were known before any of
        these. The id goes up with the last event of a version, and where no new row before the highest is
        left to send, which would not look new to whoever comes back there. Rows that change after the session
        was read may come twice, and do not count for that."""
        session = Session.objects.filter(pk=self.session.pk).values(*SESSION_COLUMNS).first()
        newest = session["version"] if session else 0
        known, new = self.highest, 0
        for row, following in self.changed_rows():
            yield from self.ends_before(row["position"])
            is_new = row["position"] > known
            *first, last = self.of_row(row, is_new)
            yield from self.sent(first)
            self.highest = max(self.highest, row["position"])
            new += is_new and row["version"] <= newest
            is_last_of_version = following is None or following["version"] > row["version"]
            if following is None or (is_last_of_version and self.highest == known + new):
                self.version = row["version"]
            yield self.event(*last)
        self.is_back = False
        if not self.watcher.has_ended:
            yield from self.of_session(session)
            yield from self.last_ends()

    # From the database, whose connection goes back before anything is sent

    def changed_rows(self) -> Iterator[tuple[Row, Row | None]]:
        """Each row whose version is not sent yet, in the order of the versions, with the row after it. They are
        read in slices, which nobody is sent who may not watch any more."""
        changed = Message.objects.filter(session=self.session).order_by("version", "position")
        unread, is_last = changed.filter(version__gt=self.version), False
        while not is_last and not self.watcher.has_ended:
            rows: list[Row] = list(unread.values(*MESSAGE_COLUMNS)[: SLICE + 1])
            is_last = len(rows) <= SLICE
            self.read_turns(max([self.highest, *(row["position"] for row in rows)]))
            connections.close_all()
            yield from pairwise([*rows, None] if is_last else rows)
            if not is_last:
                version, position = rows[SLICE - 1]["version"], rows[SLICE - 1]["position"]
                unread = changed.filter(version__gte=version).exclude(version=version, position__lte=position)
            del rows  # Before the next ones are read.

    def read_turns(self, highest: int) -> None:
        """Those that begin up to this position, and the markers of those among them that have ended. Read after
        the rows: so they know whose the rows are."""
        turns = Turn.objects.filter(session=self.session, question__gt=self.turn_over, question__lte=highest)
        self.turns = list(turns.order_by("question"))
        if ended := [turn for turn in self.turns if turn.status != Turn.Status.RUNNING]:
            theirs = {"position__gt": ended[0].question, "position__lte": ended[-1].answer}
            markers = Message.objects.filter(session=self.session, role=Message.Role.TOOL_CALL, deleted_at=None)
            found = markers.filter(**theirs).order_by("position")
            self.markers = list(found.values(*MARKER_COLUMNS))

    # Messages and the session

    def of_row(self, row: Row, is_new: bool) -> Iterator[Named]:
        """The rest of a text whose row has changed, the row, and what a tool does."""
        if self.row and self.row["id"] == row["id"]:
            yield from self.text_up_to(row["content"])
            self.row = None
        if row["role"] == Message.Role.ASSISTANT and row["status"] == Message.Status.STREAMING:
            self.row, self.offset = row, 0
        yield self.named(row, is_new)
        if row["role"] == Message.Role.TOOL_CALL:
            yield from self.of_tool(row, is_new)

    def named(self, row: Row, is_new: bool) -> Named:
        shape = message_shape(row, self.session.session_id)
        if row["deleted_at"]:
            return "message_deleted", shape
        if self.row is row:
            shape["content"] = ""  # It comes as text_delta.
        return "message_created" if is_new else "message_updated", shape

    def of_tool(self, row: Row, is_new: bool) -> Iterator[Named]:
        """A marker that a turn has just made or completed, not one that somebody else added or changed; to whoever
        is back it is told again, since a changed marker does not say whether it was complete then."""
        ran = self.tools.pop(row["id"], None) is not None
        if row["deleted_at"] or not any(is_of(turn, row["position"]) for turn in self.turns):
            return
        said = {"tool_name": row["tool_name"] or "", "message_id": row["id"]}
        if is_new:
            yield "tool_call_started", {**said, "timestamp": wire_time(row["created_at"])}
        if row["status"] == Message.Status.STREAMING:
            self.tools[row["id"]] = row["position"]
        elif row["status"] == Message.Status.COMPLETE and (is_new or ran or self.is_back):
            yield "tool_call_completed", {**said, "timestamp": wire_time(row["updated_at"])}

    def of_session(self, session: Row | None) -> Iterator[bytes]:
        if session is None or session["deleted_at"]:
            self.is_over = True
            named = {"id": self.session.pk, "session_id": str(self.session.session_id)}
            yield self.event("session_deleted", named)
        elif session["version"] > self.session_version:
            self.session_version = session["version"]
            self.version = max(self.version, session["version"])
            yield self.event("session_updated", session_shape(session))

    # The text of a running reply

    def more_text(self) -> Iterator[bytes]:
        """From the turn in this process, or as the feed has read it, which is told what to read next."""
        self.watcher.wish, row = None, self.row
        if row is None:
            return
        here = KEEPER.in_session(self.session.pk)
        if here is None:
            saved: str = row["content"]
            yield from self.sent(self.text_up_to(self.watcher.texts.get(row["id"], saved)))
            self.watcher.wish = Wish(row["id"], self.offset)
        elif here.row_id == row["id"]:
            yield from self.sent(self.text_up_to(here.text))

    def text_up_to(self, text: str) -> Iterator[Named]:
        if self.row and (more := text[self.offset :]):
            self.offset = len(text)
            yield "text_delta", {"content": more, "message_id": self.row["id"]}

    # The ends of turns

    def ends_before(self, position: int) -> Iterator[bytes]:
        """Of the turns before the one that this row belongs to: they were over when it began."""
        for turn, following in pairwise(self.turns):
            if turn.question > self.turn_over and following.question <= position:
                yield self.end_of(turn)

    def last_ends(self) -> Iterator[bytes]:
        """Of the turns that are over, as far as all of their rows are sent as they are at their end."""
        running = [*self.tools.values(), *([self.row["position"]] if self.row else [])]
        for turn in self.turns:
            is_whole = turn.answer <= self.highest and not any(is_of(turn, position) for position in running)
            if turn.question > self.turn_over and turn.status != Turn.Status.RUNNING and is_whole:
                yield self.end_of(turn)

    def end_of(self, turn: Turn) -> bytes:
        self.turn_over = turn.question
        operations = operations_of([marker for marker in self.markers if is_of(turn, marker["position"])])
        ended = {"conversation_id": self.session.pk, "status": turn.status, "operations": operations}
        return self.event("done", ended)

    def sent(self, events: Iterable[Named]) -> Iterator[bytes]:
        return (self.event(*each) for each in events)

    def event(self, name: str, data: dict[str, Any]) -> bytes:
        running = f":{self.offset}" if self.row and self.offset else ""
        return frame({"type": name, **data}, name, f"{self.version}{running}")


def is_of(turn: Turn, position: int) -> bool:
    """Whether this is the place of a row that the turn has written, or that came between those."""
    return turn.question < position <= turn.answer
