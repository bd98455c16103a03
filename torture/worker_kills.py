"""Workers of gunicorn are killed (kill -9) again and again under writers: nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress

import psutil

from torture.checker import Attempts
from torture.product import Product
from torture.report import Result
from torture.store import Store, serving_on, store_at
from torture.writers import wait_for_writes, writing

SESSIONS = 20
WRITERS = 32
PAUSE_SECONDS = 0.3
MOST_SECONDS = 90
WORKERS = 4
# Forked from a master that has loaded the product, a new one is there at once: it would take seconds else.
PRELOADED = {"GUNICORN_CMD_ARGS": "--preload", "FAULTS": os.devnull}


def worker_kills(seed: int, *, seconds: float = 60, kills: int = 0, at: Store | None = None) -> Result:
    """Kills for so long, and so many at least; between them writes, or the writers would prove nothing."""
    rng, began = random.Random(seed), time.monotonic()
    settings = {"WEB_WORKERS": str(WORKERS), **PRELOADED}
    with store_at(at) as store, serving_on(store, "torture.faulty:application", **settings) as product:
        sessions, attempts, killed = product.sessions(SESSIONS), Attempts(), 0
        with writing(product, sessions, attempts, seed, WRITERS):
            until = time.monotonic() + seconds
            while time.monotonic() < until or (killed < kills and time.monotonic() - began < MOST_SECONDS):
                time.sleep(PAUSE_SECONDS)
                killed += kill_one(product, rng)
            wait_for_writes(attempts, 1)
        return Result.of("workers killed", seed, began, product, sessions, attempts, killed)


def kill_one(product: Product, rng: random.Random) -> bool:
    """kill -9 of a worker that serves, if there is one; those that still boot would never come to it."""
    ready = [worker for worker in product.workers if is_ready(worker)]
    if not ready:
        return False
    rng.choice(ready).kill()
    return True


def is_ready(worker: psutil.Process) -> bool:
    """Its keeper runs, in a thread of its own; while it boots there is only the main thread."""
    with suppress(psutil.NoSuchProcess):
        return worker.status() != psutil.STATUS_ZOMBIE and worker.num_threads() > 1
    return False
