"""Ten minutes of what people do: memory, descriptors, connections and times stay as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import linear_regression, quantiles
from typing import NamedTuple

import psutil
import psycopg

from chatstore.environment import BASE_DIR
from torture.postgres import KillablePostgres
from torture.product import MARK, Product, manage, migrate, serving
from torture.report import Result, check_store

PASSWORD = "soak-and-nothing-else"
# The part of the time in which people hurry.
HURRY = 0.15
MEGABYTE = 2**20
# The pools are full from the start; clients come and go. A leak is one for each request.
MORE_DESCRIPTORS = 25
MORE_CONNECTIONS = 5
OPEN_FOR_LONG = ("events",)


class Asked(NamedTuple):
    """A request: when it ended, what it was, how long it took, and what was unexpected."""

    ended: float
    name: str
    milliseconds: float
    said: str


class Sample(NamedTuple):
    at: float
    memory: dict[int, int]  # RSS in bytes by worker
    descriptors: dict[int, int]
    connections: int


class Limits(NamedTuple):
    megabytes: float = 1.0  # of a worker, for 10,000 requests
    times_slower: float = 1.2  # p99 of the last tenth, of the first's after the warm-up
    warm_up: float = 0.2  # The part of the time after which what grows once has grown.


def soak(
    seed: int,
    *,
    seconds: float = 600,
    people: int = 20,
    rate: float = 6,
    workers: int = 2,
    limits: Limits | None = None,
    wsgi: str = "chatstore.wsgi",
) -> Result:
    """So many people at once, each of whom sends so many requests a second."""
    server, began = KillablePostgres(), time.monotonic()
    try:
        url = server.start()
        tokens = migrate(url, users=2)
        given = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        manage(url, "createsuperuser", "--noinput", "--username=admin", "--email=admin@example.com", **given)
        with tempfile.TemporaryDirectory() as folder, serving(
            url, Path(folder) / "log", tokens, wsgi, WEB_WORKERS=str(workers), DB_POOL_MIN="15"
        ) as product:  # fmt: skip
            give_to_read(product, user=1)
            log = Path(folder) / "requests"
            with sampling(product, every=max(0.25, seconds / 600)) as samples:
                run_locust(product, log, seed, seconds, people, rate)
            asked = sorted(Asked(*json.loads(line)) for line in log.read_text().splitlines())
            logged = [f"{what} in the log" for what in product.log_problems()]
            wrong = [*check_store(url), *logged]
    finally:
        server.stop()
    figures = Figures(asked, samples, limits or Limits())
    problems = figures.problems()
    return Result(
        "soak", seed, time.monotonic() - began,
        acknowledged=sum(each.name == "append" and not each.said for each in asked),
        other=len(problems) + len(wrong), errors=len(figures.failures),
        said=[*problems, *wrong],
        notes=figures.lines(), counted=("acknowledged", "other", "5xx"),
    )  # fmt: skip


def give_to_read(product: Product, user: int) -> None:
    """What is searched and counted, which nobody adds to."""
    client = product.client(user)
    session = client.send("POST", "/api/sessions/", {}).body["session_id"]
    message = {"role": "user", "content": f"{MARK} a word or two", "tokens": 3}
    client.send("POST", f"/api/sessions/{session}/messages/batch/", {"messages": [message] * 200})
    client.close()


def run_locust(product: Product, log: Path, seed: int, seconds: float, people: int, rate: float) -> None:
    """In a process of its own: locust changes the sockets of the one it is in."""
    plan = {
        "log": str(log), "seed": seed, "rate": rate, "hurry": HURRY * seconds, "tokens": product.tokens[:1],
        "reader": product.tokens[1], "password": PASSWORD, "mark": MARK,
    }  # fmt: skip
    command = [
        sys.executable, "-m", "locust", "--locustfile", "torture/soak_users.py", "--headless", "--skip-log",
        "--only-summary", "--users", str(people), "--spawn-rate", str(people), "--run-time", f"{seconds:.0f}s",
        "--stop-timeout", "5s", "--host", f"http://127.0.0.1:{product.port}", "--exit-code-on-error", "0",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=BASE_DIR, env={**os.environ, "SOAK_PLAN": json.dumps(plan), "PYTHONPATH": str(BASE_DIR)},
        capture_output=True, text=True, timeout=seconds + 60, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"locust failed:\n{done.stderr[-2000:]}")


@contextmanager
def sampling(product: Product, every: float) -> Iterator[list[Sample]]:
    """A sample so often, in seconds, while the block runs."""
    stopped, samples = threading.Event(), list[Sample]()

    def sample() -> None:
        with psycopg.connect(product.database_url, autocommit=True) as database:
            while not stopped.wait(every):
                with suppress(psutil.Error):
                    samples.append(sample_of(product.workers, database))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stopped.set()
        thread.join(10)


def sample_of(workers: list[psutil.Process], database: psycopg.Connection) -> Sample:
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    found = database.execute(query).fetchone()
    memory = {worker.pid: worker.memory_info().rss for worker in workers}
    descriptors = {worker.pid: worker.num_fds() for worker in workers}
    return Sample(time.monotonic(), memory, descriptors, found[0] if found else 0)


class Figures:
    """What the requests and the samples say, once it is warm."""

    def __init__(self, asked: list[Asked], samples: list[Sample], limits: Limits) -> None:
        if not asked or not samples:
            raise RuntimeError("nothing was measured")
        first, last = asked[0].ended, asked[-1].ended
        self.warm = first + limits.warm_up * (last - first)
        self.limits, self.asked, self.seconds = limits, asked, last - first
        self.samples = [sample for sample in samples if self.warm <= sample.at <= last]
        self.failures = [each for each in asked if each.said]
        self.workers = sorted({pid for sample in samples for pid in sample.memory})

    @property
    def slopes(self) -> list[float]:
        """Megabytes that each worker grows by while 10,000 requests are served."""
        ended = [each.ended for each in self.asked]
        served = [bisect(ended, sample.at) for sample in self.samples]
        return [
            linear_regression(served, [sample.memory.get(pid, 0) for sample in self.samples]).slope
            * (10_000 / MEGABYTE)
            for pid in self.workers
        ]

    def p99(self, since: float, until: float) -> float:
        """Milliseconds, between two parts of the time after the warm-up."""
        length = self.asked[-1].ended - self.warm
        among = [
            each.milliseconds
            for each in self.asked
            if each.name not in OPEN_FOR_LONG
            and self.warm + since * length <= each.ended <= self.warm + until * length
        ]
        return quantiles(among, n=100)[98] if len(among) > 1 else 0.0

    @property
    def times_slower(self) -> float:
        return self.p99(0.9, 1) / max(1.0, self.p99(0, 0.1))

    def grown(self, counts: list[int]) -> int:
        """How much more there was at most in the last fifth than in the first."""
        fifth = max(1, len(counts) // 5)
        return max(counts[-fifth:]) - max(counts[:fifth])

    @property
    def more_descriptors(self) -> int:
        return max(self.grown([each.descriptors.get(pid, 0) for each in self.samples]) for pid in self.workers)

    @property
    def more_connections(self) -> int:
        return self.grown([sample.connections for sample in self.samples])

    def problems(self) -> list[str]:
        limits = self.limits
        found = [f"{len(self.failures)} requests, such as: {each.said}" for each in self.failures[:1]]
        if len(self.samples[0].memory) != len(self.workers):
            found.append("a worker was replaced")
        if max(self.slopes) > limits.megabytes:
            found.append(f"a worker grows by {max(self.slopes):.2f} MB in 10,000 requests")
        if self.more_descriptors > MORE_DESCRIPTORS:
            found.append(f"{self.more_descriptors} more descriptors in a worker")
        if self.more_connections > MORE_CONNECTIONS:
            found.append(f"{self.more_connections} more connections to PostgreSQL")
        if self.times_slower > limits.times_slower:
            found.append(f"p99 of the last tenth is {self.times_slower:.2f} times the first's")
        return found

    def lines(self) -> list[str]:
        memory = [self.samples[-1].memory.get(pid, 0) / MEGABYTE for pid in self.workers]
        return [
            f"{len(self.asked):,} requests, {len(self.asked) / self.seconds:.0f} a second",
            f"MB more of each worker in 10,000 requests: {', '.join(f'{slope:.2f}' for slope in self.slopes)}"
            f" (RSS at the end: {', '.join(f'{each:.0f}' for each in memory)})",
            f"descriptors: {self.more_descriptors:+} to"
            f" {max(self.samples[-1].descriptors.values())}; connections: {self.more_connections:+}"
            f" to {self.samples[-1].connections}",
            f"p99: first tenth {self.p99(0, 0.1):.0f} ms, last {self.p99(0.9, 1):.0f} ms"
            f" ({self.times_slower:.2f} times)",
        ]
