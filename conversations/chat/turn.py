"""A turn: a user's message, and what the assistant makes of it. It belongs to the server: it runs in a thread of
its own, is stored as it goes, and whoever watches only reads it. No HTTP here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import structlog
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from chatstore.http.fields import UNSTORABLE
from chatstore.http.times import wire_time
from conversations import services
from conversations.chat import records
from conversations.chat.assistants import (
    Asked,
    Assistant,
    Event,
    MessageCreated,
    TextDelta,
    ToolCallCompleted,
    ToolCallStarted,
)
from conversations.chat.feed import FEED
from conversations.models import Message, Turn

# Shorter than the lease: who waits for the database still holds the turn afterwards.
PATIENCE_SECONDS: Final = 10
MAX_TOKENS: Final = 2**31 - 1
LAST = ("done", "error")
Told = dict[str, Any]
T = TypeVar("T")

log = structlog.get_logger("chatstore.chat")


class RunningTurn:
    """A turn that runs in this process. `events` are the contract's (section 4); the last is done or error."""

    def __init__(self, turn: Turn, assistant: Assistant, asked: Asked) -> None:
        self.turn, self.assistant, self.asked = turn, assistant, asked
        self.events: list[Told] = []
        self.watching: list[SimpleQueue[None]] = []
        self.is_over = threading.Event()
        self.writing = threading.RLock()
        self.status: str | None = None
        self.row: Message | None = None
        self.is_new_row = self.is_ending = False
        self.text = ""
        self.markers: dict[str, Message] = {}
        self.operations: dict[str, dict[str, str]] = {}
        self.trace_id: str | None = None

    def start(self) -> None:
        threading.Thread(target=self.run, name=f"turn {self.turn.pk}", daemon=True).start()

    # What the assistant does

    def run(self) -> None:
        status = Turn.Status.FAILED
        try:
            for event in self.assistant.reply(self.asked):
                if not self.take(event):
                    break
            status = Turn.Status.COMPLETE
        except (records.TurnLost, services.SessionGone):
            status = Turn.Status.INTERRUPTED
        except (Exception, SystemExit) as error:  # An operator's assistant's; its words may be anybody's.
            log.error("the assistant failed", turn=self.turn.pk, error=type(error).__qualname__)
        finally:
            self.end(status)
            connection.close()

    def take(self, event: Event) -> bool:
        """Store one event and tell it; False where the turn is over."""
        with self.writing:
            if self.status is None:
                if event.trace_id and self.trace_id is None:
                    self.know_trace(storable(event.trace_id)[:255])
                HANDLERS[type(event)](self, event)
            return self.status is None

    def know_trace(self, trace_id: str) -> None:
        """The first one counts for the whole turn, the user's message included."""
        self.trace_id = trace_id
        written(lambda: records.trace_question(self.turn, trace_id))

    def on_text(self, event: TextDelta) -> None:
        said = storable(event.content)
        if not said:
            return
        self.text += said
        if self.row is None:
            fields = {"role": Message.Role.ASSISTANT, "content": said, "trace_id": self.trace_id}
            self.row = written(lambda: records.add_row(self.turn, **fields))
            self.is_new_row = True
        self.tell(type="text_delta", content=said)

    def on_message(self, event: MessageCreated) -> None:
        if not 0 <= event.tokens <= MAX_TOKENS:
            raise ValueError("tokens out of range")  # SQLite would store them.
        self.complete_text(tokens=event.tokens, **spanned(event.span_id))

    def complete_text(self, **fields: Any) -> None:
        row, text = self.row, self.text
        if row is None:
            return
        whole = {"content": text, "trace_id": self.trace_id, **fields}
        written(lambda: records.complete_row(self.turn, row, **whole))
        self.row, self.text = None, ""
        self.tell(type="message_created", role=row.role, content=text, message_id=row.pk, timestamp=now())

    def on_tool(self, event: ToolCallStarted) -> None:
        self.complete_text()
        name = storable(event.tool_name)[:255]
        fields = {"tool_name": name, "trace_id": self.trace_id, **spanned(event.span_id)}
        marker = {"role": Message.Role.TOOL_CALL, "content": f"Called {name}", **fields}
        self.markers[event.call_id] = written(lambda: records.add_row(self.turn, **marker))
        self.operations[event.call_id] = {"tool_name": name, "status": "running", "details": ""}
        self.tell(type="tool_call_started", tool_name=name, timestamp=now())

    def on_tool_done(self, event: ToolCallCompleted) -> None:
        marker = self.markers.pop(event.call_id, None)
        if marker is None:
            return
        fields = {"trace_id": self.trace_id, **spanned(event.span_id)}
        written(lambda: records.complete_row(self.turn, marker, **fields))
        operation, summary = self.operations[event.call_id], storable(event.summary)
        operation |= {"status": "completed", "details": summary}
        name = operation["tool_name"]
        self.tell(type="tool_call_completed", tool_name=name, result_summary=summary, timestamp=now())

    # The end

    def end(self, status: str) -> None:
        """The turn's end; whoever comes first says which. What was produced is kept."""
        with self.writing:
            if self.status is None:
                self.status = self.stored_end(status)
                self.tell_end()
                self.is_over.set()

    def interrupt(self) -> None:
        """From another thread than the turn's: its assistant may be silent."""
        self.end(Turn.Status.INTERRUPTED)
        connection.close()

    def interrupt_soon(self) -> None:
        """Without waiting for a write of the turn that is under way."""
        if not self.is_ending:
            self.is_ending = True
            threading.Thread(target=self.interrupt, name=f"end of turn {self.turn.pk}", daemon=True).start()

    def stored_end(self, status: str) -> str:
        try:
            if status == Turn.Status.COMPLETE:
                self.complete_text()
            texts = {self.row.pk: self.text} if self.row else {}
            written(lambda: records.finish(self.turn, status, texts, self.trace_id))
        except Exception as error:  # Others have settled it, or will when its lease is over.
            log.error("the end of a turn is not stored", turn=self.turn.pk, error=type(error).__qualname__)
            return Turn.Status.INTERRUPTED
        return status

    def tell_end(self) -> None:
        for operation in self.operations.values():
            if operation["status"] == "running":
                operation["status"] = "interrupted"
        if self.status == Turn.Status.COMPLETE:
            operations = list(self.operations.values())
            self.tell(type="done", conversation_id=self.turn.session_id, operations=operations)
        else:
            self.tell(type="error", detail=DETAILS[str(self.status)])

    # Whoever watches

    def tell(self, **event: Any) -> None:
        self.events.append(event)
        for woken in tuple(self.watching):
            woken.put(None)
        FEED.touch(self.turn.session_id, stale=event["type"] != "text_delta" or self.is_new_row)
        self.is_new_row = False

    def watch(self, heartbeat: float) -> Iterator[list[Told]]:
        """Every event from the first to the last, those together that have come meanwhile; an empty list where
        `heartbeat` seconds brought none."""
        woken: SimpleQueue[None] = SimpleQueue()  # A Condition costs about a sixth more an event.
        self.watching.append(woken)
        seen = 0
        try:
            while not seen or self.events[seen - 1]["type"] not in LAST:
                if fresh := self.events[seen:]:
                    seen += len(fresh)
                    yield fresh
                elif not has_come(woken, heartbeat):
                    yield []
        finally:
            self.watching.remove(woken)

    @property
    def running(self) -> records.Running:
        """Read without the lock, which a write may hold for long: a row completed meanwhile is not saved."""
        row, text = self.row, self.text
        return records.Running(self.turn.pk, self.turn.session_id, row.pk if row else None, text)


HANDLERS: dict[type[Any], Callable[[RunningTurn, Any], None]] = {
    TextDelta: RunningTurn.on_text,
    MessageCreated: RunningTurn.on_message,
    ToolCallStarted: RunningTurn.on_tool,
    ToolCallCompleted: RunningTurn.on_tool_done,
}
DETAILS = {
    Turn.Status.FAILED.value: "The assistant failed.",
    Turn.Status.INTERRUPTED.value: "The reply was interrupted.",
}


def has_come(woken: SimpleQueue[None], seconds: float) -> bool:
    try:
        woken.get(timeout=seconds)
    except Empty:
        return False
    return True


def now() -> str:
    return wire_time(timezone.now())


def storable(said: str) -> str:
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", said)


def spanned(span_id: str | None) -> dict[str, str]:
    return {"span_id": storable(span_id)[:255]} if span_id else {}


def written(write: Callable[[], T]) -> T:
    """What `write` returns; tried again for a while where the database is away or busy. The connection goes back
    at once: an assistant can be silent for long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        finally:
            connection.close()
