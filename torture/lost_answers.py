"""Answers are lost on their way: gunicorn's to the client, and PostgreSQL's, of a commit, to gunicorn.

Whoever sends again with the same key gets the same ids and positions (promise 2).
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from socket import socket

from torture.keyed import Answers, Keyed, Kind, some_writes
from torture.product import Product
from torture.proxy import CHUNK, Fate, Proxy, proxying, upstream_of, url_through
from torture.report import Result
from torture.store import Store, server_for, serving_on, store_at

WRITES_AT_ONCE = 12
# A turn whose beginning was not heard of is over after its lease: see fault_points.
WITHOUT_TURNS: tuple[Kind, ...] = ("message", "message", "batch", "session")
IN_HEADERS = 60
# Sooner than a late answer comes. The others end by themselves, however busy the machine is.
PATIENCE_SECONDS, LATE_SECONDS, OTHERS_SECONDS = 1.0, 1.3, 30


def lost_answers(seed: int, *, writes: int = 2000, on: Product | None = None) -> Result:
    """So many writes, each through a proxy that does one of these things to its answer, and then again without."""
    rng = random.Random(seed)
    with ExitStack() as stack:
        server = stack.enter_context(server_for(on))
        fates, chosen, answers = fates_of(server), some_writes(server, rng, writes), Answers(server, seed)
        upstream = ("127.0.0.1", server.port)
        proxies = {
            name: stack.enter_context(proxying(upstream, partial(always, fate))) for name, fate in fates.items()
        }
        lost, replayed = Counter[str](), Counter[str]()

        def send(numbered: tuple[int, Keyed]) -> None:
            number, write = numbered
            name = list(fates)[number % len(fates)]
            patience = PATIENCE_SECONDS if fates[name].kind == "delay" else OTHERS_SECONDS
            heard, _ = answers.send_once(write, proxies[name].port, patience)
            again = answers.send(write, server.port)
            lost[name] += not heard
            replayed[name] += bool(not heard and again and again.is_replay)

        with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
            list(pool.map(send, enumerate(chosen)))
        result = answers.result("answers lost", chosen)
        result.notes.append(", ".join(f"{name}: {lost[name]} lost, {replayed[name]} repeated" for name in fates))
        return result


def always(fate: Fate, number: int) -> Fate:
    return fate


def fates_of(server: Product) -> dict[str, Fate]:
    """What can happen to an answer, by name. The length of headers is about the same in all."""
    with server.client() as client:
        answer = client.send("POST", "/api/sessions/", {})
    in_body = sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) + 40
    return {
        "late": Fate("delay", 0, LATE_SECONDS),
        "nothing": Fate("cut", 0),
        "cut in the headers": Fate("cut", IN_HEADERS),
        "cut in the body": Fate("cut", in_body),
        "half-closed": Fate("half-close", 0),
        "half-closed in the body": Fate("half-close", in_body),
        "stalled": Fate("stall", IN_HEADERS, 0.3),
        "reset": Fate("reset", 0),
        "reset in the body": Fate("reset", in_body),
    }


@dataclass
class UnheardCommits(Proxy):
    """Between gunicorn and PostgreSQL: of every few commits the answer is lost, and the connection with it."""

    every: int = 4
    is_on: bool = False
    commits: int = 0
    lost: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pump(self, source: socket, sink: socket, fate: Fate) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if is_answer_of_commit(data) and (fate := self.next_fate()).kind != "pass":
                    self.befall(fate, source, sink)
                    return
                sink.sendall(data)
        with suppress(OSError):
            sink.close()

    def next_fate(self) -> Fate:
        with self.lock:
            self.commits += 1
            if not self.is_on or self.commits % self.every:
                return Fate()
            self.lost += 1
            return LOSSES[self.lost % len(LOSSES)]


LOSSES = [Fate("cut"), Fate("reset"), Fate("stall", 0, 0.3), Fate("half-close")]
IDLE, OF_COMMIT = b"Z\x00\x00\x00\x05I", (b"COMMIT\x00", b"INSERT 0 ")


def is_answer_of_commit(data: bytes) -> bool:
    """PostgreSQL's, when it is outside of a transaction after a COMMIT, or after an INSERT that was one itself."""
    return data.endswith(IDLE) and any(word in data for word in OF_COMMIT)


def lost_commits(seed: int, *, writes: int = 2000, at: Store | None = None) -> Result:
    """So many writes to a server that does not hear of some of its commits. It answers 503, or does what was lost
    once more where it may; the same write stands there once."""
    with store_at(at) as store, ExitStack() as stack:
        proxy = UnheardCommits(upstream_of(store.url))
        threading.Thread(target=proxy.accept, daemon=True).start()
        stack.callback(proxy.close)
        through = Store(url_through(proxy, store.url), store.tokens)
        server = stack.enter_context(serving_on(through))
        server.database_url = store.url
        chosen, answers = some_writes(server, random.Random(seed), writes, WITHOUT_TURNS), Answers(server, seed)
        proxy.is_on = True
        with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
            list(pool.map(lambda write: answers.send(write, server.port), chosen))
        proxy.is_on = False
        result = answers.result("commits unheard", chosen)
        result.notes.append(f"{proxy.lost} of {proxy.commits} commits' answers lost")
        return result
