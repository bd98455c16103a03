"""No message text, token or key is ever in a log (design 4.8); every line has the request's id (contract 1)."""

from __future__ import annotations

import io
import json
import logging
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from django.conf import settings as project
from django.db import IntegrityError, connection, transaction
from pytest_django import Settings

from chatstore.http.logs import EventFormatter, described
from chatstore.tests.serving import fetch, serving
from conftest import Caller, new_message
from conversations.models import Message, Session

SECRET = "Xylophone-7431"
KEY = "Key-Quagmire-99"


@pytest.fixture(params=["console", "json"])
def log(request: pytest.FixtureRequest, settings: Settings) -> Iterator[io.StringIO]:
    """All that the project's own logging writes at DEBUG with LOG_SQL on, in either form."""
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"log_sql": True, "log_level": "DEBUG"})
    logging_of_project: Any = project.LOGGING
    configured = logging_of_project["formatters"]["structured"]
    processors = configured["processors"]
    if request.param == "json":
        processors = [*processors[:-1], structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(written := io.StringIO())
    handler.setFormatter(EventFormatter(processors=processors, foreign_pre_chain=configured["foreign_pre_chain"]))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def write(alice: Caller, session: Session) -> None:
    """Every kind of write, each with the secret in it."""
    said = {"role": "user", "content": SECRET, "metadata": {SECRET: SECRET}, "tool_name": SECRET}
    path = f"/api/sessions/{session.pk}/"
    alice.patch(path, {"title": SECRET, "pocket_id": SECRET, "metadata": {"a": SECRET}})
    made = alice.post(f"{path}messages/", said, Idempotency_Key=KEY).json()
    alice.post(f"{path}messages/batch/", {"messages": [said]}, Idempotency_Key=KEY + "2")
    alice.patch(f"/api/messages/{made['id']}/", {"content": SECRET + "!"})
    alice.delete(f"/api/messages/{made['id']}/")


def read(alice: Caller, session: Session) -> None:
    new_message(session, SECRET, trace_id=SECRET)
    alice.get(f"/api/sessions/{session.pk}/messages/?trace_id={SECRET}")
    alice.get(f"/api/messages/?trace_id={SECRET}")
    alice.get(f"/api/sessions/?title={SECRET}")


def refuse(alice: Caller, session: Session) -> None:
    path = f"/api/sessions/{session.pk}/messages/"
    alice.post(path, {"role": SECRET, "content": [SECRET], SECRET: 1, "tokens": SECRET})
    alice.post(path, f'{{"content": "{SECRET}"'.encode())
    alice.post(path, f'{{"content": "{SECRET}\\ud800"}}'.encode())
    alice.get(f"{path}?{SECRET}={SECRET}")
    alice.post(path, {"role": "user", "content": "x"}, Idempotency_Key=KEY)
    alice.post(path, {"role": "user", "content": SECRET}, Idempotency_Key=KEY)


def authenticate(alice: Caller, session: Session) -> None:
    made = alice.post("/api/me/tokens/", {"name": SECRET}, Idempotency_Key=KEY).json()
    fresh = Caller(alice.user, made["token"])
    fresh.get("/api/me/")
    fresh.get("/api/me/", Authorization=f"Basic {SECRET}")
    fresh.get("/api/me/", Authorization=f"Bearer cst_{SECRET * 3:.43}")
    alice.token, alice_token = made["token"], alice.token
    alice.get("/api/me/")
    alice.token = alice_token


@pytest.mark.parametrize("do", [write, read, refuse, authenticate])
def test_it_works(
    alice: Caller, session: Session, log: io.StringIO, do: Callable[[Caller, Session], None]
) -> None:
    do(alice, session)
    lines = log.getvalue()
    assert "SELECT" in lines
    assert [word for word in (SECRET, KEY, alice.token, "cst_") if word in lines] == []


def test_statements_are_logged_without_values(alice: Caller, session: Session, log: io.StringIO) -> None:
    alice.get(f"/api/sessions/{session.pk}/")
    statements = [line for line in log.getvalue().splitlines() if "chatstore.sql" in line]
    assert statements
    assert any("%s" in line and "conversations_session" in line for line in statements)
    assert str(session.session_id) not in log.getvalue()


def test_statements_are_left_out_by_default(alice: Caller, log: io.StringIO, settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"log_sql": False})
    alice.get("/api/sessions/")
    assert "SELECT" not in log.getvalue()


@pytest.mark.parametrize("log", ["json"], indirect=True)
def test_every_line_has_the_requests_id(alice: Caller, log: io.StringIO) -> None:
    alice.post("/api/sessions/", X_Request_ID="mine")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {line.get("request_id") for line in lines} == {"mine"}
    assert {line["logger"] for line in lines} == {"chatstore.sql", "chatstore.request"}


@pytest.mark.parametrize("log", ["json"], indirect=True)
def test_a_request_is_one_line(alice: Caller, log: io.StringIO) -> None:
    alice.get(f"/api/sessions/?title={SECRET}")
    lines = [json.loads(line) for line in log.getvalue().splitlines() if "chatstore.request" in line]
    assert len(lines) == 1
    assert {"method": "GET", "path": "/api/sessions/", "status": 200, "level": "info"}.items() <= lines[0].items()
    assert lines[0]["ms"] > 0


