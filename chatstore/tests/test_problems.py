"""Every error is a problem document (contract 1, errors)."""

from __future__ import annotations

import re
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from chatstore.environment import Environment
from conftest import Caller, new_message
from conversations import services
from conversations.models import Message, Session

SAID = {"role": "user", "content": "Hello!"}
PLAIN = {"Content_Type": "text/plain"}


def told(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The problem in `answer`, held to the contract."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert set(problem) - {"errors"} == {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert [type(problem[name]) for name in ("type", "title", "detail")] == [str, str, str]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert re.fullmatch("[a-z0-9]+(_[a-z0-9]+)*", problem["code"])
    return problem


ERRORS: list[Any] = [
    pytest.param("GET", "/api/sessions/1/", None, {}, 404, "not_found", id="no such session"),
    pytest.param("GET", "/api/nonsense/", None, {}, 404, "not_found", id="no such path"),
    pytest.param("PUT", "/api/sessions/", None, {}, 405, "method_not_allowed", id="method"),
    pytest.param("POST", "/api/sessions/", b"x", PLAIN, 415, "unsupported_media_type", id="media type"),
    pytest.param("POST", "/api/sessions/", b"{", {}, 422, "invalid_json", id="JSON"),
    pytest.param("POST", "/api/sessions/", {"title": 1}, {}, 422, "validation_error", id="field"),
    pytest.param("GET", "/api/sessions/?x=1", None, {}, 422, "validation_error", id="parameter"),
    pytest.param("POST", "/api/sessions/", {"x": 1}, {}, 422, "validation_error", id="unknown field"),
]


@pytest.mark.parametrize(("verb", "path", "body", "headers", "status", "code"), ERRORS)
def test_it_works(
    alice: Caller, verb: str, path: str, body: Any, headers: dict[str, str], status: int, code: str
) -> None:
    problem = told(alice.send(verb, path, body, **headers), status, code)
    assert ("errors" in problem) is (status == 422)


def test_a_missing_token(nobody: Caller) -> None:
    told(nobody.get("/api/sessions/"), 401, "not_authenticated")


def test_a_bad_token(nobody: Caller) -> None:
    told(nobody.get("/api/sessions/", Authorization="Bearer x"), 401, "invalid_token")


def test_somebody_elses(mallory: Caller, session: Session) -> None:
    told(mallory.get(f"/api/sessions/{session.pk}/"), 403, "permission_denied")


def test_a_state_that_does_not_allow_it(alice: Caller, session: Session) -> None:
    message = new_message(session, role="assistant")
    Message.objects.update(status="streaming")
    told(alice.delete(f"/api/messages/{message.pk}/"), 409, "message_streaming")


def test_every_fault_has_a_place_a_message_and_a_type(alice: Caller, session: Session) -> None:
    answer = alice.post(f"/api/sessions/{session.pk}/messages/", {"role": 1, "tokens": "5"})
    errors = told(answer, 422, "validation_error")["errors"]
    assert {tuple(error["loc"]) for error in errors} == {("body", "role"), ("body", "content"), ("body", "tokens")}
    assert {type(error[name]) for error in errors for name in ("msg", "type")} == {str}
    assert {frozenset(error) for error in errors} == {frozenset({"loc", "msg", "type"})}


@pytest.mark.parametrize(
    ("path", "body", "headers", "place"),
    [
        ("/api/sessions/", {"title": 1}, {}, "body"),
        ("/api/sessions/", b"[]", {}, "body"),
        ("/api/sessions/?x=1", {}, {}, "query"),
        ("/api/sessions/", {}, {"Idempotency_Key": ""}, "header"),
    ],
    ids=["field", "body", "query", "header"],
)
def test_a_place_begins_with_the_part_of_the_request(
    alice: Caller, path: str, body: Any, headers: dict[str, str], place: str
) -> None:
    problem = told(alice.post(path, body, **headers), 422, alice.post(path, body, **headers).json()["code"])
    assert problem["errors"][0]["loc"][0] == place


def test_a_detail_names_the_field(alice: Caller) -> None:
    assert "title" in alice.post("/api/sessions/", {"title": 123}).json()["detail"]


def test_a_detail_does_not_repeat_what_was_sent(alice: Caller, session: Session) -> None:
    answer = alice.post(f"/api/sessions/{session.pk}/messages/", {"role": "secret words", "content": "x"})
    assert "secret words" not in answer.content.decode()


@pytest.mark.parametrize("path", ["/api/", "/api/nonsense", "/api/sessions/1/nonsense/", "/api//sessions/"])
@pytest.mark.parametrize("verb", ["GET", "POST", "PUT", "DELETE"])
def test_a_path_that_is_not_there_is_a_problem(alice: Caller, verb: str, path: str) -> None:
    """With CSRF checks on, as outside of tests: a POST without a cookie is no reason for a page of HTML."""
    alice.client = Client(enforce_csrf_checks=True)
    told(alice.send(verb, path, {} if verb != "GET" else None), 404, "not_found")


@pytest.mark.parametrize("accept", ["text/html", "text/event-stream", "application/xml", "image/*;q=0", ""])
def test_accept_is_ignored(alice: Caller, accept: str) -> None:
    assert alice.get("/api/sessions/", Accept=accept).headers["Content-Type"] == "application/json"
    told(alice.get("/api/sessions/1/", Accept=accept), 404, "not_found")


@pytest.mark.postgres
def test_a_bug_is_a_problem_and_tells_nothing(alice: Caller, session: Session) -> None:
    """A column that went away is a bug of ours as far as the code can know."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE conversations_session DROP COLUMN tokens CASCADE")
    alice.client.raise_request_exception = False
    problem = told(alice.get(f"/api/sessions/{session.pk}/"), 500, "internal_error")
    assert "tokens" not in problem["detail"]


def test_what_was_never_text_of_ours_is_no_html(alice: Caller) -> None:
    answer = alice.get("/api/sessions/", Host="evil.example")
    told(answer, 400, "bad_request")


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_lock_held_too_long_is_503_within_two_seconds(alice: Caller, session: Session) -> None:
    held, done = Event(), Event()
    timeout = Environment.model_fields["db_lock_timeout"].default
    assert timeout < 2

    def hold() -> None:
        with transaction.atomic():
            services.locked(session)
            held.set()
            done.wait(20)
        connection.close()

    holder = Thread(target=hold)
    holder.start()
    try:
        assert held.wait(5)
        with connection.cursor() as cursor:  # The tests wait longer for a lock than the product.
            cursor.execute("SET lock_timeout = %s", [f"{timeout}s"])
        started = monotonic()
        answer = alice.post(f"/api/sessions/{session.pk}/messages/", SAID)
        took = monotonic() - started
    finally:
        done.set()
        holder.join()
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")
    told(answer, 503, "service_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert timeout <= took < timeout + 3  # On a busy machine.
    assert not Message.objects.exists()
