"""Many replies at once: chat streams of ten events a second on two workers, while somebody lists sessions.

    .venv/bin/python -m benchmarks.chat_streams [--streams 1000] [--threads 700] [--pool 10]

Starts a PostgreSQL and a server of its own on 127.0.0.1, and ends both. Prints how long the first event took,
plain requests alone and beside the streams (both in this run: machines differ), errors, and the memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles

from chatstore.environment import BASE_DIR
from chatstore.testdatabase import OwnPostgres
from conversations.chat.assistants import Asked, Event, MessageCreated, TextDelta

PORT = 8899
SECONDS = 10
PER_SECOND = 10
RAMP_SECONDS = 10
PLAIN_SECONDS = 0.05
PAGE = 50
SWEEP_SECONDS = 0.5
PATIENCE_SECONDS = 90


class TenASecond:
    """The assistant of the benchmark: ten words a second, for ten seconds."""

    def reply(self, asked: Asked) -> Iterator[Event]:
        for number in range(int(SECONDS * PER_SECOND)):
            yield TextDelta(f"word{number} ")
            time.sleep(1 / PER_SECOND)
        yield MessageCreated(tokens=5)


@dataclass
class Client:
    """One chat stream. Times in seconds."""

    link: socket.socket
    asked_at: float
    first_after: float | None = None
    is_done: bool = False
    is_over: bool = False
    status: str = ""
    tail: bytes = b""

    def read(self) -> None:
        """What has come by now."""
        if self.is_over:
            return
        try:
            said = self.link.recv(65536)
        except BlockingIOError:
            return
        if said:
            self.take(said)
        if not said or self.is_done:
            self.is_over = True
            self.link.close()

    def take(self, said: bytes) -> None:
        if not self.status:
            self.status = said.split(b" ", 2)[1].decode()
        seen = self.tail + said
        if self.first_after is None and b'"text_delta"' in seen:
            self.first_after = time.perf_counter() - self.asked_at
        self.is_done = self.is_done or b'"done"' in seen
        self.tail = seen[-32:]


@dataclass
class Plain:
    """Somebody who lists sessions over and over. `times` in seconds."""

    token: str
    times: list[float] = field(default_factory=list)
    errors: int = 0
    is_over: bool = False

    def run(self) -> None:
        link = HTTPConnection("127.0.0.1", PORT, timeout=30)
        while not self.is_over:
            started = time.perf_counter()
            link.request("GET", "/api/sessions/", headers={"Authorization": f"Bearer {self.token}"})
            answer = link.getresponse()
            answer.read()
            self.times.append(time.perf_counter() - started)
            self.errors += answer.status != HTTPStatus.OK
            time.sleep(PLAIN_SECONDS)


def ask(token: str) -> Client:
    body = b'{"message": "Hello!"}'
    head = (
        f"POST /api/chat/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    link = socket.create_connection(("127.0.0.1", PORT), timeout=10)
    asked_at = time.perf_counter()
    link.sendall(head.encode() + body)
    link.setblocking(False)
    return Client(link, asked_at)


def stream(token: str, number: int) -> list[Client]:
    """Open `number` streams, spread over RAMP_SECONDS, and read all of them to their ends: each at once until its
    first event, later every SWEEP_SECONDS, since this process shares the machine with the server."""
    clients: list[Client] = []
    reading: list[Client] = []
    started = swept_at = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        while time.perf_counter() - started < PATIENCE_SECONDS:
            due = min(number, int((time.perf_counter() - started) / RAMP_SECONDS * number) + 1)
            while len(clients) < due:
                clients.append(ask(token))
                selector.register(clients[-1].link, selectors.EVENT_READ, clients[-1])
            for key, _ in selector.select(0.01):
                key.data.read()
                if key.data.first_after is not None or key.data.is_over:
                    selector.unregister(key.fileobj)
                    reading.append(key.data)
            if time.perf_counter() - swept_at > SWEEP_SECONDS:
                swept_at = time.perf_counter()
                for client in reading:
                    client.read()
                reading = [client for client in reading if not client.is_over]
            if len(clients) == number and not reading and not selector.get_map():
                break
    return clients


def memory_of(master: int) -> float:
    """The proportional memory of the server's processes, in MB."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    rolled = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in (str(master), *children)]
    lines = [line for text in rolled for line in text.splitlines() if line.startswith("Pss:")]
    return sum(int(line.split()[1]) for line in lines) / 1024