@pytest.mark.parametrize("path", ["/api/sessions/1%0Aforged/", "/api/sessions/1%0D%0Aforged/", "/api/%1B%5B2J/"])
def test_a_path_forges_no_line(alice: Caller, log: io.StringIO, path: str) -> None:
    alice.get(path)
    lines = [line for line in log.getvalue().splitlines() if "chatstore.sql" not in line]
    assert len(lines) == 1
    assert "\x1b" not in lines[0]


# Errors


def broken_position(session: Session) -> None:
    """Makes the next append collide with a message that is there."""
    new_message(session)
    Session.objects.filter(pk=session.pk).update(last_position=0, message_count=0)


def test_an_integrity_error_does_not_show_the_row(alice: Caller, session: Session, log: io.StringIO) -> None:
    broken_position(session)
    alice.client.raise_request_exception = False
    answer = alice.post(f"/api/sessions/{session.pk}/messages/", {"role": "user", "content": SECRET})
    assert answer.status_code in (409, 500)
    assert "message_position" in log.getvalue() or "IntegrityError" in log.getvalue()
    assert SECRET not in log.getvalue() + answer.content.decode()


def failing_row(message: Message) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        Message.objects.filter(pk=message.pk).update(content=SECRET, tokens=-1)
    return caught.value


@pytest.mark.parametrize("how", ["exception", "exc_info"])
def test_a_traceback_does_not_show_the_failing_row(session: Session, log: io.StringIO, how: str) -> None:
    error = failing_row(new_message(session))
    if connection.vendor == "postgresql":
        assert SECRET in str(error)  # The premise: PostgreSQL's own text quotes the row.
    for logger in (logging.getLogger("django.request"), structlog.get_logger("chatstore.test")):
        logger.error("failed", exc_info=(type(error), error, error.__traceback__) if how == "exc_info" else error)
    assert "Traceback" in log.getvalue() or "test_logs.py" in log.getvalue()
    assert "IntegrityError" in log.getvalue()
    assert SECRET not in log.getvalue()


@pytest.mark.postgres
def test_a_bug_is_logged_with_its_place_and_without_values(
    alice: Caller, session: Session, log: io.StringIO
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE conversations_message DROP COLUMN tool_name")
    alice.client.raise_request_exception = False
    body = {"role": "user", "content": SECRET}
    answer = alice.post(f"/api/sessions/{session.pk}/messages/", body, X_Request_ID="mine")
    assert answer.status_code == 500
    assert "services.py" in log.getvalue()
    assert SECRET not in log.getvalue()


@pytest.mark.parametrize("model", [Session, Message])
def test_the_text_of_an_object_shows_no_words(session: Session, model: type[Session | Message]) -> None:
    Session.objects.filter(pk=session.pk).update(title=SECRET)
    new_message(session, SECRET)
    assert SECRET not in f"{model.objects.get()} {model.objects.get()!r}"


MALFORMED = [
    b"GET /health HTTP/1.1\r\nAuthorization Bearer cst_SECRET\r\n\r\n",
    b"GET /api/sessions/?title=SECRET words HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /api/sessions/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n",
]


def test_the_servers_own_log_holds_nothing_of_a_malformed_request(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file, serving(f"sqlite:///{tmp_path}/none.sqlite3", file) as port:
        for request in MALFORMED:
            with socket.create_connection(("127.0.0.1", port), 10) as link:
                link.sendall(request)
                assert link.recv(20).startswith(b"HTTP/1.1 4")
        fetch(port, "HEAD", "/health/live")
    written = log.read_text()
    assert written.count("Invalid request") >= 2
    assert "SECRET" not in written
    assert "no-body" not in written


def test_the_servers_own_log_at_debug_holds_nothing_of_a_request_that_broke_off(tmp_path: Path) -> None:
    log = tmp_path / "log"
    debug = {"GUNICORN_CMD_ARGS": "--log-level debug"}
    with log.open("wb") as file, serving(f"sqlite:///{tmp_path}/none.sqlite3", file, **debug) as port:
        with socket.create_connection(("127.0.0.1", port), 10) as link:
            link.sendall(b"GET /api/me/ HTTP/1.1\r\nAuthorization: Bearer SECRET")
            link.shutdown(socket.SHUT_WR)
            link.recv(20)
        fetch(port, "GET", "/health/live")
    written = log.read_text()
    assert "premature" in written
    assert "SECRET" not in written


@pytest.mark.parametrize("log", ["json"], indirect=True)
def test_what_may_be_a_token_in_a_path_is_not_logged(alice: Caller, session: Session, log: io.StringIO) -> None:
    alice.get(f"/api/sessions/{'tX5fYtq8hJr0aKcVwLzE2mGdNpSuBvQi'}/")
    alice.get(f"/api/sessions/{session.session_id}/")
    requests = [json.loads(line) for line in log.getvalue().splitlines() if "chatstore.request" in line]
    assert [line["path"] for line in requests] == ["/api/sessions/[...]/", f"/api/sessions/{session.session_id}/"]


def test_an_error_of_sqlites_driver_quotes_no_row() -> None:
    assert described(sqlite3.OperationalError("could not decode 'Ann'")) == "OperationalError"
