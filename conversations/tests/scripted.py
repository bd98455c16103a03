"""Assistants for tests, chosen by the ASSISTANT setting. What `Scripted` does stands in the message that it is
sent, so that a test can direct one in another process as well."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from conversations.chat.assistants import (
    Asked,
    Event,
    MessageCreated,
    TextDelta,
    ToolCallCompleted,
    ToolCallStarted,
)
from conversations.chat.keeper import KEEPER

SCRIPTED = "conversations.tests.scripted.Scripted"
SECRET = "the assistant's own words, sk-0123456789"  # What it raises; nobody is told.
EVENTS: dict[str, type[Any]] = {
    each.__name__: each for each in (TextDelta, ToolCallStarted, ToolCallCompleted, MessageCreated)
}
Step = tuple[str, dict[str, Any]]


def text(content: str, **fields: Any) -> Step:
    return "TextDelta", {"content": content, **fields}


def tool(call_id: str, tool_name: str = "search", **fields: Any) -> Step:
    return "ToolCallStarted", {"call_id": call_id, "tool_name": tool_name, **fields}


def tool_done(call_id: str, summary: str = "", **fields: Any) -> Step:
    return "ToolCallCompleted", {"call_id": call_id, "summary": summary, **fields}


def message(tokens: int = 0, **fields: Any) -> Step:
    return "MessageCreated", {"tokens": tokens, **fields}


def pause(seconds: float) -> Step:
    return "pause", {"seconds": seconds}


def flood(content: str, times: int) -> Step:
    """The same piece of text again and again: more than a message could hold."""
    return "flood", {"content": content, "times": times}


def gate() -> Step:
    """Wait until the test opens the gate, in a turn of the test's own process."""
    return "gate", {}


def fail() -> Step:
    return "fail", {}


def script(*steps: Step) -> str:
    """The message that makes a `Scripted` do these steps. Escaped, so that it can hold any text."""
    return json.dumps(steps)


def paced(steps: list[Step], seconds: float) -> str:
    return script(*(each for step in steps for each in (step, pause(seconds))))


STORY = script(
    text("Let me "), text("look."), tool("a", "search"), tool("b", "fetch"), tool_done("b", "1 page"),
    tool_done("a", "3 rows"), text("Found."), message(tokens=7), text("Bye."),
)  # fmt: skip
GATE = threading.Event()


class Scripted:
    """Does what the last message says. A message that is no script is answered by its own words."""

    def reply(self, asked: Asked) -> Iterator[Event]:
        said = asked.history[-1].content
        for name, fields in json.loads(said) if said.startswith("[") else [text(said)]:
            if name in EVENTS:
                yield EVENTS[name](**fields)
            elif name == "flood":
                yield from [TextDelta(fields["content"])] * fields["times"]
            elif name == "pause":
                time.sleep(fields["seconds"])
            elif name == "gate":
                GATE.wait(20)
            else:
                raise RuntimeError(SECRET)


class Historian:
    """Answers with what it was told."""

    def reply(self, asked: Asked) -> Iterator[Event]:
        yield TextDelta(json.dumps([asked.session_id, [[said.role, said.content] for said in asked.history]]))


class Refuses:
    """No generator: it raises where it is asked, before there is anything to go through."""

    def reply(self, asked: Asked) -> Iterator[Event]:
        raise RuntimeError(SECRET)


class Quits:
    """Raises what is no Exception."""

    def reply(self, asked: Asked) -> Iterator[Event]:
        yield TextDelta("Goodbye")
        raise SystemExit


class Babbles:
    """Yields what is no event."""

    def reply(self, asked: Asked) -> Iterator[Any]:
        yield TextDelta("Hello")
        yield "Hello"


@contextmanager
def no_turns_left() -> Iterator[None]:
    """Turns of this process end with the test. Its keeper settles nothing by itself: a later test would be
    disturbed."""
    KEEPER.settled_at = float("inf")
    GATE.clear()
    try:
        yield
    finally:
        GATE.set()
        deadline = time.monotonic() + 20
        while KEEPER.forget_ended():
            assert time.monotonic() < deadline, "A turn does not end."
            time.sleep(0.01)
