"""Processes of a benchmark: what they have cost so far, and how they are started and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

TICK = os.sysconf("SC_CLK_TCK")
# They work for everybody, at times of their own.
NOT_OF_A_REQUEST = ("autovacuum", "checkpointer", "background writer", "logical replication")
START_SECONDS = 60


def fields_of(pid: int) -> list[str]:
    """/proc/PID/stat from the state on; empty where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def seconds_of(pid: int, *, with_ended_children: bool = False) -> float:
    """User and system time of one process."""
    fields = fields_of(pid)
    if not fields:
        return 0.0
    return sum(int(field) for field in fields[11 : 15 if with_ended_children else 13]) / TICK


def tree(pid: int) -> list[int]:
    found = [pid]
    for child in children_of(pid):
        found += tree(child)
    return found


def cpu_of_tree(pid: int) -> float:
    """The processor time of a server and of all that it has started, in seconds."""
    return sum(seconds_of(process) for process in tree(pid))


def cpu_of_postgres(postmaster: int) -> float:
    """The processor time of PostgreSQL's backends, those that have ended among them, and of its WAL writer."""
    alive = [child for child in children_of(postmaster) if not is_background(child)]
    return seconds_of(postmaster, with_ended_children=True) + sum(seconds_of(child) for child in alive)


def is_background(pid: int) -> bool:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return True
    return any(name in title for name in NOT_OF_A_REQUEST)


def postmaster_of(backend: int) -> int | None:
    """The server of a backend by its process id; None where it is not a process of this machine."""
    fields = fields_of(backend)
    return int(fields[1]) if fields and "postgres" in Path(f"/proc/{backend}/comm").read_text() else None


def keep_on_processors(processes: list[int]) -> None:
    """Each on one of ours, in turns."""
    ours = sorted(os.sched_getaffinity(0))
    for place, process in enumerate(processes):
        os.sched_setaffinity(process, {ours[place % len(ours)]})


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(command: list[str], log: Path, url: str, **options: Any) -> Iterator[int]:
    """A server that is ended with the block, however that ends; the id of its first process."""
    with log.open("ab") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, **options)
        try:
            wait_for(url, server, log)
            yield server.pid
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                for process in reversed(tree(server.pid)):
                    os.kill(process, 9)
                server.wait()


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urlopen(url, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise SystemExit(f"A server did not start:\n{log.read_text()[-2000:]}")
