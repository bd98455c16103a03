"""The tables of a benchmark, as Markdown."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.operations import Run

Runs = dict[str, dict[str, list[Run]]]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def middle(runs: list[Run], name: str) -> float:
    return median(getattr(run, name) or 0.0 for run in runs)


def ratio(one: list[Run], other: list[Run]) -> str:
    """How many times the processor time of the other, by its median; in brackets the least and most of a round."""
    each = [theirs.total / ours.total for ours, theirs in zip(one, other, strict=True)]
    return f"{median(each):.2f} ({min(each):.2f}-{max(each):.2f})"


def costs(runs: Runs, limits: dict[str, tuple[float, float | None]]) -> str:
    """Processor time for a request, and what the peers take of it for each that the product takes."""
    rows = []
    for operation, by_target in runs.items():
        product = by_target["product"]
        for name, found in by_target.items():
            rows.append([
                operation, name, f"{middle(found, 'app'):.2f}",
                "-" if found[0].postgres is None else f"{middle(found, 'postgres'):.2f}",
                f"{middle(found, 'total'):.2f}", f"{middle(found, 'rate'):.0f}",
                f"{middle(found, 'p50'):.1f}", f"{middle(found, 'p99'):.1f}",
                "" if name == "product" else ratio(product, found),
            ])  # fmt: skip
        if operation in limits:
            rate, cpu = limits[operation]
            of_postgres = "-" if cpu is None else f"{cpu:.2f}"
            rows.append([operation, "pgbench", "", of_postgres, of_postgres, f"{rate:.0f}", "", "", ""])
    heads = ["operation", "server", "app ms", "PostgreSQL ms", "total ms", "requests/s", "p50 ms", "p99 ms"]
    return table([*heads, "times the product's"], rows)


def latencies(runs: Runs) -> str:
    rows = [
        [
            operation, name, f"{middle(found, 'rate'):.0f}", f"{middle(found, 'p50'):.0f}",
            f"{middle(found, 'p99'):.0f}", f"{median(spread(run) for run in found):.1f}",
            str(sum(run.errors for run in found)),
        ]
        for operation, by_target in runs.items()
        for name, found in by_target.items()
    ]  # fmt: skip
    return table(["operation", "server", "requests/s", "p50 ms", "p99 ms", "p99/p50", "errors"], rows)


def spread(run: Run) -> float:
    """p99 in terms of p50; infinite where no request was answered in time."""
    return run.p99 / run.p50 if run.p50 else math.inf


def growth(times: dict[str, tuple[int, float, float]]) -> str:
    rows = [
        [operation, str(rows), f"{small:.2f}", f"{large:.2f}", f"{large / small:.2f}"]
        for operation, (rows, small, large) in times.items()
    ]
    return table(["operation", "rows", "smaller ms", "larger ms", "times"], rows)


def plain(runs: Runs) -> Any:
    """For JSON."""
    return {
        operation: {name: [run._asdict() for run in found] for name, found in by_target.items()}
        for operation, by_target in runs.items()
    }


def machine() -> str:
    names = [line.partition(":")[2].strip() for line in lines_of("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((line.split()[1] for line in lines_of("/proc/meminfo") if line.startswith("MemTotal")), "0")
    of = f"{names[0]}, " if names else ""
    return f"{of}{os.cpu_count()} processors, {int(memory) / 2**20:.0f} GB, Python {platform.python_version()}"


def lines_of(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
