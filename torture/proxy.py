"""A TCP proxy on 127.0.0.1 that delays, cuts, half-closes, stalls or resets what passes through it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

Kind = Literal["pass", "delay", "cut", "half-close", "stall", "reset"]
CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fate:
    """What happens to the answers of a connection, after so many bytes of them."""

    kind: Kind = "pass"
    after: int = 0
    seconds: float = 0.5  # of a delay or a stall, whose connection is then closed


@dataclass
class Proxy:
    """`fate_of` gives the fate of each connection by its number; while `flowing` is cleared nothing passes."""

    upstream: tuple[str, int] | str  # An address, or the path of a Unix socket.
    fate_of: Callable[[int], Fate] = lambda number: Fate()
    flowing: threading.Event = field(default_factory=threading.Event)
    links: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.flowing.set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.listener.getsockname()[1]

    def accept(self) -> None:
        with suppress(OSError):  # Closed.
            while True:
                client, _ = self.listener.accept()
                number, self.count = self.count, self.count + 1
                threading.Thread(target=self.connect, args=[client, number], daemon=True).start()

    def connect(self, client: socket.socket, number: int) -> None:
        server = socket.socket(socket.AF_UNIX if isinstance(self.upstream, str) else socket.AF_INET)
        try:
            server.connect(self.upstream)
        except OSError:
            server.close()
            abort(client)
            return
        self.links.append((client, server))
        threading.Thread(target=self.pump, args=[client, server, Fate()], daemon=True).start()
        self.pump(server, client, self.fate_of(number))

    def pump(self, source: socket.socket, sink: socket.socket, fate: Fate) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(CHUNK):
                self.flowing.wait()
                if fate.kind != "pass" and passed + len(data) > fate.after:
                    sink.sendall(data[: max(0, fate.after - passed)])
                    if not self.befall(fate, source, sink):
                        return
                    data, fate = data[max(0, fate.after - passed) :], Fate()
                sink.sendall(data)
                passed += len(data)
            self.flowing.wait()
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def befall(self, fate: Fate, source: socket.socket, sink: socket.socket) -> bool:
        """Whether the connection goes on."""
        if fate.kind == "delay":
            time.sleep(fate.seconds)
            return True
        if fate.kind == "half-close":
            sink.shutdown(socket.SHUT_WR)
            return False
        if fate.kind == "stall":
            time.sleep(fate.seconds)
        if fate.kind == "reset":
            abort(sink)
        for end in (sink, source):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        return False

    def drop_all(self) -> None:
        """Reset every connection there is."""
        links, self.links = self.links, []
        for link in links:
            for end in link:
                abort(end)

    def close(self) -> None:
        self.flowing.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.drop_all()


def abort(end: socket.socket) -> None:
    """Close with a reset."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.shutdown(socket.SHUT_RD)
    end.close()


@contextmanager
def proxying(
    upstream: tuple[str, int] | str, fate_of: Callable[[int], Fate] = lambda number: Fate()
) -> Iterator[Proxy]:
    proxy = Proxy(upstream, fate_of)
    threading.Thread(target=proxy.accept, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()


# Before PostgreSQL


def upstream_of(url: str) -> tuple[str, int] | str:
    """Where PostgreSQL listens."""
    parts = conninfo_to_dict(url)
    host, port = str(parts.get("host", "localhost")), int(parts.get("port") or 5432)
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def url_through(proxy: Proxy, url: str) -> str:
    parts = conninfo_to_dict(url)
    password = f":{quote(str(parts['password']))}" if parts.get("password") else ""
    return f"postgresql://{parts['user']}{password}@127.0.0.1:{proxy.port}/{parts['dbname']}?sslmode=disable"
