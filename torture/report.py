"""What a scenario found, and the table of all."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from chatstore.environment import BASE_DIR
from torture.checker import Attempts, Findings, check
from torture.product import Product, environment

COUNTS = ("acknowledged", "kills", "lost", "duplicated", "other", "5xx", "503")
COLUMNS = ("scenario", "seed", "seconds", *COUNTS)


@dataclass
class Result:
    """One row of the table. `said` explains what went wrong, and `notes` what was measured besides. `counted`: the
    columns that this scenario counts; in the others nothing was looked for, or it is among `other`.

    Where `must_lose`, the checker itself is tried: it is clean where it found what was lost.
    """

    scenario: str
    seed: int
    seconds: float
    acknowledged: int = 0
    kills: int = 0
    lost: int = 0
    duplicated: int = 0
    other: int = 0
    errors: int = 0
    unavailable: int = 0
    said: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    must_lose: bool = False
    counted: tuple[str, ...] = COUNTS

    @classmethod
    def of(
        cls,
        scenario: str,
        seed: int,
        began: float,
        product: Product,
        sessions: Iterable[tuple[int, str]],
        attempts: Attempts,
        kills: int = 0,
    ) -> Result:
        """Check the store against the log of what was sent, by its own doctor, and the product's log. Nothing that
        was sent may be refused."""
        found = check(product, sessions, attempts)
        refused = [each.status for each in attempts.all if not (each.is_acknowledged or each.is_unknown)]
        wrong = [f"{count} good writes were answered {status}" for status, count in Counter(refused).items()]
        wrong += [*check_store(product.database_url), *(f"{what} in the log" for what in product.log_problems())]
        return cls(
            scenario,
            seed,
            time.monotonic() - began,
            attempts.acknowledged,
            kills,
            lost=found.counts["lost"],
            duplicated=found.counts["duplicated"],
            other=others(found) + len(wrong),
            errors=found.counts["errors"],
            unavailable=sum(attempt.status == 503 for attempt in attempts.all),
            said=[*([str(found)] if found else []), *wrong[:5]],
        )

    @property
    def is_clean(self) -> bool:
        if self.must_lose:
            return self.lost > 0
        return not (self.lost or self.duplicated or self.other or self.errors or self.said)

    def cells(self) -> list[str]:
        counts = (
            self.acknowledged, self.kills, self.lost, self.duplicated, self.other, self.errors, self.unavailable
        )  # fmt: skip
        said = [f"{count:,}" if name in self.counted else "" for name, count in zip(COUNTS, counts, strict=True)]
        return [self.scenario, str(self.seed), f"{self.seconds:.0f}", *said]


def check_store(database_url: str, *kinds: str) -> list[str]:
    """What `manage.py check_store` finds, of these kinds or of all."""
    only = [word for kind in kinds for word in ("--only", kind)]
    command = [sys.executable, "manage.py", "check_store", "--verbosity", "0", *only]
    done = subprocess.run(
        command, cwd=BASE_DIR, env=environment(database_url), capture_output=True, text=True, check=False
    )
    found = done.stdout.splitlines()
    return found if found or not done.returncode else [done.stderr.strip()]


def others(found: Findings) -> int:
    return sum(found.counts[kind] for kind in found.counts.keys() - {"lost", "duplicated", "errors"})


def table(results: Iterable[Result]) -> str:
    """Markdown, as docs/reliability.md holds it."""
    rows = [list(COLUMNS), ["---", *["---:"] * (len(COLUMNS) - 1)], *(result.cells() for result in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
