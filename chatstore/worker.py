"""gunicorn's worker of threads, for clients that send or read slowly, on purpose or not.

gunicorn's own gives a thread to each new connection, which then waits for the rest of a request without an end.
Here the loop that accepts connections reads the heads of requests and small bodies, as they come, and a thread
takes over where one is whole. A longer body that does not arrive, and an answer that nobody reads, hold a thread
for so long and no longer. Few threads serve at once, each one request after the other; where one takes long,
another serves in its place.
"""

from __future__ import annotations

import errno
import math
import re
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

# For what the loop reads of a request, in all.
HEAD_SECONDS: Final = 10
# That a thread waits for the rest of a request in all, and one second more for so many bytes that came.
BODY_SECONDS: Final = 10
# That one send may be blocked, and all of a piece in all, with one second more for so many bytes.
SEND_SECONDS: Final = 30
BYTES_PER_SECOND: Final = 16 * 1024
# Longer ones are for gunicorn to refuse, in a thread.
MAX_HEAD: Final = 64 * 1024
# For a client that is told to go.
LEAVE_SECONDS: Final = 2
# Of a thread at Python's lock, while a worker ends.
SHORT_TURN_SECONDS: Final = 0.00001
# Of the threads, those that may wait for clients at once: the others serve whoever is quick.
WAITING_SHARE: Final = 0.5
# Threads that serve at once. They take turns at Python's lock: with more there are more turns, and more of
# PostgreSQL's processes, for the same work.
AT_ONCE: Final = 4
# A request that takes longer waits for something, or streams: another thread serves beside it.
BRIEF_SECONDS: Final = 0.02
# Nobody waits longer to begin, however many slow ones came before.
PATIENCE_SECONDS: Final = 0.1
# After new connections: who opens several at once would find them all with the worker that woke up first, and the
# processors of the others idle.
OTHERS_FIRST_SECONDS: Final = 0.0005
# In Linux's struct tcp_info of a port, how many wait for accept().
WAITING: Final = struct.Struct("24xI")
# Between two signs of life to the first process.
SIGN_SECONDS: Final = 0.5

# A body of so many bytes is read by the loop, too, unless its client waits to be asked for it.
SMALL_BODY: Final = 16 * 1024
LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,5})[ \t]*\r\n", re.IGNORECASE)
NOT_WAITED_FOR: Final = re.compile(rb"\r\n(?:transfer-encoding|expect)[ \t]*:", re.IGNORECASE)
# A head's last line, or a line that ends as none may: gunicorn says so at once.
END_OF_HEAD: Final = re.compile(rb"\r\n\r\n|(?<!\r)\n")
TRY_LATER: Final = (errno.EAGAIN, errno.ECONNABORTED, errno.EMFILE, errno.ENFILE)


