"""What becomes of the lines of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


class Stopped(Exception):
    """A line cannot go in, and the reader wants no other."""


@dataclass
class Report:
    """Tells of each line that cannot go in, by its number, never by what it says."""

    tell: Callable[[str], None]
    strict: bool = False
    added: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    left_out: int = 0

    def refuse(self, number: int, what: str) -> None:
        self.refused += 1
        self.tell(f"line {number}: {what}")
        if self.strict:
            raise Stopped

    def differs(self, number: int, what: str, names: Sequence[str]) -> None:
        self.refuse(number, f"{what} is here with another {', '.join(names)}")

    def broke(self, number: int, constraint: str) -> None:
        self.refuse(number, f"breaks a rule of the database: {constraint or 'a value is out of range'}")
