"""A database that is slow, stalled, locked or away: each request ends, as a success or a 503 that says when to try
again, and nothing has to be started again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from torture.chats import SCRIPTED, words
from torture.checker import Attempts
from torture.postgres import KillablePostgres
from torture.product import MARK, Product, migrate, serving
from torture.proxy import Fate, Proxy, proxying, upstream_of, url_through
from torture.report import Result
from torture.watchers import ROUTES, Log, Stream, watching

SESSIONS = 8
# chatstore.gunicorn waits so much longer for a statement than PostgreSQL does.
STALL_SECONDS = 2
LOCK_SECONDS = 1.5
# The contract's, for whoever waits for a connection or finds no database.
AWAY_SECONDS = 2
# A turn waits for the database (conversations.chat.turn).
TURN_SECONDS = 10
OTHERS = tuple(route for route in ROUTES if route != "chat")


@dataclass
class Times:
    """How long each part takes, in seconds, and what a busy machine may add to a bound."""

    statement: float = 10  # DB_STATEMENT_TIMEOUT
    stall: float = 15
    stop: float = 30
    recovery: float = 5
    window: float = 5
    lock: float = 10
    noise: float = 1.5
    ratio: float = 0.6  # Of the requests of a window that must be answered again once the database is back.


@dataclass
class Stage:
    """What a part of the scenario works with."""

    server: KillablePostgres
    proxy: Proxy
    product: Product
    url: str  # Of the database, past the proxy.
    token: str  # Of somebody else.
    sessions: list[tuple[int, str]]
    attempts: Attempts
    seed: int
    times: Times
    said: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def part(
        self, name: str, longest: float, sessions: list[tuple[int, str]] | None = None, **options: Any
    ) -> Iterator[Log]:
        """Everybody at work; afterwards, what they saw is judged. `longest`: that a request may take."""
        began = time.monotonic()
        with watching(
            self.product, sessions or self.sessions, self.attempts, f"{self.seed} {name}", **options
        ) as log:
            yield log
        bound = longest + self.times.noise
        wrong = log.problems(began, bound, turns=TURN_SECONDS + bound)
        self.said += [f"{name}: {what}" for what in wrong]
        took = max((seen.seconds for seen in log.all if seen.route != "chat"), default=0)
        unavailable = sum(seen.status == 503 for seen in log.all)
        self.notes.append(f"{name}: {len(log.all)} answers, {unavailable} 503, the longest {took:.1f} s")

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.said.append(what)

    def recovers(self, name: str, log: Log, before: tuple[float, float]) -> None:
        """Soon as much is answered as before, and all of it is a success."""
        window = self.times.window
        time.sleep(self.times.recovery)
        again = time.monotonic()
        time.sleep(window)
        seen = log.between(again, again + window)
        failed = [each for each in seen if not each.is_success]
        self.expect(not failed, f"{name}: {len(failed)} failed when it was over, such as {failed[:1]}")
        share = len(seen) / max(1, len(log.between(*before)))
        self.expect(share >= self.times.ratio, f"{name}: {share:.2f} of the answers of before")
        self.notes.append(f"{name}: {share:.2f} of the answers of before, when it was over")

    def calm(self) -> tuple[float, float]:
        """A window in which nothing happens."""
        began = time.monotonic()
        time.sleep(self.times.window)
        return began, began + self.times.window


def stalled(stage: Stage) -> None:
    """Connections stand, and nothing passes: TCP finds nothing amiss, PostgreSQL's timeouts are not heard."""
    longest = stage.times.statement + STALL_SECONDS + LOCK_SECONDS
    with stage.part("stalled", longest, routes=OTHERS) as log:
        before = stage.calm()
        stage.proxy.flowing.clear()
        stood = time.monotonic()
        time.sleep(stage.times.stall)
        went_on = time.monotonic()
        stage.proxy.flowing.set()
        stage.recovers("stalled", log, before)
        if stage.times.stall > longest:
            hung = [each for each in log.between(went_on, went_on + 60) if each.started < stood]
            stage.expect(not hung, f"stalled: {hung[:1]} waited for it to go on")


