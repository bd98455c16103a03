"""A store's file, read into this store: a line that cannot go in is told of, and the rest goes in.

A line is parsed and checked (`lines`). People and workspaces go in some hundred at a time (`people`), then
sessions with what they hold (`sessions`): some thousand lines are in memory, and become a COPY of sessions,
one of messages and one of turns. Every transaction holds whole sessions: stopped halfway, the same file read
again finds what is there and adds the rest. A row is known by its UUID, a message by its session and
position. What is here already stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import BinaryIO, Final

from conversations import bulk
from conversations.transfer import people, sessions
from conversations.transfer.lines import COUNTED, FORMAT, Fault, Line, read
from conversations.transfer.report import Report

# A message of the largest content that can be allowed, all of it escaped.
MAX_LINE_BYTES: Final = 32 * 1024 * 1024
OF_CONVERSATIONS: Final = frozenset({"session", "message", "turn"})
PEOPLE: Final = 500

Advance = Callable[[int], None]


class NotAStore(Exception):
    """The file is no export of a store, or one that this version does not know."""


@dataclass
class File:
    """A file that is being read."""

    stream: BinaryIO
    report: Report
    counts: dict[str, int] = field(default_factory=dict)
    lines: int = 0

    def open(self) -> int:
        """Read the first line; how many it says there are beside it. Raises NotAStore."""
        try:
            first = read(1, self.stream.readline(MAX_LINE_BYTES))
        except Fault as fault:
            raise NotAStore(f"Line 1 {fault}.") from None
        if first.kind != "store" or first.fields["format"] != FORMAT:
            raise NotAStore(f"Line 1 does not say that this is a store of format {FORMAT}.")
        self.counts = first.fields["counts"]
        return sum(self.counts.values())

    def read(self) -> Iterator[Line]:
        """The lines that are whole and right; of the others it is told."""
        for number, raw in enumerate(self.raw(), 2):
            self.lines += 1
            try:
                line = read(number, raw)
                if line.kind == "store":
                    raise Fault("says what only the first line says")
            except Fault as fault:
                self.report.refuse(number, str(fault))
            else:
                yield line
        if (said := sum(self.counts.values())) != self.lines:
            self.report.refuse(self.lines + 1, f"is the end, after {self.lines:,} lines; line 1 says {said:,}")

    def raw(self) -> Iterator[bytes]:
        """The lines as they are; of one that is too long only the beginning, which is not JSON."""
        while line := self.stream.readline(MAX_LINE_BYTES):
            yield line
            while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                line = self.stream.readline(MAX_LINE_BYTES)


def load(file: File, advance: Advance) -> None:
    """Bring in what is missing. Needs a file that has been opened. Raises Stopped where the report is strict."""
    known = people.Known()
    for kind, lines in groupby(file.read(), key=department):
        if kind == "conversations":
            for batch in sessions.batches(lines):
                advance(sessions.load(batch, known, file.report))
            continue
        for piece in bulk.pieces(lines, PEOPLE):
            people.LOAD[kind](piece, known, file.report)
            advance(len(piece))


def department(line: Line) -> str:
    return "conversations" if line.kind in OF_CONVERSATIONS else line.kind


def summary(added: Counter[str]) -> str:
    """How many of each kind, those that are none left out."""
    counts = [f"{added[kind]:,} {kind}{'' if added[kind] == 1 else 's'}" for kind in COUNTED if added[kind]]
    return ", ".join(counts) or "nothing"
