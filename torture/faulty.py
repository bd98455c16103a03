"""The product with a fault at one step, for gunicorn in place of `chatstore.wsgi`; it knows nothing of it.

A step is a statement or a commit as psycopg is told of it. The header `X-Fault` of a request plans one fault:
`name scope number when kind`. Its scope is the request's own thread, the turn that it begins, or the keeper; the
fault comes before or after the step of that number, and is psycopg's OperationalError (`raise`) or the end of the
process (`exit`). Number 0 never comes: such a request counts its steps. What happens goes to the file FAULTS.

Each worker is forked from a process that has loaded the product (`--preload`): a new one is there at once.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import psycopg
from django.db import connections
from django.urls import get_resolver

from chatstore.wsgi import application as product
from conversations.chat import keeper, records, views
from conversations.chat.keeper import KEEPER
from conversations.chat.records import worker_name
from conversations.chat.turn import RunningTurn

FAULTS = os.open(os.environ["FAULTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
OF_REQUEST, OF_TURN, OF_KEEPER = "request", "turn", "keeper"


class Plan:
    """One fault, and how many steps have been so far."""

    def __init__(self, said: str) -> None:
        self.name, self.scope, number, self.when, self.kind = said.split()
        self.number, self.steps = int(number), 0
        self.is_over = False

    def step(self, what: str, do: Callable[[], Any]) -> Any:
        self.steps += 1
        self.note(step=self.steps, what=what)
        is_now = self.steps == self.number and not self.is_over
        if is_now and self.when == "before":
            self.fail()
        done = do()
        if is_now:
            self.fail()
        return done

    def fail(self) -> None:
        self.is_over = True
        self.note(failed=self.steps)
        if self.kind == "exit":
            os._exit(1)
        raise psycopg.OperationalError("a fault")

    def note(self, **what: Any) -> None:
        line = {"name": self.name, "time": time.time(), **what}
        os.write(FAULTS, json.dumps(line).encode() + b"\n")


class Plans(threading.local):
    """The plan of this thread, and the one of the turn that it begins."""

    here: Plan | None = None
    of_turn: Plan | None = None


PLANS = Plans()
of_keeper: list[Plan] = []


def planned() -> Plan | None:
    if threading.current_thread().name == "keeper":
        return of_keeper[-1] if of_keeper else None
    return PLANS.here


def faulty(method: Callable[..., Any], word: str = "") -> Callable[..., Any]:
    def step(self: Any, *arguments: Any, **named: Any) -> Any:
        if plan := planned():
            what = word or " ".join(str(arguments[0]).split()[:2])
            return plan.step(what, lambda: method(self, *arguments, **named))
        return method(self, *arguments, **named)

    return step


class FaultyTurn(RunningTurn):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.plan = PLANS.of_turn

    def run(self) -> None:
        PLANS.here = self.plan
        super().run()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    said = environ.get("HTTP_X_FAULT")
    plan = Plan(said) if said else None
    scope = plan.scope if plan else ""
    PLANS.here = plan if scope == OF_REQUEST else None
    PLANS.of_turn = plan if scope == OF_TURN else None
    if plan and scope == OF_KEEPER:
        of_keeper.append(plan)
    return product(environ, start_response)


def begin_worker() -> None:
    """A name of its own, which a worker that loads the product itself gets with it."""
    KEEPER.worker = worker_name()


psycopg.Cursor.execute = faulty(psycopg.Cursor.execute)  # type: ignore[method-assign]
psycopg.Cursor.executemany = faulty(psycopg.Cursor.executemany)  # type: ignore[method-assign]
psycopg.Connection.commit = faulty(psycopg.Connection.commit, "commit")  # type: ignore[method-assign]
views.__dict__["RunningTurn"] = FaultyTurn
if lease := os.environ.get("FAULTY_LEASE"):
    records.LEASE = timedelta(seconds=float(lease))  # type: ignore[misc]
    keeper.SETTLE_SECONDS = 1  # type: ignore[misc]
get_resolver().url_patterns  # noqa: B018 - loaded here, it need not be in each worker.
connections.close_all()
os.register_at_fork(after_in_child=begin_worker)
