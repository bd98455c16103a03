"""How long gunicorn's threads wait for clients (torture/tests/test_slow.py tries it with many), and who begins."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker

from chatstore import worker
from chatstore.http import bodies
from chatstore.worker import Link, Worker, small_body

pytestmark = pytest.mark.once


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
    """A connection whose request is there."""

    is_given_up = False

    @property
    def sock(self) -> Asking:
        return self


class Begun(Worker):
    """The part of a worker that says which requests begin."""

    def __init__(self, ready: list[Any]) -> None:
        self.ready, self.begun = dict.fromkeys(ready, time.monotonic()), {}
        self.poller = selectors.DefaultSelector()


@pytest.fixture
def many() -> list[Any]:
    return [Asking() for _ in range(worker.AT_ONCE + 2)]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the threads have got."""
    given: list[Any] = []
    monkeypatch.setattr(ThreadWorker, "enqueue_req", lambda _, conn: given.append(conn))
    monkeypatch.setattr(ThreadWorker, "finish_request", lambda *_: None)
    return given


def test_few_requests_begin_at_once(many: list[Any], given: list[Any]) -> None:
    server, ended = Begun(many), Future[bool]()
    server.begin_ready()
    server.begin_ready()
    assert given == many[:-2]
    ended.set_result(True)
    server.finish_request(many[1], ended)
    server.begin_ready()
    assert given == many[:-1]


@pytest.mark.parametrize("count", [6, 200])
def test_behind_slow_ones_nobody_waits_long(monkeypatch: pytest.MonkeyPatch, given: list[Any], count: int) -> None:
    """None of them ends."""
    now = 1000.0
    monkeypatch.setattr("chatstore.worker.time.monotonic", lambda: now)
    many: list[Any] = [Asking() for _ in range(count)]
    server, waited = Begun(many), list[float]()

    def wait(_: Worker, timeout: float) -> None:
        nonlocal now
        waited.append(timeout)
        now += timeout

    monkeypatch.setattr(ThreadWorker, "wait_for_and_dispatch_events", wait)
    server.begin_ready()
    while len(given) < count:
        server.wait_for_and_dispatch_events(10)
    assert given == many
    assert waited[0] == pytest.approx(worker.BRIEF_SECONDS)
    assert sum(waited) <= worker.PATIENCE_SECONDS + 0.001
