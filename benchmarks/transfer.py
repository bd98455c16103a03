"""Moving a store: how fast exportjsonl and importjsonl are on PostgreSQL, and what memory they take.

    .venv/bin/python -m benchmarks.transfer [--messages 1000000] [--rounds 3]

Starts a PostgreSQL of its own, fills a database, exports it, imports it into an empty one and exports that: the
two files must be the same. CPU is that of the command's process, and beside it PostgreSQL's, on Linux; memory is
the command's largest (ru_maxrss).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path
from statistics import median

import psycopg

from chatstore.environment import BASE_DIR
from chatstore.testdatabase import OwnPostgres

PER_SESSION, PER_USER = 20, 500


@dataclass
class Run:
    """One run of a command."""

    seconds: float
    cpu: float
    server_cpu: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chatstore-transfer-"))
    server = Server()
    try:
        measure(server, folder, options.messages, options.rounds)
    finally:
        server.own.stop()
        shutil.rmtree(folder)


def measure(server: Server, folder: Path, messages: int, rounds: int) -> None:
    sizes = {"--users": messages // PER_USER, "--sessions": messages // PER_SESSION, "--messages": messages}
    first = server.database("first")
    server.manage(first, "seed", "--force", *(word for name, size in sizes.items() for word in (name, str(size))))
    server.run(first, "VACUUM ANALYZE")
    out, again = folder / "first.jsonl", folder / "second.jsonl"
    taken: dict[str, list[Run]] = {"export": [], "import": [], "the same again": []}
    for number in range(rounds):
        second = server.database(f"second{number}")
        taken["export"].append(server.manage(first, "exportjsonl", str(out)))
        taken["import"].append(server.manage(second, "importjsonl", str(out)))
        taken["the same again"].append(server.manage(second, "importjsonl", str(out)))
        server.manage(second, "exportjsonl", str(again))
        if not cmp(out, again, shallow=False):
            sys.exit("The second export differs from the first.")
    load = os.getloadavg()[1]
    print(f"\n{messages:,} messages in {out.stat().st_size / 1e6:,.0f} MB; medians of {rounds}; load {load:.1f}")
    print(f"{'':14} {'messages/s':>10} {'slowest':>10} {'CPU s':>7} {'PostgreSQL':>10} {'MB':>6}")
    for name, runs in taken.items():
        rates = [messages / run.seconds for run in runs]
        print(
            f"{name:14} {median(rates):10,.0f} {min(rates):10,.0f} {median(run.cpu for run in runs):7.1f}"
            f" {median(run.server_cpu for run in runs):10.1f} {max(run.megabytes for run in runs):6.0f}"
        )


class Server:
    """A PostgreSQL of our own."""

    def __init__(self) -> None:
        self.own = OwnPostgres()
        self.url = self.own.start()
        self.pid = int((self.own.folder / "data" / "postmaster.pid").read_text().split()[0])

    def database(self, name: str) -> str:
        """The URL of a new database with our tables."""
        self.run(self.url, f"CREATE DATABASE {name}")
        url = self.url.replace("/postgres?", f"/{name}?")
        self.manage(url, "migrate", "--verbosity", "0")
        return url

    def run(self, url: str, statement: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)

    def manage(self, url: str, *words: str) -> Run:
        """Run a command of manage.py on this database. Ends where it fails."""
        environment = {**os.environ, "DATABASE_URL": url, "ENV_FILE": os.devnull}
        before, started = self.cpu(), time.perf_counter()
        process = subprocess.Popen([sys.executable, "manage.py", *words], cwd=BASE_DIR, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            sys.exit(f"manage.py {words[0]} failed.")
        time.sleep(1)  # Until the server has let go of the command's connections.
        run = Run(seconds, used.ru_utime + used.ru_stime, self.cpu() - before, used.ru_maxrss / 1024)
        print(f"{words[0]}: {run}", flush=True)
        return run

    def cpu(self) -> float:
        """Seconds that those of its processes took that have ended; 0 where /proc does not say."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
