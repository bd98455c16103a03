"""SIGHUP and SIGTERM to gunicorn under load: no request is lost.

A client may find a connection closed that it had kept without using it, and sends again (RFC 9112, 9.3.1).
Anything else that is refused, reset, cut or answered 5xx is a loss; after SIGTERM a connection may be refused.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
import psycopg

from torture.chats import SCRIPTED, last_event, script, text, words
from torture.checker import Attempt, Attempts
from torture.product import MARK, UNANSWERED, Client, Product
from torture.report import Result
from torture.store import Store, serving_on, store_at
from torture.worker_kills import is_ready
from torture.writers import send_once, some_write

# Workers boot on a busy machine meanwhile: what is tested is that an answer comes, not when.
PATIENCE_SECONDS = 60
LOCK_SECONDS = 1.0
SETTINGS = {"ASSISTANT": SCRIPTED, "DB_LOCK_TIMEOUT": "9", "DB_POOL_TIMEOUT": "9"}
SESSIONS = 8
# What a client may find that sends on a connection which it had kept.
CLOSED_IDLE = ("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError")


@dataclass
class Load:
    """Clients of each kind, until they are told to stop, and what became of their requests."""

    product: Product
    seed: int
    sessions: list[tuple[int, str]]
    attempts: Attempts = field(default_factory=Attempts)
    lost: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    stopped: threading.Event = field(default_factory=threading.Event)
    is_ending: bool = False  # The server was told to end: connections may be refused.

    def fresh(self, rng: random.Random) -> None:
        """Each write on a connection of its own."""
        while not self.stopped.is_set():
            write = some_write(rng, self.sessions)
            client = self.client(write.user)
            self.judge("fresh", send_once(client, write, self.attempts))
            client.close()

    def kept(self, rng: random.Random) -> None:
        """All on one connection, which lies idle in between."""
        user, session = rng.choice(self.sessions)
        client = self.client(user)
        while not self.stopped.is_set():
            write, was_kept = some_write(rng, [(user, session)]), client.link is not None
            attempt = send_once(client, write, self.attempts)
            if was_kept and attempt.error in CLOSED_IDLE:
                self.counts["closed idle"] += 1
                attempt = send_once(client, write, self.attempts)
            self.judge("kept", attempt)
            time.sleep(rng.uniform(0, 0.5))
        client.close()

    def slow(self, rng: random.Random) -> None:
        """Each write waits for a lock for a second."""
        user, session = self.product.sessions(1)[0]
        self.sessions.append((user, session))
        lock = "SELECT FROM conversations_session WHERE session_id = %s FOR UPDATE"
        with psycopg.connect(self.product.database_url) as holder:
            while not self.stopped.is_set():
                holder.execute(lock, [session])
                release = threading.Timer(LOCK_SECONDS, holder.commit)
                release.start()
                client = self.client(user)
                self.judge("slow", send_once(client, some_write(rng, [(user, session)]), self.attempts))
                client.close()
                release.join()

    def chat(self, rng: random.Random) -> None:
        """Short replies, on one connection."""
        client = self.client()
        while not self.stopped.is_set():
            was_kept = client.link is not None
            try:
                status = client.send("POST", "/api/chat", {"message": script(text(f"{MARK} Hello"))}).status
                if status != 200:
                    self.lost.append(f"a chat was answered {status}")
                self.counts["chats"] += 1
            except UNANSWERED as error:
                name = type(error).__name__
                if not ((was_kept and name in CLOSED_IDLE) or self.may_be(name)):
                    self.lost.append(f"a chat got {name}")
            time.sleep(rng.uniform(0, 0.3))
        client.close()

    def stream(self, rng: random.Random) -> None:
        """Replies of a second or so, each on a connection of its own; the last event is the final one."""
        while not self.stopped.is_set():
            try:
                last = last_event(self.product, words(10, rng.uniform(0.05, 0.15)), PATIENCE_SECONDS)
            except UNANSWERED as error:
                if not self.may_be(type(error).__name__):
                    self.lost.append(f"a stream got {type(error).__name__}")
            else:
                self.counts["streams"] += 1
                if last != "done":
                    self.lost.append(f"a stream ended with {last}")

    def client(self, user: int = 0) -> Client:
        return self.product.client(user, timeout=PATIENCE_SECONDS)

    def judge(self, kind: str, attempt: Attempt) -> None:
        if attempt.is_acknowledged:
            self.counts[kind] += 1
        elif not self.may_be(attempt.error):
            self.lost.append(f"{kind}: {attempt.error or attempt.status}")

    def may_be(self, error: str) -> bool:
        return self.is_ending and error == "ConnectionRefusedError"

    @contextmanager
    def running(self) -> Iterator[None]:
        """The clients, while the block runs; each waits for its last answer."""
        kinds = [*[self.fresh] * 4, *[self.kept] * 4, *[self.slow] * 2, *[self.chat] * 2, *[self.stream] * 3]
        threads = [
            threading.Thread(target=kind, args=[random.Random(f"{self.seed}-{number}")], daemon=True)
            for number, kind in enumerate(kinds)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join(PATIENCE_SECONDS)

    def take(self, other: Load) -> None:
        """What another one's clients have seen."""
        self.attempts.all += other.attempts.all
        self.attempts.keys |= other.attempts.keys
        self.lost += other.lost
        self.counts += other.counts

    def result(self, scenario: str, began: float, kills: int) -> Result:
        result = Result.of(scenario, self.seed, began, self.product, self.sessions, self.attempts, kills)
        result.lost += len(self.lost)
        result.said += [f"{count} times {what}" for what, count in Counter(self.lost).items()]
        result.notes.append(", ".join(f"{count} {what}" for what, count in sorted(self.counts.items())))
        return result


