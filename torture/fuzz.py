"""Random requests drawn from the OpenAPI document, and hostile values in every field (promise 8): the tests that
`make test` runs with few of both, with all of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

from chatstore.environment import BASE_DIR
from torture.report import Result

DRAWN = "chatstore/tests/test_fuzz.py::test_every_answer_is_as_the_document_tells"
MOST_SECONDS = 3600
# The last line of its table: requests, server errors, undocumented answers, wrong schemas, anything else.
SUMS = re.compile(r"^all +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)
HOSTILE = "conversations/tests/test_hostile_walk.py"
TESTS = re.compile(r"(\d+) passed")


def fuzz(seed: int, *, cases: int = 10_000) -> Result:
    """So many requests at least."""
    began = time.monotonic()
    done = tested(DRAWN, FUZZ_CASES=str(cases), FUZZ_SEED=str(seed))
    sums = SUMS.search(done.stdout)
    sent, errors, *others = map(int, sums.groups()) if sums else (0, 0)
    took, counted = time.monotonic() - began, ("other", "5xx")
    result = Result("fuzz", seed, took, other=sum(others), errors=errors, counted=counted)
    result.notes.append(f"{sent:,} requests")
    if done.returncode or sent < cases:
        result.said += done.stdout.splitlines()[-40:]
    return result


def hostile(seed: int) -> Result:
    """Every value in every field, on both databases. There is nothing to choose: the seed counts for nothing."""
    began = time.monotonic()
    result = Result("hostile values", seed, 0, counted=("other", "5xx"))
    for database in ("postgresql", "sqlite"):
        done = tested(HOSTILE, "--database", database, HOSTILE="all")
        passed = TESTS.search(done.stdout)
        result.notes.append(f"{database}: {passed[0] if passed else 'nothing passed'}")
        if done.returncode or not passed:
            result.said += done.stdout.splitlines()[-40:]
    result.seconds = time.monotonic() - began
    return result


def tested(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    patient = ["--override-ini", f"timeout={MOST_SECONDS}"]
    command = [sys.executable, "-m", "pytest", "--capture", "no", *patient, *words]
    return subprocess.run(
        command, cwd=BASE_DIR, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