class Link(socket.socket):
    """A client's connection, that a thread reads and writes. Where the client is too slow, or too many are slow at
    once, ConnectionResetError: as if it had gone away."""

    def __init__(self, accepted: socket.socket, places: threading.Semaphore) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        # Not settimeout, with which Python waits for the socket before each send.
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        self.places, self.is_given_up = places, False
        self.begin_request()

    def begin_request(self) -> None:
        self.waited, self.received = 0.0, 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        limit = self.gettimeout()
        if limit == 0:  # The loop, which never waits.
            return super().recv(size, flags)
        if limit:  # gunicorn, which reads what nobody wanted.
            with self.waiting(limit):
                return super().recv(size, flags)
        try:
            data = super().recv(size, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            began = time.monotonic()
            with self.waiting(BODY_SECONDS + self.received / BYTES_PER_SECOND - self.waited):
                data = super().recv(size, flags)
            self.waited += time.monotonic() - began
        self.received += len(data)
        return data

    def sendall(self, data: Any, flags: int = 0) -> None:
        try:
            sent = super().send(data, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if left := memoryview(data)[sent:]:
            until = time.monotonic() + SEND_SECONDS + len(left) / BYTES_PER_SECOND
            with self.waiting(None):
                while left and time.monotonic() < until:
                    left = left[super().send(left, flags) :]
                if left:
                    raise TimeoutError

    @contextmanager
    def waiting(self, seconds: float | None) -> Iterator[None]:
        """Take one of the places of those who wait, and wait so long at most; None where the socket's own limit of
        a send (SO_SNDTIMEO) counts."""
        if not self.places.acquire(blocking=False):
            self.is_given_up = True
            raise ConnectionResetError(errno.ECONNRESET, "Too many clients are slow.")
        try:
            self.settimeout(None if seconds is None else max(0.001, seconds))
            yield
        except (BlockingIOError, TimeoutError):
            self.is_given_up = True
            raise ConnectionResetError(errno.ECONNRESET, "The client is too slow.") from None
        finally:
            self.places.release()
            self.settimeout(None)


class Connection(TConn):
    """A connection, and what has come of its next request while no thread has it."""

    sock: Link

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.forget()

    def forget(self) -> None:
        self.head, self.searched, self.wanted, self.is_ready = bytearray(), 0, 0, False

    def has_head(self) -> bool:
        """Read what is there. Whether a thread can go on: with a whole head and a small body, with what is to be
        refused, or with the end."""
        if self.is_ready:
            return True
        if self.parser:
            self.head += self.parser.unreader.take_buffered()
        self.sock.setblocking(False)
        while not self.ends():
            try:
                data = self.sock.recv(MAX_HEAD)
            except BlockingIOError:
                return False
            except OSError:
                break
            if not data:
                break
            self.head += data
        self.is_ready = True
        return True

    def ends(self) -> bool:
        """Looks only at what is new, since a head may come byte by byte."""
        if not self.wanted and (found := END_OF_HEAD.search(self.head, max(0, self.searched - 3))):
            self.wanted = found.end() + small_body(bytes(self.head[: found.end()]))
        self.searched = len(self.head)
        return len(self.head) > MAX_HEAD or 0 < self.wanted <= len(self.head)

    def begin_request(self) -> None:
        """In a thread: hand over to gunicorn's parser what has been read."""
        self.sock.setblocking(True)
        self.sock.begin_request()
        self.init()
        self.parser.unreader.unread(bytes(self.head))
        self.forget()


def waiting_at(listener: Any) -> int:
    """How many clients wait at a port, of TCP; 0 where the system does not tell."""
    try:
        found = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, WAITING.size)
        return int(WAITING.unpack(found)[0])
    except (OSError, AttributeError):
        return 0


def small_body(head: bytes) -> int:
    """The length of the body that the loop waits for, after this head; 0 for none."""
    found = None if NOT_WAITED_FOR.search(head) else LENGTH.search(head)
    length = int(found[1]) if found else 0
    return length if length <= SMALL_BODY else 0


class Worker(ThreadWorker):
    sockets: list[Any]
    pending_conns: deque[Connection]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.places = threading.Semaphore(max(1, int(self.cfg.threads * WAITING_SHARE)))
        self.leaving: deque[Connection] = deque()
        # Whose request is there; None sends a thread home.
        self.ready: SimpleQueue[Connection | None] = SimpleQueue()
        # Since when, by the clock of time.monotonic; the earliest first.
        self.ready_since: deque[float] = deque()
        self.begun: dict[Connection, float] = {}
        # Threads hand connections back to the loop, until it ends.
        self.handing_back = threading.Lock()
        self.silent_until = float("inf")
        self.accepts_from: float | None = None  # While others may look first.
        self.signed = 0.0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """TLS ends in front: the loop reads heads as they come, and would answer a handshake with 400."""
        if cfg.is_ssl:
            log.error("This service takes no certfile or keyfile: put a proxy in front that ends TLS.")
            raise SystemExit(1)
        super().check_config(cfg, log)

    def is_parent_alive(self) -> bool:
        """Where the first process is gone, end as at a SIGTERM. gunicorn's own goes on with the connections that
        it has, says nothing to its clients, and holds the port, so that no other can take its place."""
        if not super().is_parent_alive():
            signal.raise_signal(signal.SIGTERM)
        return True

    def accept(self, listener: Any) -> None:
        """Take a share of those who wait, and let the others look first at who comes next. One where the system
        does not tell how many wait."""
        waiting, before = waiting_at(listener), self.nr_conns
        share = min(math.ceil(waiting / self.cfg.workers), self.worker_connections - before)
        for _ in range(max(1, share)):
            if not self.accept_one(listener):
                break
        if waiting and self.cfg.workers > 1 and self.nr_conns > before:
            self.accepts_from = time.monotonic() + OTHERS_FIRST_SECONDS
            super().set_accept_enabled(False)

    def accept_one(self, listener: Any) -> bool:
        """Whether there was one."""
        try:
            accepted, address = listener.accept()
        except OSError as error:
            if error.errno not in TRY_LATER:
                raise
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.05)  # Until others have ended.
            return False
        self.nr_conns += 1
        self.enqueue_req(Connection(self.cfg, Link(accepted, self.places), address, listener.getsockname()))
        return True

    def set_accept_enabled(self, enabled: bool) -> None:
        """At its end: take whoever waits at the port, and leave it. gunicorn's own keeps it until its last answer,
        and whoever comes meanwhile waits for seconds and is reset. At a reload the master keeps it open."""
        if enabled and self.accepts_from:
            return  # gunicorn asks again at the next turn of the loop.
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            self.silent_until = min(self.silent_until, time.monotonic() + LEAVE_SECONDS)
            # Whoever comes between the last look and the close is reset: it must not take until a thread ends its
            # turn, of 5 ms.
            sys.setswitchinterval(SHORT_TURN_SECONDS)
            for listener in self.sockets:
                self.accept_all(listener)
                # Python keeps its lock while it asks that, and until it closes.
                while waiting_at(listener) and self.accept_one(listener):
                    pass
                listener.close()
            self.sockets = []

    def accept_all(self, listener: Any) -> None:
        while self.accept_one(listener):
            pass

    def run(self) -> None:
        try:
            for _ in range(AT_ONCE):
                self.tpool.submit(self.serve)
            super().run()
        finally:
            for _ in range(AT_ONCE):
                self.ready.put(None)

    def notify(self) -> None:
        """gunicorn's own says so at every turn of the loop."""
        if time.monotonic() - self.signed >= SIGN_SECONDS:
            super().notify()
            self.signed = time.monotonic()

    def enqueue_req(self, conn: Connection) -> None:
        """Give the connection to a thread as soon as the head of a request is there."""
        if conn.has_head():
            self.ready_since.append(time.monotonic())
            self.ready.put(conn)
            return
        conn.timeout = time.monotonic() + HEAD_SECONDS
        self.pending_conns.append(conn)
        more = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, more)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self.accepts_from:
            left = self.accepts_from - time.monotonic()
            timeout = max(0.0, min(timeout, left))
            self.accepts_from = self.accepts_from if left > 0 else None
        super().wait_for_and_dispatch_events(min(timeout, self.relieve()))

    def relieve(self) -> float:
        """While somebody waits: have another thread serve in the place of the one that has taken longest. In how
        many seconds to look again."""
        try:
            ready = self.ready_since[0]
            conn, begun = next(iter(self.begun.items()), (None, 0.0))
        except IndexError:
            return float("inf")
        except RuntimeError:  # A thread has begun or ended in this moment.
            return 0
        if conn is None:  # All are in other threads' hands.
            return BRIEF_SECONDS
        left = min(begun + BRIEF_SECONDS, ready + PATIENCE_SECONDS) - time.monotonic()
        if left > 0:
            return left
        if self.begun.pop(conn, None) is not None:  # Unless it has ended in this moment.
            with suppress(RuntimeError):  # The system has no thread for it: one that ends its request serves.
                self.tpool.submit(self.serve)
        return 0

    def on_pending_socket_readable(self, conn: Connection, client: Any) -> None:
        if conn.has_head():
            super().on_pending_socket_readable(conn, client)

    def serve(self) -> None:
        """In a thread: one request after the other, until another thread serves in its place."""
        is_relieved = False
        while not is_relieved and (conn := self.ready.get()):
            self.ready_since.popleft()
            self.begun[conn] = time.monotonic()
            try:
                stays = self.handle(conn)
            except BaseException:  # It ends this connection, and not those to come.
                stays, conn.sock.is_given_up = False, True
            is_relieved = self.begun.pop(conn, None) is None
            if not (stays and self.hand_back(conn)):
                self.method_queue.defer(self.finish, conn, stays)

    def handle(self, conn: Connection) -> Any:
        """One request. Whether another one may follow."""
        conn.begin_request()
        return super().handle(conn)

    def hand_back(self, conn: Connection) -> bool:
        """To the loop, where nothing is left to do but to wait for the next request."""
        with self.handing_back:
            is_quiet = self.alive and not conn.sock.is_given_up and not conn.parser.unreader.buf.getvalue()
            return is_quiet and self.keep(conn)

    def keep(self, conn: Connection) -> bool:
        """Have the loop wait for the next request. False where it cannot."""
        conn.set_timeout()
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
        self.keepalived_conns.append(conn)
        try:
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))
        except (OSError, ValueError):  # The socket is closed, the loop is, or the kernel watches no more.
            self.keepalived_conns.remove(conn)
            return False
        return True

    def murder_keepalived(self, force: bool = False) -> None:
        with self.handing_back:
            super().murder_keepalived(force)

    def _cap_keepalive(self, deadline: float) -> None:
        with self.handing_back:
            super()._cap_keepalive(deadline)

    def finish(self, conn: Connection, stays: bool) -> None:
        """In the loop. gunicorn's own waits two seconds for each client that is told to go, and nobody else is
        served."""
        if conn.sock.is_given_up:
            self.end(conn)
        elif not stays:
            self.take_leave(conn)
        elif conn.parser.unreader.buf.getvalue():  # Its next request, or a part of it.
            self.enqueue_req(conn)
        elif not self.keep(conn):
            self.end(conn)

    def take_leave(self, conn: Connection) -> None:
        """Say that no more comes, and read what the client still sends: a reset could take the answer from it."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.end(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + LEAVE_SECONDS
        self.leaving.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_leaving_socket_readable, conn))

    def on_leaving_socket_readable(self, conn: Connection, client: Any) -> None:
        try:
            is_gone = not conn.sock.recv(MAX_HEAD)
        except BlockingIOError:
            return
        except OSError:
            is_gone = True
        if is_gone:
            self.leaving.remove(conn)
            self.poller.unregister(conn.sock)
            self.end(conn)

    def murder_pending(self) -> None:
        """At the end of this process who has sent nothing has as long as who is kept alive."""
        if not self.alive:
            for conn in self.pending_conns:
                if not conn.head:
                    conn.timeout = min(conn.timeout, self.silent_until)
            self.pending_conns = deque(sorted(self.pending_conns, key=lambda conn: conn.timeout))
        super().murder_pending()
        now = time.monotonic()
        while self.leaving and self.leaving[0].timeout <= now:
            conn = self.leaving.popleft()
            self.poller.unregister(conn.sock)
            self.end(conn)

    def end(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()
