"""`make torture`: every long form, one after the other, and the table of docs/reliability.md.

    make torture
    make torture TORTURE="--seed 7 postgres-killed retry-storm"

Takes about an hour. Ends with 1 where a scenario found something. The seed makes the same writes, faults and kills
again; which of them meet is up to the machine.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
import traceback
from collections.abc import Callable

from torture.backup import backup, backup_sqlite
from torture.fault_points import fault_points
from torture.fuzz import fuzz, hostile
from torture.http_edge import http_edge
from torture.lost_answers import lost_answers, lost_commits
from torture.migrations import migrations_under_load
from torture.postgres_kills import postgres_kills, postgres_too_early
from torture.report import Result, table
from torture.restarts import restarts
from torture.retry_storm import retry_storm
from torture.slow_database import slow_database
from torture.soak import soak
from torture.worker_kills import worker_kills

SCENARIOS: dict[str, Callable[[int], Result]] = {
    "postgres-killed": postgres_kills,
    "postgres-too-early": postgres_too_early,
    "workers-killed": worker_kills,
    "restarts": restarts,
    "fault-points": fault_points,
    "retry-storm": retry_storm,
    "lost-answers": lost_answers,
    "lost-commits": lost_commits,
    "slow-database": slow_database,
    "http-edge": http_edge,
    "fuzz": fuzz,
    "hostile-values": hostile,
    "migrations": migrations_under_load,
    "backup": backup,
    "backup-sqlite": backup_sqlite,
    "soak": soak,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("scenario", nargs="*", help=f"Of {', '.join(SCENARIOS)}; all where none is named.")
    options = parser.parse_args()
    if unknown := set(options.scenario) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    results = []
    for name in options.scenario or SCENARIOS:
        print(f"{name}, seed {options.seed} ...", flush=True)
        result = outcome(name, options.seed)
        results.append(result)
        for said in [*result.said, *result.notes]:
            print(f"  {said}", flush=True)
    print(f"\n{table(results)}")
    return 0 if all(result.is_clean for result in results) else 1


def outcome(name: str, seed: int) -> Result:
    """Of one scenario; where it breaks, or a thread of it, a row that says so, and the others are still tried."""
    began, broken = time.monotonic(), list[str]()

    def note(ended: threading.ExceptHookArgs) -> None:
        broken.append(f"a thread ended with {ended.exc_type.__name__}")
        threading.__excepthook__(ended)

    threading.excepthook = note
    try:
        result = SCENARIOS[name](seed)
    except Exception as error:
        traceback.print_exc()
        broken.append(f"the scenario ended with {type(error).__name__}: {error}")
        result = Result(name, seed, time.monotonic() - began, counted=("other",))
    finally:
        threading.excepthook = threading.__excepthook__
    result.other += len(broken)
    result.said += broken
    return result


if __name__ == "__main__":
    sys.exit(main())
