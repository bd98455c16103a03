"""How long gunicorn's threads wait for clients (torture/tests/test_slow.py tries it with many), and who begins."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker

from chatstore import worker
from chatstore.http import bodies
from chatstore.worker import Link, Worker, small_body

pytestmark = pytest.mark.once

real_monotonic = time.monotonic


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Link, socket.socket]]:
    """A server's side with one place to wait, and its client."""
    monkeypatch.setattr(worker, "SEND_SECONDS", 1)
    monkeypatch.setattr(worker, "BODY_SECONDS", 0.5)
    ours, theirs = socket.socketpair()
    with closing(Link(ours, threading.Semaphore(1))) as link, closing(theirs):
        yield link, theirs


def test_what_does_not_come_is_given_up(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    client.sendall(b"a")
    assert link.recv(10) == b"a"
    with pytest.raises(ConnectionResetError):
        link.recv(10)
    assert link.is_given_up


def test_a_byte_now_and_then_does_not_help(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    ended = threading.Event()

    def trickle() -> None:
        while not ended.wait(0.1):
            client.sendall(b"a")

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        with pytest.raises(ConnectionResetError):
            [link.recv(10) for _ in range(100)]
    finally:
        ended.set()
        sender.join()


def test_what_is_not_read_is_given_up(pair: tuple[Link, socket.socket]) -> None:
    link, _ = pair
    began = time.monotonic()
    with pytest.raises(ConnectionResetError):
        link.sendall(b"a" * 10_000_000)
    assert time.monotonic() - began >= 1


def test_one_too_many_is_given_up_at_once(pair: tuple[Link, socket.socket]) -> None:
    link, client = pair
    link.places.acquire()
    client.sendall(b"a")
    assert link.recv(10) == b"a"  # Nothing to wait for.
    with pytest.raises(ConnectionResetError, match="Too many"):
        link.recv(10)


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ("content-LENGTH:  16384 ", 16_384),
        ("Content-Length: 16385", 0),
        ("Content-Length: 9999999", 0),
        ("Content-Length: 5\r\nExpect: 100-continue", 0),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 0),
        ("X-Content-Length: 5", 0),
    ],
)
def test_which_bodies_the_loop_waits_for(fields: str, length: int) -> None:
    assert small_body(f"POST / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n".encode()) == length


def test_what_the_loop_waits_for_is_what_a_view_finds_there() -> None:
    assert worker.SMALL_BODY == bodies.SMALL_BODY


class Asking:
    """A connection whose request is there, and lasts until it is answered."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.is_given_up = False

    @property
    def sock(self) -> Asking:
        return self

    def has_head(self) -> bool:
        return True


class Serving(Worker):
    """The part of a worker that says who is served. `given` is what its threads have got."""

    def __init__(self, threads: int = 300) -> None:
        self.ready, self.ready_since, self.begun = SimpleQueue(), deque(), {}
        self.tpool = ThreadPoolExecutor(threads)
        self.method_queue = self
        self.asked: list[Any] = []
        self.given: list[Any] = []
        self.ended: list[tuple[Any, bool]] = []

    def defer(self, finish: Any, conn: Any, stays: bool) -> None:
        self.ended.append((conn, stays))

    def handle(self, conn: Any) -> bool:
        self.given.append(conn)
        conn.answered.wait(10)
        return False


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Serving]:
    server, running = Serving(getattr(request, "param", 300)), threading.Event()
    monkeypatch.setattr(ThreadWorker, "run", lambda _: running.wait(20))
    loop = threading.Thread(target=server.run)
    loop.start()
    yield server
    for conn in server.asked:
        conn.answered.set()
    running.set()
    loop.join()
    server.tpool.shutdown(wait=False)
    have_gone = until(lambda: not any(thread.is_alive() for thread in server.tpool._threads))
    for _ in range(300):
        server.ready.put(None)
    assert have_gone


def until(is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so within a moment, and stays so for another."""
    end = real_monotonic() + 5
    while not is_so() and real_monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.05)
    return is_so()


def asked(server: Serving, count: int) -> list[Any]:
    conns: list[Any] = [Asking() for _ in range(count)]
    server.asked += conns
    for conn in conns:
        server.enqueue_req(conn)
    return conns


def test_few_requests_begin_at_once(server: Serving) -> None:
    conns = asked(server, worker.AT_ONCE + 2)
    assert until(lambda: server.given == conns[:-2])
    conns[1].answered.set()
    assert until(lambda: server.given == conns[:-1])
    assert server.ended == [(conns[1], False)]


@pytest.mark.parametrize("count", [6, 200])
def test_behind_slow_ones_nobody_waits_long(monkeypatch: pytest.MonkeyPatch, server: Serving, count: int) -> None:
    """None of them ends."""
    began = now = time.monotonic()
    monkeypatch.setattr("chatstore.worker.time.monotonic", lambda: now)
    asked(server, count)
    waited = list[float]()
    while len(server.given) < count:
        assert real_monotonic() - began < 10
        waited.append(server.relieve())
        now += waited[-1] if len(server.begun) == worker.AT_ONCE else 0
        time.sleep(0.0005)
    assert max(waited) == pytest.approx(worker.BRIEF_SECONDS)
    assert now - began <= worker.PATIENCE_SECONDS + 0.001
    assert server.relieve() == float("inf")


def test_as_many_serve_after_slow_ones_as_before(server: Serving) -> None:
    slow = asked(server, worker.AT_ONCE + 3)
    assert until(lambda: server.relieve() == float("inf"))
    assert server.given == slow
    for conn in slow:
        conn.answered.set()
    assert until(lambda: len(server.ended) == len(slow))
    quick = asked(server, worker.AT_ONCE + 1)
    assert until(lambda: server.given == [*slow, *quick[:-1]])


def test_an_error_ends_one_connection_and_its_thread_serves_on(
    monkeypatch: pytest.MonkeyPatch, server: Serving
) -> None:
    def fail(conn: Asking) -> bool:
        raise SystemExit

    monkeypatch.setattr(server, "handle", fail)
    conns = asked(server, 3 * worker.AT_ONCE)
    assert until(lambda: sorted(map(id, conns)) == sorted(id(conn) for conn, _ in server.ended))
    assert all(conn.is_given_up for conn in conns)


@pytest.mark.parametrize("server", [1], indirect=True)
def test_where_all_threads_are_slow_the_loop_does_not_spin(server: Serving) -> None:
    slow, waiting = asked(server, 2)
    assert until(lambda: server.given == [slow])
    assert server.relieve() == 0
    assert server.relieve() == worker.BRIEF_SECONDS
    slow.answered.set()
    assert until(lambda: server.given == [slow, waiting])
