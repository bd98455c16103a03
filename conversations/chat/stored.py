"""A turn as the database has it: for whoever watches from another process, or comes back after its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.db import connection
from django.db.models import QuerySet

from chatstore.http.times import wire_time
from conversations.chat.assistants import Said
from conversations.chat.turn import DETAILS, Told
from conversations.models import Message, Session, Turn

POLL_SECONDS: Final = 0.5
MOST_OF_HISTORY: Final = 500
TIMES: Final = ("created_at", "updated_at")
COLUMNS: Final = (
    "id",
    "position",
    "role",
    "content",
    "tool_name",
    "metadata",
    "status",
    "created_at",
    "updated_at",
)
WORDS = {Message.Status.COMPLETE.value: "completed", Message.Status.STREAMING.value: "running"}


def history(session: Session, question: int) -> list[Said]:
    """What an assistant is told: the session's live messages up to the question, the newest MOST_OF_HISTORY,
    without markers of tool calls."""
    roles = (Message.Role.USER, Message.Role.ASSISTANT, Message.Role.SYSTEM)
    rows = live_messages(session).filter(position__lte=question, role__in=roles)
    newest = rows.order_by("-position").values_list("role", "content")[:MOST_OF_HISTORY]
    return [Said(role, content) for role, content in reversed(newest)]


def rows_of(turn: Turn) -> list[dict[str, Any]]:
    """The turn's own rows so far, deleted ones left out."""
    rows = Message.objects.filter(session=turn.session_id, position__gt=turn.question, position__lte=turn.answer)
    ours = rows.filter(role__in=(Message.Role.ASSISTANT, Message.Role.TOOL_CALL), deleted_at=None)
    return list(ours.order_by("position").values(*COLUMNS))


def live_messages(session: Session) -> QuerySet[Message]:
    return Message.objects.filter(session=session, deleted_at=None)


def message_at(session: Session, position: int) -> dict[str, Any] | None:
    return live_messages(session).filter(position=position).values(*COLUMNS).first()


def operations_of(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The tool calls, as far as they are stored: what came out of them is not."""
    markers = [row for row in rows if row["role"] == Message.Role.TOOL_CALL]
    return [
        {"tool_name": row["tool_name"] or "", "status": WORDS.get(row["status"], "interrupted"), "details": ""}
        for row in markers
    ]


def watch(turn: Turn, heartbeat: float) -> Iterator[list[Told]]:
    """The turn's events from its beginning, read every half second; an empty list after `heartbeat` seconds
    without any."""
    told: dict[int, int] = {}
    spoke = time.monotonic()
    while True:
        try:
            turn.refresh_from_db()
            rows = rows_of(turn)
        except Turn.DoesNotExist:  # Purged, or its owner erased.
            yield [{"type": "error", "detail": DETAILS[Turn.Status.INTERRUPTED]}]
            return
        finally:
            connection.close()
        fresh = [event for row in rows for event in news(row, told)]
        # A lease that is late is not the end: its worker may renew it, and a lost turn is settled soon.
        if turn.status != Turn.Status.RUNNING:
            yield [*fresh, last_event(turn, rows)]
            return
        if fresh or time.monotonic() - spoke >= heartbeat:
            spoke = time.monotonic()
            yield fresh
        time.sleep(POLL_SECONDS)


def news(row: Mapping[str, Any], told: dict[int, int]) -> Iterator[Told]:
    """What of a row was not told yet. `told` remembers by row: the characters of a text, 1 for a tool that has
    started, -1 for all of it."""
    seen, is_over = told.get(row["id"], 0), row["status"] != Message.Status.STREAMING
    if seen < 0:
        return
    is_tool = row["role"] == Message.Role.TOOL_CALL
    told[row["id"]] = -1 if is_over else 1 if is_tool else len(row["content"])
    yield from (news_of_tool if is_tool else news_of_text)(row, seen)


def news_of_text(row: Mapping[str, Any], seen: int) -> Iterator[Told]:
    if more := row["content"][seen:]:
        yield {"type": "text_delta", "content": more}
    if row["status"] == Message.Status.COMPLETE:
        fields = {"role": row["role"], "content": row["content"], "message_id": row["id"]}
        yield {"type": "message_created", **fields, "timestamp": wire_time(row["updated_at"])}


def news_of_tool(row: Mapping[str, Any], seen: int) -> Iterator[Told]:
    name = row["tool_name"] or ""
    if not seen:
        yield {"type": "tool_call_started", "tool_name": name, "timestamp": wire_time(row["created_at"])}
    if row["status"] == Message.Status.COMPLETE:
        at = wire_time(row["updated_at"])
        yield {"type": "tool_call_completed", "tool_name": name, "result_summary": "", "timestamp": at}


def last_event(turn: Turn, rows: list[dict[str, Any]]) -> Told:
    if turn.status == Turn.Status.COMPLETE:
        return {"type": "done", "conversation_id": turn.session_id, "operations": operations_of(rows)}
    return {"type": "error", "detail": DETAILS.get(turn.status, DETAILS[Turn.Status.INTERRUPTED])}
