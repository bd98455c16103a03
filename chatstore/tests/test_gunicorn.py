"""What the workers of gunicorn do before they serve."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from chatstore import gunicorn
from chatstore.settings import ENVIRONMENT
from chatstore.worker import Worker

pytestmark = pytest.mark.once


@pytest.fixture
def affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ENVIRONMENT.model_copy(update={"web_cpu_affinity": True})
    monkeypatch.setattr(gunicorn, "ENVIRONMENT", chosen)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 5, 7}, raising=False)


def forked(workers: dict[int, Any]) -> Any:
    worker = SimpleNamespace()
    gunicorn.pre_fork(SimpleNamespace(WORKERS=workers), worker)
    return worker


def test_each_worker_gets_a_processor_of_its_own(affinity: None) -> None:
    workers: dict[int, Any] = {}
    for pid in range(4):
        workers[pid] = forked(workers)
    assert [worker.processor for worker in workers.values()] == [2, 5, 7, 2]


def test_a_new_worker_takes_the_processor_of_the_one_that_is_lost(affinity: None) -> None:
    workers: dict[int, Any] = {}
    for pid in range(3):
        workers[pid] = forked(workers)
    del workers[1]
    assert forked(workers).processor == 5


def test_without_the_setting_the_system_chooses() -> None:
    assert not hasattr(forked({}), "processor")


def worker_of(parent: int, *listeners: socket.socket) -> Any:
    config = Config()
    arguments: list[Any] = [1, parent, listeners, None, 30, config, Logger(config)]
    return Worker(*arguments)


def test_tls_is_refused_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """Not each client, by a 400 in plain text."""
    config = Config()
    config.set("certfile", "server.pem")
    with pytest.raises(SystemExit):
        Worker.check_config(config, logging.getLogger())
    assert "ends TLS" in caplog.text
    Worker.check_config(Config(), logging.getLogger())


@pytest.mark.parametrize(("is_gone", "signals"), [(False, []), (True, [signal.SIGTERM])])
def test_a_worker_ends_as_at_a_sigterm_where_the_first_process_is_gone(is_gone: bool, signals: list[int]) -> None:
    """So that the port is free, running replies end, and clients are told."""
    seen: list[int] = []
    worker = worker_of(os.getpid() if is_gone else os.getppid())
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        assert worker.is_parent_alive()
    finally:
        signal.signal(signal.SIGTERM, before)
        worker.tmp.close()
    assert seen == signals


@pytest.mark.parametrize(("workers", "tells", "taken"), [(1, True, 3), (2, True, 2), (3, True, 1), (2, False, 3)])
def test_who_opens_many_connections_finds_several_workers(
    monkeypatch: pytest.MonkeyPatch, workers: int, tells: bool, taken: int
) -> None:
    """One that has taken its share lets the others look first, and then looks again by itself."""
    monkeypatch.setattr("chatstore.worker.OTHERS_FIRST_SECONDS", 0.2)
    if not tells:  # Systems but Linux.
        monkeypatch.delattr(socket, "TCP_INFO")
    listener = socket.create_server(("127.0.0.1", 0))
    worker = worker_of(os.getppid(), listener)
    worker.cfg.set("workers", workers)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    with selectors.DefaultSelector() as worker.poller:
        for _ in range(3):
            worker.set_accept_enabled(True)
            worker.wait_for_and_dispatch_events(0)
        assert worker.nr_conns == taken
        began = time.monotonic()
        while worker.nr_conns < 3:
            worker.set_accept_enabled(True)
            worker.wait_for_and_dispatch_events(10)
        assert time.monotonic() - began < 5
    worker.tmp.close()
    for each in [*clients, *worker.pending_conns, listener]:
        each.close()


def test_a_worker_takes_no_more_connections_than_it_may_have() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    worker = worker_of(os.getppid(), listener)
    worker.worker_connections = 2
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    with selectors.DefaultSelector() as worker.poller:
        worker.accept(listener)
        assert worker.nr_conns == 2
    worker.tmp.close()
    for each in [*clients, *worker.pending_conns, listener]:
        each.close()


def test_without_descriptors_a_share_is_not_waited_for_and_a_port_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[float] = []

    def accept() -> Any:
        tried.append(time.monotonic())
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("chatstore.worker.waiting_at", lambda listener: 100)
    closed: list[bool] = []
    listener = SimpleNamespace(accept=accept, close=lambda: closed.append(True))
    worker = worker_of(os.getppid())
    worker.sockets = [listener]
    worker.accept(listener)
    assert len(tried) == 1
    worker.alive = False
    worker.set_accept_enabled(False)
    worker.tmp.close()
    assert closed


def test_a_worker_that_ends_takes_whoever_waits_and_leaves_the_port() -> None:
    """Whoever comes later is refused at once."""
    taken = list[Any]()
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    worker = worker_of(os.getppid(), listener)
    worker.enqueue_req = taken.append
    with selectors.DefaultSelector() as worker.poller:
        worker.set_accept_enabled(True)
        clients = [socket.create_connection(address) for _ in range(3)]
        worker.alive = False
        for _ in range(2):
            worker.set_accept_enabled(False)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    worker.tmp.close()
    for each in [*clients, *taken]:
        each.close()
    assert len(taken) == 3


def test_a_worker_that_ends_does_not_wait_for_who_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Browsers and balancers connect in advance; who has begun a request is waited for."""
    monkeypatch.setattr("chatstore.worker.LEAVE_SECONDS", 0)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    worker = worker_of(os.getppid(), listener)
    with selectors.DefaultSelector() as worker.poller:
        worker.set_accept_enabled(True)
        speaking, silent = (socket.create_connection(listener.getsockname(), timeout=5) for _ in range(2))
        speaking.sendall(b"GET")
        worker.accept_all(listener)
        worker.murder_pending()
        assert worker.nr_conns == 2
        worker.alive = False
        worker.set_accept_enabled(False)
        worker.murder_pending()
        assert [bytes(conn.head) for conn in worker.pending_conns] == [b"GET"]
        assert worker.nr_conns == 1
    assert silent.recv(1) == b""
    worker.tmp.close()
    for each in (speaking, silent, *worker.pending_conns):
        each.close()