def restarts(
    seed: int, *, servers: int = 8, reloads: int = 4, pause: float = 1.5, at: Store | None = None
) -> Result:
    """So many servers under load, each reloaded so often and then shut down."""
    began = time.monotonic()
    with store_at(at) as store:
        loads = list[Load]()
        for number in range(servers):
            with serving_on(store, **SETTINGS) as product:
                loads.append(Load(product, seed + number, product.sessions(SESSIONS)))
                restart(loads[-1], reloads, pause)
                loads[-1].lost += [f"{what} in the log" for what in product.log_problems()]
        with serving_on(store) as product:
            whole = Load(product, seed, [each for load in loads for each in load.sessions])
            for load in loads:
                whole.take(load)
            return whole.result("gunicorn reloaded, shut down", began, servers * (reloads + 1))


def restart(load: Load, reloads: int, pause: float) -> None:
    """SIGHUPs, and a SIGTERM while a reply of some seconds is read."""
    ends: list[str] = []

    def read() -> None:
        with suppress(*UNANSWERED):
            ends.append(last_event(load.product, words(10, pause / 4), PATIENCE_SECONDS))

    reader = threading.Thread(target=read, daemon=True)
    with load.running():
        for _ in range(reloads):
            time.sleep(pause / 2)
            reload(load.product)
        reader.start()
        time.sleep(pause)
        load.is_ending = True
        load.product.process.send_signal(signal.SIGTERM)
        wait_until_refused(load)
        if not load.product.process.is_running() or load.product.process.status() == psutil.STATUS_ZOMBIE:
            load.lost.append("the port was closed no sooner than the process ended")
    reader.join(PATIENCE_SECONDS)
    if ends != ["done"]:
        load.lost.append(f"a reply that could have been finished ended with {ends}")


def reload(product: Product) -> None:
    """SIGHUP; returns when all workers are new and serve. TimeoutError."""
    old = {worker.pid for worker in product.workers}
    product.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        ready = {worker.pid for worker in product.workers if is_ready(worker)}
        if len(ready) == len(old) and not ready & old:
            return
        time.sleep(0.05)
    raise TimeoutError("The workers of before do not end.")


def wait_until_refused(load: Load) -> None:
    """Whoever comes is answered until then."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        client = load.client()
        try:
            client.send("GET", "/health/live")
        except ConnectionRefusedError:
            return
        except UNANSWERED as error:
            load.lost.append(f"somebody who came at the end got {type(error).__name__}")
        client.close()
    load.lost.append("the port stays open")
