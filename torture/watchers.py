"""Everybody who uses the store at once: every kind of route again and again, with what was answered and when."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any, NamedTuple

from torture.checker import Attempts
from torture.product import KEY_MARK, MARK, UNANSWERED, Client, Product
from torture.writers import Write, send_once

PATIENCE_SECONDS = 60
# A turn that has begun waits for the database as long as its lease allows.
WAITS_FOR_A_TURN = ("chat",)


class Seen(NamedTuple):
    """One answer, or None where no whole one came. Times by one clock."""

    route: str
    status: int | None
    retry_after: str
    started: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def is_success(self) -> bool:
        return self.status in (200, 201)

    @property
    def is_allowed(self) -> bool:
        """A success, or a 503 that says when to try again. Being alive needs no database."""
        if self.route == "live":
            return self.status == 200
        return self.is_success or (self.status == 503 and self.retry_after.isdigit())


@dataclass
class Log:
    """What all of them saw."""

    all: list[Seen] = field(default_factory=list)

    def between(self, begin: float, end: float) -> list[Seen]:
        return [seen for seen in list(self.all) if begin <= seen.ended < end]

    def problems(self, since: float, longest: float, *, turns: float) -> list[str]:
        """What was answered that may not be, and what took longer than `longest` seconds (`turns`, for a chat)."""
        seen = [each for each in list(self.all) if each.ended >= since]
        wrong = [f"{each.route} answered {each.status}" for each in seen if not each.is_allowed]
        for each in seen:
            bound = turns if each.route in WAITS_FOR_A_TURN else longest
            if each.seconds > bound:
                wrong.append(f"{each.route} took {each.seconds:.1f} s ({each.status}), more than {bound:.1f}")
        return [*wrong[:5], *([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else [])]


READS = {
    "list": "/api/sessions/?limit=20",
    "conversations": "/api/conversations",
    "get": "/api/sessions/{}/",
    "page": "/api/sessions/{}/messages/?limit=20",
    "search": f"/api/search/?q={MARK}",
    "usage": "/api/usage/?from=2026-01-01&to=2026-01-31",
    "admin": "/admin/login/",
    "health": "/health",
    "live": "/health/live",
}
ROUTES = (*READS, "append", "chat")


@contextmanager
def watching(
    product: Product,
    sessions: list[tuple[int, str]],
    attempts: Attempts,
    seed: str,
    *,
    each: int = 1,
    pause: float = 0.02,
    routes: tuple[str, ...] = ROUTES,
) -> Iterator[Log]:
    """So many clients for each kind of route, while the block runs; each request ends before it does.
    Another `seed` for each crowd: the same would send the same keys again."""
    log, stopped = Log(), threading.Event()

    def ask(route: str, number: int) -> None:
        rng = random.Random(f"{seed}-{route}-{number}")
        clients = {user: product.client(user, PATIENCE_SECONDS) for user, _ in sessions}
        while not stopped.wait(pause):
            user, session = rng.choice(sessions)
            clients[user].close()  # One that was kept may be ended by the server at the same moment.
            started = time.monotonic()
            status, wait = one(route, clients[user], user, session, attempts, rng)
            log.all.append(Seen(route, status, wait, started, time.monotonic()))
        for client in clients.values():
            client.close()

    running = [threading.Thread(target=ask, args=[route, n], daemon=True) for route in routes for n in range(each)]
    for thread in running:
        thread.start()
    try:
        yield log
    finally:
        stopped.set()
        for thread in running:
            thread.join(PATIENCE_SECONDS + 10)
        hung = sum(thread.is_alive() for thread in running)
        log.all += [Seen("hung", None, "", 0, time.monotonic())] * hung


def one(
    route: str, client: Client, user: int, session: str, attempts: Attempts, rng: random.Random
) -> tuple[int | None, str]:
    """One request; its status and its Retry-After."""
    if route == "append":
        key = f"{KEY_MARK} {rng.getrandbits(96):024x}"
        attempt = send_once(client, Write(user, session, key, (f"{MARK} {key}",)), attempts)
        return attempt.status, attempt.retry_after
    try:
        if route == "chat":
            answer = client.send("POST", "/api/chat", {"message": MARK})
        else:
            answer = client.send("GET", READS[route].format(session))
    except UNANSWERED:
        return None, ""
    return answer.status, answer.headers.get("retry-after", "")


# Streams


@dataclass
class Stream:
    """A stream of events that is read as it comes. `resume`: opened again with Last-Event-ID where it ends."""

    product: Product
    method: str
    path: str
    body: Any = None
    resume: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    last_id: str = ""
    opened: int = 0

    def run(self) -> None:
        while not self.stopped.is_set():
            with suppress(*UNANSWERED):
                self.read()
            if not self.resume:
                return
            time.sleep(0.2)

    def read(self) -> None:
        link = HTTPConnection("127.0.0.1", self.product.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Bearer {self.product.tokens[0]}", "Content-Type": "application/json"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        try:
            link.request(self.method, self.path, self.body and json.dumps(self.body), headers)
            answer = link.getresponse()
            self.opened += answer.status == 200
            while answer.status == 200 and not self.stopped.is_set() and (line := answer.readline()):
                if line.startswith(b"id: "):
                    self.last_id = line[4:].decode().strip()
                elif line.startswith(b"data: "):
                    self.events.append(json.loads(line[6:]))
        finally:
            link.close()

    @contextmanager
    def reading(self) -> Iterator[Stream]:
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            thread.join(5)
