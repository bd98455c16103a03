"""An assistant that takes its time, for what a browser sees of a reply. Named by the setting ASSISTANT."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from conversations.chat.assistants import (
    Asked,
    Event,
    MessageCreated,
    TextDelta,
    ToolCallCompleted,
    ToolCallStarted,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
OPENING = "I will look that up."
FOUND = "3 places\nwith a <b>garden</b>"
WORDS = [f"word{number} " for number in range(40)]
ANSWER = "".join(WORDS).strip()
SEPARATED = "one\u2028two\u2029three"


class Slow:
    """Says something, calls a tool, and answers word by word, in five seconds; silent where told to `wait`,
    done at once where told to be `quick`, and held at the tool or a word where asked to be (`held_at`)."""

    def reply(self, asked: Asked) -> Iterator[Event]:
        place, _, release = asked.history[-1].content.removeprefix("Hold ").partition(" until ")
        if asked.history[-1].content == "wait":
            time.sleep(60)
        if asked.history[-1].content == "quick":
            yield TextDelta(SEPARATED)
            yield MessageCreated(tokens=3)
            return
        yield TextDelta(OPENING, trace_id=TRACE)
        yield MessageCreated(tokens=6, trace_id=TRACE)
        time.sleep(0.5)
        yield ToolCallStarted("1", "search_database", trace_id=TRACE, span_id=SPAN)
        hold(release) if place == "the tool" else time.sleep(1.5)
        yield ToolCallCompleted("1", FOUND, trace_id=TRACE, span_id=SPAN)
        time.sleep(0.3)
        for word in WORDS:
            yield TextDelta(word, trace_id=TRACE)
            hold(release) if place == word.strip() else time.sleep(0.06)
        yield MessageCreated(tokens=40, trace_id=TRACE)


def held_at(place: str, release: Path) -> str:
    """The question whose reply stops at "the tool" or at a word until the file `release` is there: however slow
    the machine is, what a test does meanwhile is done in the middle."""
    return f"Hold {place} until {release}"


def hold(release: str) -> None:
    deadline = time.monotonic() + 60
    while not Path(release).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
