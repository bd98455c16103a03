"""Random requests drawn from the OpenAPI document, as `make test` sends them, but more of them.

    .venv/bin/python -m torture.fuzz [--cases 10000] [--seed 1]

Starts a PostgreSQL and a server of its own, and ends both. Prints the seed, and a table: requests, server errors,
answers that the document does not tell, and bodies of another shape, by caller and route.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys

from chatstore.environment import BASE_DIR

TEST = "chatstore/tests/test_fuzz.py::test_every_answer_is_as_the_document_tells"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="at least as many requests")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    options = parser.parse_args()
    asked = {"FUZZ_CASES": str(options.cases), "FUZZ_SEED": str(options.seed)}
    command = [sys.executable, "-m", "pytest", "--capture", "no", "--override-ini", "timeout=0", TEST]
    done = subprocess.run(command, cwd=BASE_DIR, env={**os.environ, **asked}, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
