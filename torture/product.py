"""The product as people run it, gunicorn and all, on a database that is made for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, IncompleteRead
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import free_port
from chatstore.environment import BASE_DIR

# In every content and query, and in every key; in no log.
MARK, KEY_MARK = "these-words-are-in-no-log", "this-key-is-in-no-log"
# The product writes its own without a headline. Django's, of a Host that is not ours, is nobody's mistake.
TRACEBACK = re.compile(r'^  File ".*\n(?: .*\n)*(\w+)', re.MULTILINE)
OF_A_CLIENT = {"DisallowedHost"}
UNANSWERED = (OSError, HTTPException)
START_SECONDS = 30
# In one process: each takes a second to start.
MAKE_TOKENS = """
from django.core.management import call_command
for number in range({}):
    call_command("createtoken", f"user{{number}}@example.com")
"""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def is_replay(self) -> bool:
        return self.headers.get("idempotency-replayed") == "true"


class Client:
    """Somebody with a token and one connection, which is made again after an error."""

    def __init__(self, port: int, token: str = "", timeout: float = 10) -> None:
        self.port, self.token, self.timeout = port, token, timeout
        self.link: HTTPConnection | None = None

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request. Raises one of UNANSWERED where no whole answer came."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            named["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            named["Content-Type"] = "application/json"
        link = self.link or HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
        self.link = None
        try:
            link.request(method, path, None if body is None else json.dumps(body), named)
            answer = link.getresponse()
            if answer.length is None and not answer.chunked:  # http.client takes cut headers for whole ones.
                raise IncompleteRead(b"")
            said = answer.read()
        except UNANSWERED:
            link.close()
            raise
        if answer.will_close:
            link.close()
        else:
            self.link = link
        kept = {name.lower(): value for name, value in answer.getheaders()}
        is_json = "json" in kept.get("content-type", "")
        return Answer(answer.status, kept, json.loads(said) if is_json and said else said)

    def close(self) -> None:
        if self.link:
            self.link.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass
class Product:
    """A running server: its port, its database, its processes, and tokens of its users."""

    port: int
    database_url: str
    process: psutil.Process
    log: Path
    tokens: list[str] = field(default_factory=list)

    def client(self, user: int = 0, timeout: float = 10) -> Client:
        return Client(self.port, self.tokens[user] if self.tokens else "", timeout)

    @property
    def workers(self) -> list[psutil.Process]:
        return self.process.children()

    def sessions(self, count: int) -> list[tuple[int, str]]:
        """New sessions: the user whose each is, and its session_id."""
        made = []
        for number in range(count):
            user = number % len(self.tokens)
            with self.client(user) as client:
                made.append((user, client.send("POST", "/api/sessions/", {}).body["session_id"]))
        return made

    def log_problems(self) -> list[str]:
        """What may be in no log: a traceback of ours, a message's words, a key, a token."""
        text = self.log.read_text(errors="replace")
        found = [f"a traceback of {name}" for name in sorted(set(TRACEBACK.findall(text)) - OF_A_CLIENT)]
        found += ["a traceback"] if "Traceback" in text else []
        found += ["a message's words"] if MARK in text else []
        found += ["a key"] if KEY_MARK in text else []
        return found + ["a token"] * any(token in text for token in self.tokens)


def environment(database_url: str, **more: str) -> dict[str, str]:
    """The environment of a process of the product: nothing of a .env counts."""
    fixed = {"DATABASE_URL": database_url, "ENV_FILE": os.devnull, "MAX_FAILURES_PER_MINUTE": "0"}
    return {**os.environ, **fixed, "DB_LOCK_TIMEOUT": "1.5", "DB_POOL_MAX": "15", **more}


def manage(database_url: str, *words: str, **more: str) -> str:
    """What `manage.py` prints. Raises CalledProcessError."""
    command = [sys.executable, "manage.py", *words]
    done = subprocess.run(
        command, cwd=BASE_DIR, env=environment(database_url, **more), check=True, text=True,
        capture_output=True,
    )  # fmt: skip
    return done.stdout


def migrate(database_url: str, users: int = 2) -> list[str]:
    """Make the tables and so many users; gives a token of each."""
    manage(database_url, "migrate", "--verbosity", "0", DB_STATEMENT_TIMEOUT="0")
    return manage(database_url, "shell", "-v", "0", "-c", MAKE_TOKENS.format(users)).split()


@contextmanager
def serving(
    database_url: str, log: Path, tokens: list[str], wsgi: str = "chatstore.wsgi", **settings: str
) -> Iterator[Product]:
    """gunicorn on this database, as `make run` starts it; ended with the block."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "python:chatstore.gunicorn", wsgi]
    chosen = environment(database_url, PORT=str(port), **settings)
    with log.open("ab") as file:
        server = subprocess.Popen(command, cwd=BASE_DIR, env=chosen, stdout=file, stderr=file)
    product = Product(port, database_url, psutil.Process(server.pid), log, tokens)
    try:
        wait_until_live(product)
        yield product
    finally:
        workers = product.workers if server.poll() is None else []
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        for worker in psutil.wait_procs(workers, timeout=5)[1]:
            worker.kill()


def wait_until_live(product: Product) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and product.process.status() != psutil.STATUS_ZOMBIE:
        try:
            with Client(product.port, timeout=2) as client:
                client.send("GET", "/health/live")
        except UNANSWERED:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"The server did not start:\n{product.log.read_text()[-2000:]}")