def reset(stage: Stage) -> None:
    """Every connection is reset, again and again."""
    with stage.part("reset", AWAY_SECONDS, each=2) as log:
        before = stage.calm()
        for _ in range(5):
            stage.proxy.drop_all()
            time.sleep(0.2)
        stage.recovers("reset", log, before)


def unanswered(stage: Stage) -> None:
    """There is no connection, and whoever wants one is never answered; later ones are."""
    with stage.part("unanswered", AWAY_SECONDS, each=2) as log:
        before = stage.calm()
        stage.proxy.fate_of = lambda number: Fate("stall", seconds=600)
        stage.proxy.drop_all()
        time.sleep(stage.times.stall)
        stage.proxy.fate_of = lambda number: Fate()
        stage.recovers("unanswered", log, before)


def locked_session(stage: Stage) -> None:
    """Somebody holds one session's row, and forty want to append to it: more than the pools have connections."""
    wanted, others = stage.sessions[:1], stage.sessions[1:]
    # A request may wait for a connection, and then for the lock.
    with (
        watching(
            stage.product, wanted, stage.attempts, f"{stage.seed} queue", each=40, routes=("append",)
        ) as queue,
        stage.part("locked session", AWAY_SECONDS + LOCK_SECONDS, sessions=others) as log,
    ):
        with psycopg.connect(stage.url) as holder:
            query = "SELECT 1 FROM conversations_session WHERE session_id = %s FOR UPDATE"
            holder.execute(query, [wanted[0][1]])
            held = time.monotonic()
            time.sleep(stage.times.lock)
            until = time.monotonic()
        seen = [each for each in queue.between(held + 2, until) if each.started > held]
        stage.expect(all(each.status == 503 for each in seen), "locked session: an append went through")
        wrong = queue.problems(held, AWAY_SECONDS + LOCK_SECONDS + stage.times.noise, turns=0)
        stage.said += [f"locked session, its writers: {what}" for what in wrong]
        meanwhile = log.between(held, until)
        served = sum(each.is_success for each in meanwhile)
        stage.notes.append(f"locked session: {served} of {len(meanwhile)} others served meanwhile")
        time.sleep(stage.times.window)
    stage.expect(any(each.is_success for each in queue.between(until, until + 60)), "locked session: still locked")


def locked_table(stage: Stage) -> None:
    """Somebody holds what one kind of route reads: that one is unavailable, the others are as before."""
    with stage.part("locked table", AWAY_SECONDS) as log:
        with psycopg.connect(stage.url) as holder:
            holder.execute("LOCK TABLE conversations_usage IN ACCESS EXCLUSIVE MODE")
            held = time.monotonic()
            time.sleep(stage.times.lock)
            until = time.monotonic()
        time.sleep(AWAY_SECONDS)
        meanwhile = [each for each in list(log.all) if held < each.started < until - LOCK_SECONDS]
        usage = {each.status for each in meanwhile if each.route == "usage"}
        stage.expect(usage == {503}, f"locked table: usage answered {usage}")
        failed = [each for each in meanwhile if each.route != "usage" and not each.is_success]
        stage.expect(not failed, f"locked table: {failed[:1]} beside it")


def stopped(stage: Stage) -> None:
    """PostgreSQL is stopped for a while under everybody, under a turn that runs and a stream of events."""
    product, seconds = stage.product, stage.times.stop
    _, session = next(each for each in stage.sessions if each[0] == 0)
    turn = Stream(product, "POST", "/api/chat/stream", {"message": words(int(seconds) + 4, 1)})
    live = Stream(product, "GET", f"/api/sessions/{session}/events/", resume=True)
    with turn.reading(), live.reading():
        with stage.part("stopped", AWAY_SECONDS) as log:
            before = stage.calm()
            stage.server.shut_down()
            gone = time.monotonic()
            time.sleep(seconds)
            back = time.monotonic()
            stage.server.start_again()
            meanwhile = log.between(gone + 1, back)
            for route, status in (("health", 503), ("live", 200)):
                found = {each.status for each in meanwhile if each.route == route}
                stage.expect(found == {status}, f"stopped: {route} answered {found}")
            slowest = max((each.seconds for each in meanwhile if each.route == "live"), default=0)
            stage.expect(slowest < 1 + stage.times.noise, f"stopped: /health/live took {slowest:.1f} s")
            stage.recovers("stopped", log, before)
        check_turn(stage, turn)
        check_events(stage, live, session)


