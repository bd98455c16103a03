"""One thread in each worker process that keeps the turns which run in it: it saves their texts, renews their
leases, sees who asked to stop, and settles the turns of lost workers."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Final

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from chatstore.http.logs import described
from conversations.chat import records
from conversations.chat.feed import FEED
from conversations.chat.turn import RunningTurn
from conversations.models import Turn

SAVE_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 5
GRACE_SECONDS: Final = 10

log = structlog.get_logger("chatstore.chat")


class Keeper:
    def __init__(self) -> None:
        self.worker = records.worker_name()
        self.turns: dict[int, RunningTurn] = {}
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.settled_at = -float("inf")
        self.deadline = float("inf")
        self.has_stopped = False

    def start(self) -> None:
        """From now on the keeper runs; a second time changes nothing."""
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self.run, name="keeper", daemon=True)
                self.thread.start()

    @property
    def has_room(self) -> bool:
        """Whether another turn may begin here: no more run than there are threads that could watch them. One that
        comes on a connection which was kept, while the process ends, has what is left of the time."""
        return time.monotonic() < self.deadline and len(self.turns) < settings.ENVIRONMENT.web_threads

    def keep(self, running: RunningTurn) -> None:
        """Start a turn, and keep it until its end. One that comes too late, in a process that has let go of its
        turns, is interrupted at once."""
        self.start()
        with self.lock:
            self.turns[running.turn.pk] = running
            is_late, is_last = self.has_stopped, self.deadline < float("inf")
        if is_late:
            running.interrupt()
            return
        running.start()
        if is_last:
            self.stop_soon()

    def find(self, turn: Turn) -> RunningTurn | None:
        """The turn, if it runs in this process, or has ended here just now."""
        return self.turns.get(turn.pk)

    def in_session(self, session_id: int) -> records.Running | None:
        """The session's turn, if it runs in this process, as far as it has come."""
        running = (turn for turn in list(self.turns.values()) if turn.turn.session_id == session_id)
        return next((turn.running for turn in running if turn.status is None), None)

    def run(self) -> None:
        while True:
            time.sleep(SAVE_SECONDS)
            try:
                self.save()
                self.settle()
            except (DatabaseError, InterfaceError) as error:
                log.warning("running turns cannot be saved now", error=described(error.__cause__ or error))
            except Exception as error:
                log.error("the keeper made an error", error=type(error).__qualname__)
            finally:
                connection.close()

    def save(self) -> None:
        """Leases first: texts that cannot be written now lose nobody their turn."""
        alive = self.forget_ended()
        if not alive:
            return
        running = [turn.running for turn in alive.values()]
        asked_to_stop = records.renew(running, self.worker)
        for turn_id, turn in alive.items():
            if asked_to_stop.get(turn_id, True):  # Not ours any more is as good.
                turn.interrupt_soon()
        records.save_texts(running)

    def forget_ended(self) -> dict[int, RunningTurn]:
        with self.lock:
            self.turns = {key: turn for key, turn in self.turns.items() if turn.status is None}
            return dict(self.turns)

    def settle(self) -> None:
        if time.monotonic() - self.settled_at >= SETTLE_SECONDS:
            self.settled_at = time.monotonic()
            records.settle()

    def stop_soon(self) -> None:
        """`stop` in a thread that is no daemon: the process waits for it."""
        threading.Thread(target=self.stop, name="last turns").start()

    def stop(self) -> None:
        """The process ends: turns may finish for GRACE_SECONDS from the first call, and are interrupted then."""
        self.deadline = min(self.deadline, time.monotonic() + GRACE_SECONDS)
        while self.forget_ended() and time.monotonic() < self.deadline:
            time.sleep(0.1)
        with self.lock:
            self.has_stopped = time.monotonic() >= self.deadline
        if self.has_stopped:
            for turn in self.forget_ended().values():
                turn.interrupt()
        FEED.end()


KEEPER = Keeper()


def keep_this_process() -> None:
    """For a worker of a server, from its main thread: the keeper runs from now on, and at SIGTERM the turns end
    before the process does. What the server itself does at SIGTERM comes after."""
    KEEPER.start()
    of_the_server = signal.getsignal(signal.SIGTERM)

    def ends(number: int, frame: FrameType | None) -> None:
        KEEPER.stop_soon()
        if callable(of_the_server):
            of_the_server(number, frame)

    signal.signal(signal.SIGTERM, ends)
