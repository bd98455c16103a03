"""A fault at each step of each operation: an error of the database's driver, and the end of the process, before
and after each statement and commit (torture/faulty.py).

What is not acknowledged is there wholly or not at all, at once; the same request sent again completes it, once
(promises 2, 5, 6, 7).
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg

from torture.chats import SCRIPTED, message, pause, script, text, tool, tool_done
from torture.product import KEY_MARK, MARK, UNANSWERED, Product
from torture.report import Result, check_store
from torture.store import Store, serving_on, store_at

PATIENCE_SECONDS, LEASE_SECONDS = 60, 15
AT_ONCE, WORKERS = 8, 4
KEEPER_ROUNDS = 2
WHENS, KINDS = ("before", "after"), ("raise", "exit")
# What was said before the pause is stored in it, at the latest a second later.
PAUSE_SECONDS, SAID_EARLY = 1.5, "One two "
STORY = script(
    text("One "), text("two "), pause(PAUSE_SECONDS), tool("a"), tool_done("a"), text(MARK), message()
)  # fmt: skip
SCOPES: Final = ("request", "turn", "keeper")
Snapshot = tuple[Any, ...]


class Case(NamedTuple):
    """One fault in one operation."""

    operation: str
    scope: str = "request"
    number: int = 0
    when: str = "before"
    kind: str = "raise"

    @property
    def name(self) -> str:
        return "-".join(map(str, self)).replace(" ", "_")

    @property
    def header(self) -> str:
        return f"{self.name} {self.scope} {self.number} {self.when} {self.kind}"

    def __str__(self) -> str:
        where = "" if self.scope == "request" else f" of the {self.scope}"
        return f"{self.operation}, {self.kind} {self.when} step {self.number}{where}"


class Place(NamedTuple):
    """What an operation works on: a session with three messages, and a key."""

    session: str
    messages: list[int]
    key: str


class Sending(NamedTuple):
    method: str
    path: str
    body: Any = None
    # Of the last answer; a deletion that was done is not found.
    statuses: tuple[int, ...] = (200, 201)


def three(what: str) -> dict[str, Any]:
    fields = {"role": "user", "tool_name": "search"}
    rows = [{**fields, "content": f"{MARK} {what} {number}", "tokens": number} for number in (1, 2, 3)]
    return {"messages": rows}


OPERATIONS: dict[str, Callable[[Place], Sending]] = {
    "append": lambda at: Sending("POST", f"/api/sessions/{at.session}/messages/", three("more")["messages"][0]),
    "batch": lambda at: Sending("POST", f"/api/sessions/{at.session}/messages/batch/", three("more")),
    "delete message": lambda at: Sending("DELETE", f"/api/messages/{at.messages[1]}/", None, (204, 404)),
    "delete session": lambda at: Sending("DELETE", f"/api/sessions/{at.session}/", None, (204, 404)),
    "change message": lambda at: Sending(
        "PATCH", f"/api/messages/{at.messages[1]}/", {"content": f"{MARK} other", "tokens": 9}
    ),
    "change session": lambda at: Sending(
        "PATCH", f"/api/sessions/{at.session}/", {"title": "Other", "metadata": {"a": 1}}
    ),
    "create session": lambda at: Sending("POST", "/api/sessions/", {"title": "New", "metadata": {"a": 1}}),
    "chat": lambda at: Sending("POST", "/api/chat", {"message": STORY, "conversation_id": at.session}, (200, 502)),
}
CHAT = "chat"


def fault_points(
    seed: int,
    *,
    operations: Iterable[str] = OPERATIONS,
    scopes_of_chat: Iterable[str] = SCOPES,
    points_of_chat: int = 1000,
    lease: float = LEASE_SECONDS,
    at: Store | None = None,
) -> Result:
    """Every step of these operations, and at most so many of each of these threads of a chat."""
    began = time.monotonic()
    with store_at(at) as store, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "faults"
        settings = {"ASSISTANT": SCRIPTED, "FAULTS": str(file), "FAULTY_LEASE": str(lease), "DB_LOCK_TIMEOUT": "9"}
        settings |= {"WEB_WORKERS": str(WORKERS), "GUNICORN_CMD_ARGS": "--preload"}
        with serving_on(store, "torture.faulty:application", **settings) as product:
            faults = Faults(product, file, random.Random(seed), lease)
            chosen = list(operations)
            cases = faults.cases_of_chat(scopes_of_chat, points_of_chat) if CHAT in chosen else []
            faults.run(cases, faults.begin_chat)
            for operation in chosen:
                if operation != CHAT:
                    faults.run(faults.cases_of(operation), faults.run_one)
            faults.finish_chats()
            faults.wrong += check_store(store.url)
            faults.wrong += [f"{what} in the log" for what in product.log_problems()]
            failed = faults.failed()
            return Result(
                "fault points",
                seed,
                time.monotonic() - began,
                acknowledged=faults.acknowledged,
                kills=sum(name.endswith("-exit") for name in failed),
                other=len(faults.wrong),
                said=faults.wrong[:5],
                notes=[f"{len(failed)} faults", *faults.notes],
                counted=("acknowledged", "kills", "other"),
            )


class Faults:
    """What was sent to one server, and what was wrong with it."""

    def __init__(self, product: Product, file: Path, rng: random.Random, lease: float) -> None:
        self.product, self.file, self.rng, self.lease = product, file, rng, lease
        self.wrong: list[str] = []
        self.notes: list[str] = []
        self.before: dict[str, Snapshot] = {}
        self.after: dict[str, Snapshot] = {}
        self.chats: dict[Case, tuple[Place, int | None]] = {}
        self.early_steps = 0
        self.acknowledged = 0

    # What is sent

    def send(self, sending: Sending, key: str, case: Case | None = None) -> tuple[int | None, Any]:
        """One request; its status, None where no answer came, and its body."""
        named = {"Idempotency_Key": key} | ({"X_Fault": case.header} if case else {})
        with self.product.client(timeout=PATIENCE_SECONDS) as client:
            try:
                answer = client.send(sending.method, sending.path, sending.body, **named)
            except UNANSWERED:
                return None, None
        self.acknowledged += answer.status < 300
        return answer.status, answer.body

    def send_until(self, sending: Sending, key: str) -> Any:
        """Again and again, while the answer is lost or 503; the body."""
        until = time.monotonic() + PATIENCE_SECONDS
        status, body = self.send(sending, key)
        while status in (None, 503) and time.monotonic() < until:
            time.sleep(0.05)
            status, body = self.send(sending, key)
        if status not in sending.statuses:
            raise RuntimeError(f"{sending.method} was answered {status}")
        return body

    def place(self) -> Place:
        key = f"{KEY_MARK} {self.rng.getrandbits(96):024x}"
        session = self.send_until(Sending("POST", "/api/sessions/", {}), f"session {key}")["session_id"]
        batch = Sending("POST", f"/api/sessions/{session}/messages/batch/", three("first"))
        return Place(session, [row["id"] for row in self.send_until(batch, f"first {key}")], key)

    # Faults

    def lines(self, name: str = "") -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.file.read_text().splitlines()]
        return [line for line in lines if not name or line["name"] == name]

    def failed(self) -> set[str]:
        """The names of the faults that came."""
        return {line["name"] for line in self.lines() if "failed" in line}

    def run(self, cases: list[Case], run: Callable[[Case], None]) -> None:
        """Each until its fault has come. Those that end the process come last, since they take the requests of
        others with them, and fewer and fewer at once. A keeper has one plan at a time."""
        of_keeper = [case for case in cases if case.scope == "keeper"]
        others = [case for case in cases if case.scope != "keeper"]
        for kind, most in (("raise", AT_ONCE), ("exit", AT_ONCE), ("exit", AT_ONCE // 2), ("exit", 1)):
            self.run_some([case for case in others if case.kind == kind], run, most)
        for _ in range(KEEPER_ROUNDS):
            self.run_some(of_keeper, run, 1)
        failed = self.failed()
        self.wrong += [f"{case}: the fault never came" for case in cases if case.name not in failed]

    def run_some(self, cases: list[Case], run: Callable[[Case], None], most: int) -> None:
        failed = self.failed()
        with ThreadPoolExecutor(most) as pool:
            list(pool.map(run, [case for case in cases if case.name not in failed]))

    def cases_of(self, operation: str) -> list[Case]:
        """All faults of an operation, which is done once to count its steps."""
        case, place = Case(operation), self.place()
        sending = OPERATIONS[operation](place)
        self.before[operation] = self.snapshot(place)
        status, _ = self.send(sending, place.key, case)
        if status not in (200, 201, 204):
            raise RuntimeError(f"{operation} was answered {status}")
        self.after[operation] = self.snapshot(place)
        steps = [line["what"] for line in self.lines(case.name)]
        self.notes.append(f"{operation}: {len(steps)} steps ({', '.join(steps)})")
        return self.all_cases(operation, "request", range(1, len(steps) + 1))

    def all_cases(self, operation: str, scope: str, numbers: Iterable[int]) -> list[Case]:
        return [Case(operation, scope, n, when, kind) for n in numbers for when in WHENS for kind in KINDS]

    def run_one(self, case: Case) -> None:
        place = self.place()
        sending = OPERATIONS[case.operation](place)
        before, after = self.before[case.operation], self.after[case.operation]
        status, _ = self.send(sending, place.key, case)
        now = self.snapshot(place)
        if status is not None and status >= 500 and status != 503:
            self.wrong.append(f"{case}: answered {status}")
        if now != after and (now != before or status in sending.statuses):
            self.wrong.append(f"{case}: answered {status}, and half there")
        self.send_until(sending, place.key)
        if self.snapshot(place) != after:
            self.wrong.append(f"{case}: not as it should be after the same request again")

    # Chats

    def cases_of_chat(self, scopes: Iterable[str], most: int) -> list[Case]:
        counted = [Case(CHAT, scope) for scope in scopes]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(chain.from_iterable(pool.map(lambda case: self.cases_of_thread(case, most), counted)))

    def cases_of_thread(self, case: Case, most: int) -> list[Case]:
        place = self.place()
        self.send(OPERATIONS[CHAT](place), place.key, case)
        lines = self.lines(case.name)
        self.notes.append(f"chat, {case.scope}: {len(lines)} steps")
        if case.scope == "turn":
            gaps = [after["time"] - line["time"] for line, after in pairwise(lines)]
            self.early_steps = gaps.index(max(gaps)) + 1
        # How far the keeper comes is a matter of time: the first half it reaches each time.
        count = len(lines) // 2 if case.scope == "keeper" else len(lines)
        few = min(most, count)
        numbers = {count * part // few for part in range(1, few + 1)}
        if case.scope == "turn":  # Where nobody but the keeper has stored what was said.
            numbers.add(self.early_steps + 1)
        return self.all_cases(CHAT, case.scope, sorted(numbers))

    def begin_chat(self, case: Case) -> None:
        place = self.place()
        status, _ = self.send(OPERATIONS[CHAT](place), place.key, case)
        self.chats[case] = place, status

    def finish_chats(self) -> None:
        """Wait until the lost turns are settled, and ask for each again."""
        until = time.monotonic() + self.lease + PATIENCE_SECONDS
        query = "SELECT count(*) FROM conversations_turn WHERE status = 'running'"
        with psycopg.connect(self.product.database_url, autocommit=True) as database:
            while (running := database.execute(query).fetchone()) != (0,) and time.monotonic() < until:
                time.sleep(0.2)
        if running != (0,):  # Asked for again, each would be settled by that request.
            self.wrong.append(f"{running} lost turns still run, {PATIENCE_SECONDS} s after their lease")
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self.finish_chat, self.chats))

    def finish_chat(self, case: Case) -> None:
        place, status = self.chats[case]
        self.send_until(OPERATIONS[CHAT](place), place.key)
        *_, messages, turns = self.snapshot(place)
        said = [row for row in messages if row[1] == "user"][3:]
        replied = "".join(row[2] for row in messages if row[1] == "assistant")
        if [row[2] for row in said] != [STORY]:
            self.wrong.append(f"{case}: the user's message is stored {len(said)} times")
        if len(turns) != 1 or turns[0] not in ("complete", "interrupted", "failed"):
            self.wrong.append(f"{case}: turns {turns}")
        if any(row[6] == "streaming" for row in messages):
            self.wrong.append(f"{case}: something is still streaming")
        if case.scope == "turn" and case.number > self.early_steps and not replied.startswith(SAID_EARLY):
            self.wrong.append(f"{case}: what was said a second before is lost")
        if case.kind == "raise" and case.scope != "request" and (status, turns) != (200, ["complete"]):
            self.wrong.append(f"{case}: answered {status}, and the turn is {turns}")

    # What is stored

    def snapshot(self, place: Place) -> Snapshot:
        """All but ids and times, of the session, of the one that the key made, its messages and turns."""
        sessions = """SELECT title, metadata, message_count, last_position, tokens, version, deleted_at IS NOT NULL
            FROM conversations_session WHERE session_id = %s OR idempotency_key = %s ORDER BY id"""
        of_session = "WHERE session_id = (SELECT id FROM conversations_session WHERE session_id = %s)"
        messages = f"""SELECT position, role, content, tool_name, tokens, metadata, status, version,
            deleted_at IS NOT NULL FROM conversations_message {of_session} ORDER BY position"""
        turns = f"SELECT status FROM conversations_turn {of_session}"
        with psycopg.connect(self.product.database_url) as database:
            database.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            found = database.execute(sessions, [place.session, place.key]).fetchall()
            rows = database.execute(messages, [place.session]).fetchall()
            statuses = [status for (status,) in database.execute(turns, [place.session]).fetchall()]
        live = [row for row in rows if not row[8]]
        if (found[0][2], found[0][4]) != (len(live), sum(row[4] for row in live)):
            self.wrong.append(f"{place.session}: counters {found[0]}, {len(live)} messages")
        if [row[0] for row in rows] != list(range(1, found[0][3] + 1)):
            self.wrong.append(f"{place.session}: positions have gaps")
        return found, rows, statuses
