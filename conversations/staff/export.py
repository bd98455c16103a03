"""Conversations as files: JSONL, Markdown, and their messages as CSV. No row's integer id is in any of them.

Written while it is sent, a page of messages in memory at a time. Pages by position, and no server-side cursor:
behind a pooler there is none, and then a whole session would be loaded; nor does a page hold the database
connection while a slow client reads it. So an export is not one snapshot: each session goes to the last message
that it had when its turn came, and a message is as it was when its page was read.
"""

from __future__ import annotations

import csv
import re
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse

from chatstore.http.rendering import json_bytes
from chatstore.http.times import wire_time
from conversations.models import Message, Session, Turn
from conversations.shapes import SESSION_COLUMNS, session_shape

PAGE: Final = 100
SEND_SECONDS: Final = 30
INTEGER_IDS: Final = {"id", "user_id"}
TIMES: Final = ("created_at", "updated_at", "deleted_at")
COLUMNS: Final = (
    "position", "role", "status", "content", "tool_name", "trace_id", "span_id", "tokens", "metadata", *TIMES,
)  # fmt: skip
# What a spreadsheet may take for a formula where a cell begins with it (OWASP, CSV injection): some pass over
# white space, some read full-width forms.
FORMULA: Final = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")
# Where Markdown ends a line (CommonMark 2.1); Python's splitlines knows more.
LINE_END: Final = re.compile(r"\r\n|\r|\n")

Row = dict[str, Any]
Exported = Iterable[tuple[Row, Iterator[Row]]]


def json_line(value: Any) -> str:
    return json_bytes(value).decode()


# What is stored


def sessions_of(keys: Sequence[int]) -> Iterator[tuple[Row, Iterator[Row]]]:
    """Each session and its messages; one that is purged meanwhile is left out."""
    for key in keys:
        found = Session.objects.filter(pk=key).values("last_position", *SESSION_COLUMNS).first()
        give_back()
        if found:
            shown = {name: value for name, value in session_shape(found).items() if name not in INTEGER_IDS}
            yield shown, messages_of(key, found["last_position"])


def messages_of(key: int, last: int) -> Iterator[Row]:
    """The session's messages up to a position, deleted ones as what is left of them."""
    rows = Message.objects.filter(session=key, position__lte=last).order_by("position")
    position = 0
    while page := list(rows.filter(position__gt=position).values("session_id", *COLUMNS)[:PAGE]):
        position = page[-1]["position"]
        Turn.objects.shown(page)
        give_back()
        for row in page:
            times = {name: row[name] and wire_time(row[name]) for name in TIMES}
            yield {name: row[name] for name in COLUMNS} | times


def give_back() -> None:
    """The database connections, to the pool, as after a request; not where the caller is in a transaction."""
    for held in connections.all(initialized_only=True):
        if not held.in_atomic_block:
            held.close_if_unusable_or_obsolete()


# How it is written


def jsonl(sessions: Exported) -> Iterator[str]:
    """A line for each session, followed by a line for each of its messages."""
    for session, messages in sessions:
        yield json_line({"type": "session", **session}) + "\n"
        for message in messages:
            yield json_line({"type": "message", "session_id": session["session_id"], **message}) + "\n"


def markdown(sessions: Exported) -> Iterator[str]:
    """What people wrote stands in quotes, and the rest in JSON on one line: neither can look like a heading."""
    for session, messages in sessions:
        about = {name: value for name, value in session.items() if name != "title"}
        yield f"# Session {session['session_id']}\n\n{quoted(session['title'])}\n\n{fenced(about)}\n\n"
        for message in messages:
            yield f"## {message['position']}. {message['role']}\n\n"
            if message["content"]:
                yield f"{quoted(message['content'])}\n\n"
            about = {name: value for name, value in message.items() if name not in ("position", "role", "content")}
            yield f"{fenced(about)}\n\n"


def quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in LINE_END.split(text))


def fenced(values: Mapping[str, Any]) -> str:
    """A line of JSON, which cannot end the fence."""
    return f"```json\n{json_line({name: value for name, value in values.items() if value is not None})}\n```"


class Line:
    """What csv.writer writes to: gives back each line."""

    def write(self, line: str) -> str:
        return line


def csv_of_messages(sessions: Exported) -> Iterator[str]:
    writer = csv.writer(Line())
    yield writer.writerow(["session_id", *COLUMNS])
    for session, messages in sessions:
        for message in messages:
            cells = [defused(message[name]) for name in COLUMNS]
            yield writer.writerow([session["session_id"], *cells])


def defused(value: Any) -> str:
    """A cell that no spreadsheet computes: where it would begin a formula, behind an apostrophe."""
    cell = "" if value is None else value if isinstance(value, str) else json_line(value)
    return f"'{cell}" if FORMULA.match(cell) else cell


# How it is sent


class Form(NamedTuple):
    """A file's form: how it is written, the end of its name, its type."""

    label: str
    write: Callable[[Exported], Iterator[str]]
    content_type: str


FORMS: Final = {
    "jsonl": Form("JSONL", jsonl, "application/jsonl; charset=utf-8"),
    "md": Form("Markdown", markdown, "text/markdown; charset=utf-8"),
    "csv": Form("CSV", csv_of_messages, "text/csv; charset=utf-8"),
}


def exported(request: HttpRequest, form: str, sessions: Sequence[Session]) -> StreamingHttpResponse:
    """The file, named by nothing that somebody wrote. A client that does not read for half a minute ends it."""
    name = f"session-{sessions[0].session_id}" if len(sessions) == 1 else "sessions"
    pieces = FORMS[form].write(sessions_of([session.pk for session in sessions]))
    if link := request.META.get("gunicorn.socket"):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.{form}"',
        "X-Accel-Buffering": "no",
    }
    return StreamingHttpResponse(sent(pieces), content_type=FORMS[form].content_type, headers=headers)


def sent(pieces: Iterator[str]) -> Iterator[bytes]:
    try:
        for piece in pieces:
            yield piece.encode()
    finally:
        give_back()
