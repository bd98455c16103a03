"""A real server for the tests that need one, and a client without manners."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any

from django.db import connection

from chatstore.environment import BASE_DIR
from chatstore.tests.credentials import COLLECTED


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def own_database_url() -> str:
    """DATABASE_URL of the database that the tests run on, for a process that a test starts."""
    place = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{place['NAME']}"
    host = place["HOST"] or place["OPTIONS"].get("host", "")
    name = f"{place['USER']}:{place['PASSWORD']}@/{place['NAME']}"
    return f"postgresql://{name}?host={host}&port={place['PORT'] or 5432}"


@contextmanager
def serving(database_url: str, log: Any = None, **environment: str) -> Iterator[int]:
    """gunicorn with this project on this database, as `make run` starts it, its log in the file `log`; gives
    its port. It logs all that it can, to be searched for credentials."""
    port = free_port()
    chosen = {"DATABASE_URL": database_url, "PORT": str(port), "WEB_WORKERS": "1", "DB_POOL_MIN": "1"}
    talkative = {"LOG_LEVEL": "DEBUG", "LOG_SQL": "true"}
    command = [sys.executable, "-m", "gunicorn", "-c", "python:chatstore.gunicorn", "chatstore.wsgi"]
    with COLLECTED.server_log(f"server-{port}.log", log) as file:
        server = subprocess.Popen(
            command,
            cwd=BASE_DIR,
            env={**os.environ, **chosen, **talkative, **environment},
            stdout=file,
            stderr=file,
        )
        try:
            wait_for(server, port)
            yield port
        finally:
            server.terminate()
            server.wait(20)


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        try:
            fetch(port, "GET", "/health/live")
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("The server did not start.")


def fetch(port: int, verb: str, path: str, body: Any = None, **headers: str) -> tuple[HTTPResponse, bytes]:
    """One request on a connection of its own. A body without a length (an iterator) is sent chunked."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    link = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        link.request(verb, path, body, named)
        answer = link.getresponse()
        said = answer.read()
        COLLECTED.note_request(named.get("Authorization", ""), named.get("Cookie", ""))
        COLLECTED.note_answer(verb, path.partition("?")[0], answer.status, answer.getheaders(), said)
        return answer, said
    finally:
        link.close()
