"""Clients that are slow on purpose, many at once; whoever is put out comes again."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle

from torture.product import UNANSWERED, Product
from torture.raw_requests import CHUNKED, head

TICK_SECONDS = 0.2
# Sooner would be a flood, which is another thing.
AGAIN_SECONDS = 10


@dataclass
class Slow:
    """A way to be slow: what is sent at once, and then again and again."""

    first: bytes = b""
    then: bytes = b""
    reads: bool = True


def ways(token: str, big: str) -> dict[str, Slow]:
    """By name. `big` is the path of an answer of several megabytes."""
    form = b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n"
    form += b"Content-Type: application/x-www-form-urlencoded\r\n\r\nusername="
    return {
        "silent": Slow(),
        "heads": Slow(b"GET /api/sessions/ HTTP/1.1\r\nHost: localhost\r\nX-One: ", b"a"),
        "bodies": Slow(head(token, "Content-Length: 9000"), b" "),
        "big bodies": Slow(head(token, "Content-Length: 8000000") + b" " * 60_000, b" "),
        "chunks": Slow(head("nobody", CHUNKED), b"1\r\n \r\n"),
        "a huge chunk": Slow(head("nobody", CHUNKED) + b"f" * 20 + b"\r\n", b" "),
        "forms": Slow(form, b"a"),
        "who does not leave": Slow(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        "who does not read": Slow(head(token, line=f"GET {big} HTTP/1.1"), reads=False),
    }


@dataclass
class Crowd:
    """Sockets that are slow, so many of each way in turn."""

    port: int
    ways: list[Slow]
    count: int
    opened: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        turn = cycle(self.ways)
        chosen = [next(turn) for _ in range(self.count)]
        links: list[socket.socket | None] = [None] * self.count
        opens_at = [0.0] * self.count
        while not self.stopped.is_set():
            for number, way in enumerate(chosen):
                if links[number] or opens_at[number] < time.monotonic():
                    links[number] = self.step(links[number], way)
                    opens_at[number] = time.monotonic() + AGAIN_SECONDS
            self.stopped.wait(TICK_SECONDS)
        for link in links:
            if link:
                link.close()

    def step(self, link: socket.socket | None, way: Slow) -> socket.socket | None:
        """Send a little more; where the server has ended the connection, make another."""
        try:
            if link is None:
                link = socket.socket()
                if not way.reads:
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                link.settimeout(2)
                link.connect(("127.0.0.1", self.port))
                self.opened += 1
                link.sendall(way.first)
                link.setblocking(False)
            elif way.then:
                link.send(way.then)
            if way.reads and way.then and is_ended(link):
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            if link:
                link.close()
            return None
        return link


def is_ended(link: socket.socket) -> bool:
    with suppress(BlockingIOError):
        return not link.recv(65_536)
    return False


@contextmanager
def crowding(product: Product, slow: list[Slow], count: int) -> Iterator[Crowd]:
    crowd = Crowd(product.port, slow, count)
    thread = threading.Thread(target=crowd.run, daemon=True)
    thread.start()
    try:
        yield crowd
    finally:
        crowd.stopped.set()
        thread.join(30)


@dataclass
class Times:
    """How long requests took, in seconds, sorted; and how many got no answer, or another than 200."""

    seconds: list[float]
    failed: int

    @property
    def p95(self) -> float:
        return self.seconds[int(len(self.seconds) * 0.95)]

    @property
    def longest(self) -> float:
        return self.seconds[-1]


def times(product: Product, path: str, seconds: float, pause: float = 0.01) -> Times:
    """What somebody sees who asks for `path` again and again, every other time on a new connection."""
    taken, failed, client = list[float](), 0, product.client()
    until = time.monotonic() + seconds
    while time.monotonic() < until or not taken:
        began = time.monotonic()
        try:
            failed += client.send("GET", path).status != 200
        except UNANSWERED:
            failed += 1
        taken.append(time.monotonic() - began)
        if len(taken) % 2:
            client.close()
            client = product.client()
        time.sleep(pause)
    client.close()
    return Times(sorted(taken), failed)
