"""Clients that append and, like good clients, send again with the same key until they have an answer."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torture.checker import Attempt, Attempts, digest_of
from torture.product import KEY_MARK, MARK, UNANSWERED, Answer, Client, Product

PATIENCE_SECONDS = 60
BATCH_SHARE = 0.15
# Of a writer's finished writes, sent once more.
LATER_SHARE = 0.05


class Write(NamedTuple):
    """One append of one message or a batch, by the user whose the session is."""

    user: int
    session: str
    key: str
    contents: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"/api/sessions/{self.session}/messages/{'' if len(self.contents) == 1 else 'batch/'}"

    @property
    def body(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": content, "tokens": len(content)} for content in self.contents]
        return messages[0] if len(messages) == 1 else {"messages": messages}

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(map(digest_of, self.contents))


def some_write(rng: random.Random, sessions: list[tuple[int, str]]) -> Write:
    user, session = rng.choice(sessions)
    key = f"{KEY_MARK} {rng.getrandbits(96):024x}"
    count = rng.randint(2, 5) if rng.random() < BATCH_SHARE else 1
    contents = (f"{MARK} {key} {number} {'ü' * rng.randint(0, 400)}" for number in range(count))
    return Write(user, session, key, tuple(contents))


def send_once(client: Client, write: Write, attempts: Attempts) -> Attempt:
    """One request, noted with what came back."""
    started = time.monotonic()
    answer: Answer | None = None
    error = ""
    try:
        answer = client.send("POST", write.path, write.body, Idempotency_Key=write.key)
    except UNANSWERED as unanswered:
        error = type(unanswered).__name__
    made: tuple[tuple[int, int], ...] = ()
    if answer and answer.status in (200, 201):
        rows = answer.body if isinstance(answer.body, list) else [answer.body]
        made = tuple((row["id"], row["position"]) for row in rows)
    attempt = Attempt(
        write.session,
        write.key,
        write.digests,
        started,
        ended=time.monotonic(),
        status=answer.status if answer else None,
        made=made,
        is_replay=bool(answer and answer.is_replay),
        error=error,
        retry_after=answer.headers.get("retry-after", "") if answer else "",
    )
    attempts.note(attempt)
    return attempt


def send_until_answered(client: Client, write: Write, attempts: Attempts, rng: random.Random) -> bool:
    """Send again after a lost answer or a 503, with the same key. Whether it was acknowledged."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        attempt = send_once(client, write, attempts)
        if not attempt.is_unknown:
            return attempt.is_acknowledged
        time.sleep(rng.uniform(0.02, 0.2))
    return False


@contextmanager
def writing(
    product: Product, sessions: list[tuple[int, str]], attempts: Attempts, seed: int, threads: int = 32
) -> Iterator[None]:
    """So many writers while the block runs; each finishes what it has begun."""
    stopped = threading.Event()

    def write(number: int) -> None:
        rng = random.Random(f"{seed}-{number}")
        clients = {user: product.client(user) for user, _ in sessions}
        written: list[Write] = []
        while not stopped.is_set():
            is_later = written and rng.random() < LATER_SHARE
            chosen = rng.choice(written) if is_later else some_write(rng, sessions)
            if send_until_answered(clients[chosen.user], chosen, attempts, rng) and not is_later:
                written.append(chosen)
        for client in clients.values():
            client.close()

    running = [threading.Thread(target=write, args=[number], daemon=True) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in running:
            thread.join(PATIENCE_SECONDS + 20)


def wait_for_writes(attempts: Attempts, count: int, seconds: float = PATIENCE_SECONDS) -> None:
    """Until so many more writes are acknowledged. TimeoutError."""
    wanted, until = attempts.acknowledged + count, time.monotonic() + seconds
    while attempts.acknowledged < wanted:
        if time.monotonic() > until:
            raise TimeoutError(f"{attempts.acknowledged} of {wanted} writes were acknowledged")
        time.sleep(0.02)