def cpu_of(master: int) -> float:
    """The processor time of the server's processes so far, in seconds."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def percentile(times: list[float], percent: int) -> float:
    return quantiles(times, n=100)[percent - 1] * 1000 if len(times) > 1 else float("nan")


def fill_page(token: str) -> None:
    """As many sessions as a page of the list holds: it is as long before the streams as beside them."""
    link = HTTPConnection("127.0.0.1", PORT, timeout=30)
    for _ in range(PAGE):
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        link.request("POST", "/api/sessions/", b"{}", headers)
        link.getresponse().read()
    link.close()


def measure(token: str, master: int, streams: int) -> None:
    fill_page(token)
    alone, beside = Plain(token), Plain(token)
    for plain, seconds in ((alone, 10), (beside, 0)):
        thread = threading.Thread(target=plain.run, daemon=True)
        thread.start()
        if plain is alone:
            time.sleep(seconds)
        else:
            before = cpu_of(master)
            clients = stream(token, streams)
            spent = cpu_of(master) - before
            memory = memory_of(master)
        plain.is_over = True
        thread.join()
    firsts = [client.first_after for client in clients if client.first_after is not None]
    bad = [client.status or "none" for client in clients if not client.is_done]
    lines = {
        "streams": f"{streams}, each {SECONDS} s of {PER_SECOND} events a second",
        "not complete": f"{len(bad)} {sorted(set(bad))}",
        "first event": f"p50 {percentile(firsts, 50):.0f} ms, p95 {percentile(firsts, 95):.0f} ms",
        "plain, alone": f"p50 {percentile(alone.times, 50):.1f} ms, p95 {percentile(alone.times, 95):.1f} ms",
        "plain, beside": f"p50 {percentile(beside.times, 50):.1f} ms, p95 {percentile(beside.times, 95):.1f} ms",
        "ratio of p95": f"{percentile(beside.times, 95) / percentile(alone.times, 95):.1f}",
        "CPU a stream": f"{spent / streams * 1000:.0f} ms, with the plain requests beside",
        "plain errors": f"{alone.errors + beside.errors} of {len(alone.times) + len(beside.times)}",
        "memory": f"{memory:.0f} MB in all",
    }
    sys.stdout.write("".join(f"{name:<16}{said}\n" for name, said in lines.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=700, help="in each of the two workers")
    parser.add_argument("--pool", type=int, default=10, help="connections of each worker")
    parser.add_argument("--no-affinity", action="store_false", dest="affinity")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    database = OwnPostgres()
    chosen = {
        "DATABASE_URL": database.start(),
        "PORT": str(PORT),
        "WEB_WORKERS": "2",
        "WEB_THREADS": str(options.threads),
        "DB_POOL_MAX": str(options.pool),
        "DB_POOL_TIMEOUT": "5",
        "WEB_CPU_AFFINITY": str(options.affinity),
        "LOG_LEVEL": "WARNING",
        "ASSISTANT": "benchmarks.chat_streams.TenASecond",
    }
    environment = {**os.environ, **chosen}
    manage = [sys.executable, "manage.py"]
    subprocess.run([*manage, "migrate", "-v0"], cwd=BASE_DIR, env=environment, check=True)
    made = [*manage, "createtoken", "benchmark@example.com"]
    token = subprocess.run(made, cwd=BASE_DIR, env=environment, check=True, capture_output=True, text=True).stdout
    command = [sys.executable, "-m", "gunicorn", "-c", "python:chatstore.gunicorn", "chatstore.wsgi"]
    server = subprocess.Popen(command, cwd=BASE_DIR, env=environment, stderr=subprocess.DEVNULL)
    try:
        time.sleep(5)
        measure(token.strip(), server.pid, options.streams)
    finally:
        server.terminate()
        server.wait(60)
        database.stop()


if __name__ == "__main__":
    main()
