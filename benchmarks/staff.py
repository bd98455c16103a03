"""The admin's pages with many messages: how long the server takes, and what PostgreSQL reads for each.

    .venv/bin/python -m benchmarks.staff [--messages 10000000] [--database-url postgresql://...]

Starts a PostgreSQL of its own and fills it (ten million messages take some minutes and 4 GB), unless a database is
named: there what is missing is added. Times are of the whole request inside the process, without the network, and
medians of rounds in which the pages take turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from chatstore.environment import BASE_DIR
from chatstore.testdatabase import OwnPostgres

PER_SESSION, PER_USER = 50, 5_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--messages", type=int, default=10_000_000)
    arguments.add_argument("--database-url", help="Measure there, and leave it running.")
    options = arguments.parse_args()
    own = None if options.database_url else OwnPostgres()
    try:
        os.environ["DATABASE_URL"] = options.database_url or own.start()  # type: ignore[union-attr]
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatstore.settings")
        os.environ["DB_STATEMENT_TIMEOUT"] = "0"
        fill(options.messages)
        subprocess.run([sys.executable, "-m", "benchmarks.staff_pages"], cwd=BASE_DIR, check=True)
    finally:
        if own:
            own.stop()


def fill(messages: int) -> None:
    manage("migrate", "--verbosity", "0")
    sizes = {"--users": messages // PER_USER, "--sessions": messages // PER_SESSION, "--messages": messages}
    manage("seed", "--force", *(word for name, size in sizes.items() for word in (name, str(size))))


def manage(*words: str) -> None:
    subprocess.run([sys.executable, "manage.py", *words], cwd=BASE_DIR, check=True)


if __name__ == "__main__":
    main()
