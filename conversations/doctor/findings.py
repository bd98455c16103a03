"""What the doctor of a store finds, and how it is told: by ids, never by a message's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

KINDS: Final = (
    "schema", "orphans", "counters", "positions", "versions", "times", "turns", "contents", "usage",
)  # fmt: skip


@dataclass
class Finding:
    """`advice` says what a person does about it; it is empty where `--fix` mends it."""

    kind: str
    sentence: str
    advice: str = ""
    session: UUID | None = None
    message: int | None = None
    is_mended: bool = False

    def __str__(self) -> str:
        named = {"session": self.session, "message": self.message}
        places = [f"{name}={value}" for name, value in named.items() if value is not None]
        return "  ".join([self.kind, *places, self.said])

    @property
    def said(self) -> str:
        return " ".join(part for part in (self.sentence, "Mended." if self.is_mended else self.advice) if part)

    @property
    def shape(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "session": self.session and str(self.session),
            "message": self.message,
            "sentence": self.said,
            "mended": self.is_mended,
        }
