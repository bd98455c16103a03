"""Random requests drawn from the OpenAPI document, as `make test` sends them, but more of them (promise 8).

Runs that test on a PostgreSQL and a server of its own, with this many requests and this seed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

from chatstore.environment import BASE_DIR
from torture.report import Result

TEST = "chatstore/tests/test_fuzz.py::test_every_answer_is_as_the_document_tells"
# The last line of its table: requests, server errors, undocumented answers, wrong schemas, anything else.
SUMS = re.compile(r"^all +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)


def fuzz(seed: int, *, cases: int = 10_000) -> Result:
    """So many requests at least."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "--capture", "no", "--override-ini", "timeout=0", TEST]
    done = subprocess.run(
        command,
        cwd=BASE_DIR,
        env={**os.environ, "FUZZ_CASES": str(cases), "FUZZ_SEED": str(seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    sums = SUMS.search(done.stdout)
    sent, errors, *others = map(int, sums.groups()) if sums else (0, 0)
    result = Result("fuzz", seed, time.monotonic() - began, other=sum(others), errors=errors)
    result.notes.append(f"{sent:,} requests")
    if done.returncode:
        result.said += done.stdout.splitlines()[-40:]
    return result
