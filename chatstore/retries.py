"""What makes a repeated write recognisable (contract 1, retry)."""

from __future__ import annotations

from dataclasses import dataclass


class KeyReused(Exception):
    """The idempotency key was used before with other content or for another operation."""


@dataclass(frozen=True)
class Retry:
    """An `Idempotency-Key`, and the SHA-256 (64 hex digits) of the operation and content it stands for."""

    key: str
    digest: str

    def check(self, remembered_digest: str | None) -> None:
        """Raise KeyReused where the row that the key made was made of something else."""
        if remembered_digest != self.digest:
            raise KeyReused

    @property
    def columns(self) -> dict[str, str]:
        """What the row remembers."""
        return {"idempotency_key": self.key, "idempotency_digest": self.digest}
