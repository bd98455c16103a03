"""Who answers: an assistant is given a conversation and yields what it does (contract 4).

`ASSISTANT` is the dotted path of a callable without arguments that makes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast

from django.utils.module_loading import import_string


@dataclass(frozen=True)
class Said:
    """One message of the history. `role` and `content` as stored; markers of tool calls are left out."""

    role: str
    content: str


@dataclass(frozen=True)
class Asked:
    """What an assistant is asked: the session, by its UUID, and its messages in order, the last one the user's."""

    session_id: str
    history: Sequence[Said]


@dataclass(frozen=True)
class TextDelta:
    """More of the reply's text."""

    content: str
    trace_id: str | None = None


@dataclass(frozen=True)
class ToolCallStarted:
    """A tool runs; `call_id` tells it from others of this turn."""

    call_id: str
    tool_name: str
    trace_id: str | None = None
    span_id: str | None = None


@dataclass(frozen=True)
class ToolCallCompleted:
    """The tool has run. `summary` is shown to whoever watches, and not stored."""

    call_id: str
    summary: str = ""
    trace_id: str | None = None
    span_id: str | None = None


@dataclass(frozen=True)
class MessageCreated:
    """The text up to here is a message. `tokens` are those that it cost."""

    tokens: int = 0
    trace_id: str | None = None
    span_id: str | None = None


Event = TextDelta | ToolCallStarted | ToolCallCompleted | MessageCreated


class Assistant(Protocol):
    def reply(self, asked: Asked) -> Iterator[Event]:
        """Yields until the reply is complete. Whatever it raises fails the turn; what it yielded is kept. Closed
        (GeneratorExit) where the turn is stopped, when it yields next: an empty TextDelta now and then, which is
        neither stored nor sent, lets one that waits be closed. Runs in a thread of its own, without a database
        connection."""
        ...


class Echo:
    """Answers `Echo: <message>`, word by word."""

    def reply(self, asked: Asked) -> Iterator[Event]:
        text = f"Echo: {asked.history[-1].content}"
        for word in re.findall(r"\s*\S+|\s+$", text):
            yield TextDelta(word)
        yield MessageCreated(tokens=0)


@cache
def assistant_at(path: str) -> Assistant:
    """The assistant that ASSISTANT names, made once for each process."""
    return cast(Assistant, import_string(path)())
