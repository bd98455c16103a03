"""Each write is sent three times at once and once more later, by users who share keys: stored once (promise 2)."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from torture.keyed import Answers, Keyed, some_writes
from torture.product import Product
from torture.report import Result
from torture.store import server_for

AT_ONCE = 3
WRITES_AT_ONCE = 12


def retry_storm(seed: int, *, writes: int = 2000, on: Product | None = None) -> Result:
    """So many writes, each four times, to two workers."""
    rng = random.Random(seed)
    with server_for(on) as server:
        chosen, answers = some_writes(server, rng, writes), Answers(server, seed)
        before = [worker.cpu_times().user for worker in server.workers]
        storm(answers, chosen)
        rng.shuffle(chosen)
        with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
            list(pool.map(lambda write: answers.send(write, server.port), chosen))
        busy = sum(worker.cpu_times().user > was for worker, was in zip(server.workers, before, strict=True))
        result = answers.result("retry storm", chosen)
        result.notes.append(f"{sum(map(len, answers.acknowledged.values()))} answers of {busy} workers")
        return result


def storm(answers: Answers, writes: list[Keyed]) -> None:
    """Each one three times in the same moment."""
    with ThreadPoolExecutor(WRITES_AT_ONCE) as lanes, ThreadPoolExecutor(WRITES_AT_ONCE * AT_ONCE) as senders:

        def send_at_once(write: Keyed) -> None:
            start = Barrier(AT_ONCE)

            def send() -> None:
                start.wait()
                answers.send(write, answers.product.port)

            for job in [senders.submit(send) for _ in range(AT_ONCE)]:
                job.result()

        list(lanes.map(send_at_once, writes))
