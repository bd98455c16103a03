"""A PostgreSQL as people run it, that is killed, stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress

import psutil

from chatstore.testdatabase import OwnPostgres


class KillablePostgres(OwnPostgres):
    """Durable, as people's own are; with `synchronous_commit` off it forgets what it has just acknowledged."""

    def __init__(self, *, synchronous_commit: bool = True) -> None:
        super().__init__(durable=True)
        if not synchronous_commit:
            self.settings += " synchronous_commit=off wal_writer_delay=10s"

    @property
    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))

    def kill(self) -> None:
        """kill -9 of the postmaster and of all its children; returns when none is left."""
        processes = [self.postmaster, *self.postmaster.children()]
        end(processes, signal.SIGKILL)

    def kill_backend(self, number: int) -> None:
        """kill -9 of one process that serves a connection: PostgreSQL then ends the others and recovers."""
        backends = [child for child in self.postmaster.children() if is_backend(child)]
        if backends:
            end([backends[number % len(backends)]], signal.SIGKILL)

    def shut_down(self) -> None:
        """As an operator does who does not wait for clients."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "fast", "stop")

    def stop(self) -> None:
        """Also where it was killed, or has never come up: its folder goes, too."""
        try:
            is_up = self.postmaster.status() != psutil.STATUS_ZOMBIE
        except (OSError, psutil.NoSuchProcess):
            is_up = False
        if is_up:
            super().stop()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def is_backend(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "[local]" in " ".join(process.cmdline()) or "127.0.0.1(" in " ".join(process.cmdline())
    return False


def end(processes: list[psutil.Process], how: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            os.kill(process.pid, how)
    psutil.wait_procs(processes, timeout=10)
