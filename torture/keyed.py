"""Every kind of write that takes a key, and what of it must be true however often it was sent (promise 2)."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import product as product_of
from typing import Any, Literal, NamedTuple

import psycopg

from torture.checker import Attempt, Attempts, Findings, digest_of
from torture.product import KEY_MARK, MARK, UNANSWERED, Client, Product
from torture.report import Result

Kind = Literal["message", "batch", "session", "chat", "new chat"]
# Those that make a message in a session that is there already, and those of whose sessions the checker knows all.
IN_SESSION, APPENDING = ("message", "batch", "chat"), ("message", "batch")
PATIENCE_SECONDS, UNAVAILABLE = 60, 503


class Keyed(NamedTuple):
    """One write. `session` is empty where it makes one."""

    kind: Kind
    user: int
    session: str
    key: str
    contents: tuple[str, ...]

    @property
    def path(self) -> str:
        return {
            "message": f"/api/sessions/{self.session}/messages/",
            "batch": f"/api/sessions/{self.session}/messages/batch/",
            "session": "/api/sessions/",
            "chat": "/api/chat",
            "new chat": "/api/chat",
        }[self.kind]

    @property
    def body(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": content, "tokens": len(content)} for content in self.contents]
        bodies: dict[Kind, dict[str, Any]] = {
            "message": messages[0],
            "batch": {"messages": messages},
            "session": {"title": self.contents[0]},
            "chat": {"message": self.contents[0], "conversation_id": self.session},
            "new chat": {"message": self.contents[0]},
        }
        return bodies[self.kind]

    def made(self, body: Any) -> tuple[tuple[int, int], ...]:
        """What an answer says that was made: id and position of messages; for a session or a chat, its ids."""
        if self.kind == "session":
            return ((body["id"], 0),)
        if "chat" in self.kind:
            reply = body["assistant_message"]
            return (body["conversation_id"], 0), (body["user_message"]["id"], reply["id"] if reply else 0)
        return tuple((row["id"], row["position"]) for row in (body if self.kind == "batch" else [body]))


# How often each kind comes, and in which steps one goes through them: small runs hold each, too.
KINDS: tuple[Kind, ...] = (
    *("message",) * 9, *("batch",) * 4, *("session",) * 3, *("chat",) * 2, *("new chat",) * 2
)  # fmt: skip
STRIDE = 7


def some_writes(product: Product, rng: random.Random, count: int, kinds: tuple[Kind, ...] = KINDS) -> list[Keyed]:
    """Each key four times: by two users in two sessions each, or by four users who make a session each."""
    users = range(len(product.tokens))
    shared = {user: [session_of(product, user) for _ in range(2)] for user in users}
    writes = list[Keyed]()
    for number in range(count // 4):
        kind, key = kinds[(number * STRIDE) % len(kinds)], f"{KEY_MARK} {rng.getrandbits(64):016x}"
        places = product_of(users[:2], (0, 1)) if kind in IN_SESSION else product_of(users, (0,))
        for user, place in places:
            session = session_of(product, user) if kind == "chat" else shared[user][place]
            size = rng.randint(2, 5) if kind == "batch" else 1
            contents = tuple(f"{MARK} {key} {user} {place} {index}" for index in range(size))
            writes.append(Keyed(kind, user, session if kind in IN_SESSION else "", key, contents))
    return writes


def session_of(product: Product, user: int) -> str:
    with product.client(user) as client:
        made: str = client.send("POST", "/api/sessions/", {}).body["session_id"]
    return made


class Sent(NamedTuple):
    """An answer that acknowledged a write."""

    made: tuple[tuple[int, int], ...]
    is_replay: bool


class Answers:
    """Sends writes, and keeps what was answered."""

    def __init__(self, product: Product, seed: int) -> None:
        self.product, self.seed, self.began = product, seed, time.monotonic()
        self.attempts, self.acknowledged = Attempts(), defaultdict[Keyed, list[Sent]](list)
        self.refused: list[str] = []
        self.lock = threading.Lock()

    def send(self, write: Keyed, port: int, timeout: float = 30) -> Sent | None:
        """Until it is answered, on a new connection each time; what the answer says."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            sent, status = self.send_once(write, port, timeout)
            if sent:
                return sent
            if status is not None and status != UNAVAILABLE:
                break
            time.sleep(random.uniform(0, 0.1))
        self.refused.append(f"{write.kind} {write.key} was answered {status}")
        return None

    def send_once(self, write: Keyed, port: int, timeout: float) -> tuple[Sent | None, int | None]:
        client = Client(port, self.product.tokens[write.user], timeout)
        started, sent, status, error = time.monotonic(), None, None, ""
        try:
            answer = client.send("POST", write.path, write.body, Idempotency_Key=write.key)
            status = answer.status
            if status in (200, 201):
                sent = Sent(write.made(answer.body), answer.is_replay)
        except UNANSWERED as unanswered:
            error = type(unanswered).__name__
        client.close()
        if sent:
            with self.lock:
                self.acknowledged[write].append(sent)
        made, digests = sent.made if sent else (), tuple(map(digest_of, write.contents))
        # A key may be used by many; here each write has a name of its own.
        name, is_replay = f"{write.key} of {write.user} in {write.session}", bool(sent and sent.is_replay)
        ended = time.monotonic()
        self.attempts.note(Attempt(write.session, name, digests, started, ended, status, made, is_replay, error))
        return sent, status

    def result(self, scenario: str, writes: Sequence[Keyed]) -> Result:
        """Held against what is stored."""
        sessions = {(write.user, write.session) for write in writes if write.kind in APPENDING}
        result = Result.of(scenario, self.seed, self.began, self.product, sorted(sessions), self.attempts)
        found = Findings()
        with psycopg.connect(self.product.database_url) as database:
            for write in writes:
                check_write(write, self.acknowledged[write], database, found)
        result.lost += found.counts["lost"]
        result.duplicated += found.counts["duplicated"]
        result.other += found.counts["different"] + len(self.refused)
        result.said += [*([str(found)] if found else []), *self.refused[:3]]
        return result


def check_write(write: Keyed, sent: list[Sent], database: psycopg.Connection, found: Findings) -> None:
    """Stored once; all answers alike; all but one said that they repeat."""
    what = f"{write.kind} {write.key} of user {write.user}"
    if len({each.made for each in sent}) > 1:
        found.add("different", f"{what} was answered with {[each.made for each in sent]}")
    if sum(not each.is_replay for each in sent) > 1:
        found.add("different", f"{what} was answered as new {sum(not each.is_replay for each in sent)} times")
    if write.kind in IN_SESSION:
        query = """SELECT count(*) FROM conversations_message m JOIN conversations_session s ON s.id = m.session_id
            WHERE m.idempotency_key = %s AND s.session_id = %s"""
        row = database.execute(query, [write.key, write.session]).fetchone()
    else:
        query = """SELECT count(*) FROM conversations_session WHERE idempotency_key = %s
            AND owner_id IN (SELECT owner_id FROM conversations_session WHERE id = ANY(%s))"""
        row = database.execute(query, [write.key, [each.made[0][0] for each in sent]]).fetchone()
    count = row[0] if row else 0
    if count != len(write.contents):
        kind = "duplicated" if count > len(write.contents) else "lost"
        found.add(kind, f"{what} is stored {count} times")