def check_turn(stage: Stage, turn: Stream) -> None:
    """It ends, and what it has said stands, from its beginning."""
    until = time.monotonic() + TURN_SECONDS + 40
    while not ends(turn) and time.monotonic() < until:
        time.sleep(0.2)
    stage.expect(ends(turn), f"the turn told of no end: {turn.events[-1:]}")
    found = list[Any]()
    query = "SELECT status, length(content) FROM conversations_message WHERE role <> 'user' AND content LIKE %s"
    with psycopg.connect(stage.url, autocommit=True) as database:
        while time.monotonic() < until:  # A lease that is over is settled by a keeper.
            found = database.execute(query, [f"{MARK} 0 {MARK} 1 %"]).fetchall()
            if found and found[0][0] != "streaming":
                break
            time.sleep(0.5)
    stage.expect(len(found) == 1 and found[0][0] != "streaming", f"the turn left {found}")
    stage.notes.append(f"stopped: the turn is {found}, told {turn.events[-1:]}")


def ends(turn: Stream) -> bool:
    return bool(turn.events) and turn.events[-1]["type"] in ("done", "error")


def check_events(stage: Stage, live: Stream, session: str) -> None:
    """Every message that was stored while it was open has been told, in order."""
    with psycopg.connect(stage.url) as database:
        query = """SELECT m.position FROM conversations_message m JOIN conversations_session s
            ON s.id = m.session_id WHERE s.session_id = %s ORDER BY m.position"""
        stored = [row[0] for row in database.execute(query, [session]).fetchall()]
    until = time.monotonic() + 20
    while told(live)[-1:] != stored[-1:] and time.monotonic() < until:
        time.sleep(0.2)
    positions = told(live)
    missing = sorted(set(range(positions[0], stored[-1] + 1)) - set(positions)) if positions else stored
    stage.expect(not missing, f"events: {missing[:5]} of {len(stored)} were not told")
    stage.expect(positions == sorted(positions), "events: not in order")
    stage.notes.append(f"stopped: {len(positions)} events, the stream was opened {live.opened} times")


def told(live: Stream) -> list[int]:
    return [event["position"] for event in live.events if event.get("type") == "message_created"]


PARTS: tuple[Callable[[Stage], None], ...] = (
    stalled, reset, unanswered, locked_session, locked_table, stopped,
)  # fmt: skip


@contextmanager
def staged(seed: int, times: Times, **settings: str) -> Iterator[Stage]:
    """A server that reaches its PostgreSQL through a proxy."""
    server = KillablePostgres()
    try:
        url = server.start()
        tokens = migrate(url, users=2)
        chosen = {"DB_STATEMENT_TIMEOUT": str(times.statement), "ASSISTANT": SCRIPTED, **settings}
        with (
            proxying(upstream_of(url)) as proxy,
            tempfile.TemporaryDirectory() as folder,
            serving(url_through(proxy, url), Path(folder) / "log", tokens[:1], **chosen) as product,
        ):
            sessions = product.sessions(SESSIONS)
            yield Stage(server, proxy, product, url, tokens[1], sessions, Attempts(), seed, times)
    finally:
        server.stop()


def slow_database(seed: int, *, times: Times | None = None) -> Result:
    """Every part, one after another, on one server."""
    began = time.monotonic()
    with staged(seed, times or Times()) as stage:
        for part in PARTS:
            part(stage)
        result = Result.of("slow database", seed, began, stage.product, stage.sessions, stage.attempts)
        result.said += stage.said
        result.other += len(stage.said)
        result.notes += stage.notes
        return result
