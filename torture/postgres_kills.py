"""PostgreSQL is killed (kill -9) again and again under 32 writers: nothing acknowledged is lost (promise 1).

With `synchronous_commit=off` PostgreSQL acknowledges what it has not written yet: the checker must find that.
"""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from torture.checker import Attempts, check
from torture.postgres import KillablePostgres
from torture.product import migrate, serving
from torture.report import Result
from torture.writers import wait_for_writes, writing

SESSIONS = 20
WRITERS = 32
# Every third kill is of one backend, after which PostgreSQL recovers by itself.
BACKEND_SHARE = 1 / 3


def postgres_kills(
    seed: int, *, cycles: int = 50, writes: int = 500, synchronous_commit: bool = True, until_lost: bool = False
) -> Result:
    """So many kills, each after so many acknowledged writes. `until_lost`: no more once something is lost."""
    server = KillablePostgres(synchronous_commit=synchronous_commit)
    rng, began = random.Random(seed), time.monotonic()
    try:
        url = server.start()
        tokens = migrate(url, users=4)
        with tempfile.TemporaryDirectory() as folder, serving(url, Path(folder) / "log", tokens) as product:
            sessions, attempts = product.sessions(SESSIONS), Attempts()
            kills = 0
            for cycle in range(cycles):
                with writing(product, sessions, attempts, seed + cycle, WRITERS):
                    wait_for_writes(attempts, writes)
                    kill(server, rng)
                    kills += 1
                if until_lost and check(product, sessions, attempts):
                    break
            with writing(product, sessions, attempts, seed + cycles, WRITERS):
                wait_for_writes(attempts, writes)
            return Result.of("postgres killed", seed, began, product, sessions, attempts, kills)
    finally:
        server.stop()


def postgres_too_early(seed: int, *, writes: int = 100) -> Result:
    """The same on a PostgreSQL that acknowledges what it has not written: shows that the checker finds losses."""
    found = postgres_kills(seed, cycles=20, writes=writes, synchronous_commit=False, until_lost=True)
    return replace(found, scenario="synchronous_commit=off", must_lose=True)


def kill(server: KillablePostgres, rng: random.Random) -> None:
    if rng.random() < BACKEND_SHARE:
        server.kill_backend(rng.randrange(100))
    else:
        server.kill()
        time.sleep(rng.uniform(0, 0.3))
        server.start_again()
