"""What every route takes and refuses: text, metadata, unknown names, slashes, the order of checks (contract 1)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conftest import Caller, new_message
from conversations.models import Message, Session

SAID = {"role": "user", "content": "Hello!"}


def refused(answer: Any, *loc: str | int) -> None:
    assert answer.status_code == 422, answer.content
    assert list(loc) in [error["loc"] for error in answer.json()["errors"]]


# Text


UNSTORABLE = ["a\x00b", "\udc00\ud800"]
FIELDS = ["title", "pocket_id", "group_id", "agent_id", "workspace_id"]


@pytest.mark.parametrize("text", UNSTORABLE, ids=ascii)
@pytest.mark.parametrize("name", FIELDS)
def test_nul_and_lone_surrogates_are_no_text_of_a_session(alice: Caller, name: str, text: str) -> None:
    refused(alice.post("/api/sessions/", {name: text}), "body", name)


@pytest.mark.parametrize("text", UNSTORABLE, ids=ascii)
@pytest.mark.parametrize("name", ["role", "content", "tool_name", "trace_id", "span_id"])
def test_nul_and_lone_surrogates_are_no_text_of_a_message(
    alice: Caller, session: Session, name: str, text: str
) -> None:
    answer = alice.post(f"/api/messages/?session_id={session.pk}", SAID | {name: text})
    refused(answer, "body", name)


@pytest.mark.parametrize("text", UNSTORABLE, ids=ascii)
@pytest.mark.parametrize(
    "hide",
    [
        pytest.param(lambda text: {"a": text}, id="value"),
        pytest.param(lambda text: {text: 1}, id="key"),
        pytest.param(lambda text: {"a": [{"b": [text]}]}, id="deep value"),
        pytest.param(lambda text: {"a": [{text: None}]}, id="deep key"),
    ],
)
def test_nul_and_lone_surrogates_hide_nowhere_in_metadata(alice: Caller, hide: Any, text: str) -> None:
    refused(alice.post("/api/sessions/", {"metadata": hide(text)}), "body", "metadata")


@pytest.mark.parametrize("name", ["a\x00", "\ud800", "x" * 300], ids=["NUL", "surrogate", "long"])
def test_unknown_names_are_said_back_safely(alice: Caller, name: str) -> None:
    answer = alice.post("/api/sessions/", {name: 1})
    assert answer.status_code == 422
    assert len(answer.content) < 2000
    assert "\x00" not in answer.json()["detail"]


def test_a_surrogate_pair_is_a_character(alice: Caller) -> None:
    made = alice.post("/api/sessions/", rb'{"title": "\ud83d\ude00"}')
    assert made.json()["title"] == "\N{GRINNING FACE}"


# Metadata


def nested(depth: int) -> Any:
    """An object of this depth, the object itself counted."""
    return {"a": nested(depth - 1)} if depth > 1 else {}


EQUAL = {
    "empty": {},
    "every type": {"a": [None, True, False, 0, -1, 1.5, "x", [], {}]},
    "largest integer": {"a": 2**63 - 1},
    "smallest integer": {"a": 1 - 2**63},
    "large fraction": {"a": 9.2e18},
    "small fraction": {"a": 5e-324},
    "awkward fractions": {"a": [0.1, 1 / 3, 1e16, 123456789.123456789, -0.0]},
    "depth 32": nested(32),
    "key of 255": {"\N{GRINNING FACE}" * 255: 1},
    "empty key": {"": ""},
    "64 KiB": {"a": "x" * (64 * 1024 - len('{"a":""}'))},
    "two bytes each": {"a": "\N{LATIN SMALL LETTER E WITH ACUTE}" * ((64 * 1024 - len('{"a":""}')) // 2)},
    "names of fields": {"id": 1, "__proto__": 2, "non_field_errors": 3},
    "not normalised": {"e\u0301": 1, "\u00e9": 2},
}


@pytest.mark.parametrize("name", EQUAL)
def test_metadata_comes_back_equal(alice: Caller, name: str) -> None:
    made = alice.post("/api/sessions/", {"metadata": EQUAL[name]})
    assert made.status_code == 201
    assert alice.get(f"/api/sessions/{made.json()['id']}/").json()["metadata"] == EQUAL[name]
    assert alice.get("/api/sessions/").json()[0]["metadata"] == EQUAL[name]


FAULTY = {
    "array": [],
    "text": "{}",
    "number": 5,
    "true": True,
    "2^63": {"a": 2**63},
    "-2^63": {"a": -(2**63)},
    "1e20": {"a": [1e20]},
    "40 digits": {"a": 10**40},
    "depth 33": nested(33),
    "depth 33 of arrays": {"a": json.loads("[" * 32 + "]" * 32)},
    "key of 256": {"x" * 256: 1},
    "deep key of 256": {"a": [{"x" * 256: 1}]},
    "64 KiB and one": {"a": "x" * (64 * 1024 + 1 - len('{"a":""}'))},
}


@pytest.mark.parametrize("name", FAULTY)
def test_metadata_that_cannot_be_kept_is_refused(alice: Caller, session: Session, name: str) -> None:
    refused(alice.post("/api/sessions/", {"metadata": FAULTY[name]}), "body", "metadata")
    refused(alice.patch(f"/api/sessions/{session.pk}/", {"metadata": FAULTY[name]}), "body", "metadata")


@pytest.mark.parametrize("name", FAULTY)
def test_metadata_of_messages_is_held_to_the_same(alice: Caller, session: Session, name: str) -> None:
    path = f"/api/sessions/{session.pk}/messages/"
    refused(alice.post(path, SAID | {"metadata": FAULTY[name]}), "body", "metadata")
    assert not Message.objects.exists()


@pytest.mark.parametrize("number", [b"1e400", b"-1e400"])
def test_a_number_beyond_what_floats_hold_is_refused(alice: Caller, number: bytes) -> None:
    refused(alice.post("/api/sessions/", b'{"metadata": {"a": %s}}' % number), "body", "metadata")


# Unknown and coerced


ROUTES: list[Any] = [
    pytest.param("POST", "/api/sessions/", {}, id="create a session"),
    pytest.param("PATCH", "/api/sessions/{s}/", {}, id="change a session"),
    pytest.param("POST", "/api/sessions/{s}/restore/", {}, id="restore a session"),
    pytest.param("POST", "/api/messages/?session_id={s}", SAID, id="create a message by query"),
    pytest.param("POST", "/api/sessions/{s}/messages/", SAID, id="create a message"),
    pytest.param("POST", "/api/sessions/{s}/messages/batch/", {"messages": [SAID]}, id="create a batch"),
    pytest.param("PATCH", "/api/messages/{m}/", {}, id="change a message"),
    pytest.param("POST", "/api/me/tokens/", {}, id="create a token"),
    pytest.param("POST", "/api/users/", {}, id="create a user"),
    pytest.param("PATCH", "/api/users/{u}/", {}, id="change a user"),
]
READS: list[Any] = [
    pytest.param("GET", "/api/sessions/", None, id="list sessions"),
    pytest.param("GET", "/api/sessions/{s}/", None, id="read a session"),
    pytest.param("GET", "/api/messages/?session_id={s}", None, id="list messages by query"),
    pytest.param("GET", "/api/messages/?trace_id=t", None, id="list a trace"),
    pytest.param("GET", "/api/sessions/{s}/messages/", None, id="list messages"),
    pytest.param("GET", "/api/messages/{m}/", None, id="read a message"),
    pytest.param("GET", "/api/me/", None, id="me"),
    pytest.param("GET", "/api/me/tokens/", None, id="list tokens"),
    pytest.param("GET", "/api/users/", None, id="list users"),
    pytest.param("GET", "/api/users/{u}/", None, id="read a user"),
]
DELETES: list[Any] = [
    pytest.param("DELETE", "/api/sessions/{s}/", None, id="delete a session"),
    pytest.param("DELETE", "/api/messages/{m}/", None, id="delete a message"),
    pytest.param("DELETE", "/api/me/tokens/{t}/", None, id="revoke a token"),
    pytest.param("DELETE", "/api/users/{u}/", None, id="deactivate a user"),
]


@pytest.fixture
def filled(sam: Caller) -> dict[str, int]:
    """One of each thing, all of them sam's."""
    made = sam.post("/api/sessions/").json()
    message = new_message(Session.objects.get(pk=made["id"]))
    token = sam.post("/api/me/tokens/").json()
    return {"s": made["id"], "m": message.pk, "u": sam.user.pk, "t": token["id"]}


@pytest.mark.parametrize(("verb", "path", "body"), [*ROUTES, *READS, *DELETES])
def test_every_route_answers_with_a_slash(
    sam: Caller, filled: dict[str, int], verb: str, path: str, body: Any
) -> None:
    assert sam.send(verb, path.format(**filled), body).status_code in (200, 201, 204)


@pytest.mark.parametrize(("verb", "path", "body"), [*ROUTES, *READS, *DELETES])
def test_every_route_answers_without_a_slash(
    sam: Caller, filled: dict[str, int], verb: str, path: str, body: Any
) -> None:
    bare = path.format(**filled).replace("/?", "?").rstrip("/")
    assert bare != path
    assert sam.send(verb, bare, body).status_code in (200, 201, 204)


@pytest.mark.parametrize(("verb", "path", "body"), ROUTES)
def test_a_field_that_nobody_knows_is_refused(
    sam: Caller, filled: dict[str, int], verb: str, path: str, body: dict[str, Any]
) -> None:
    refused(sam.send(verb, path.format(**filled), body | {"titel": "x"}), "body", "titel")


@pytest.mark.parametrize(("verb", "path", "body"), [*ROUTES, *READS, *DELETES])
def test_a_parameter_that_nobody_knows_is_refused(
    sam: Caller, filled: dict[str, int], verb: str, path: str, body: Any
) -> None:
    path = path.format(**filled)
    answer = sam.send(verb, f"{path}{'&' if '?' in path else '?'}lmit=5", body)
    refused(answer, "query", "lmit")


@pytest.mark.parametrize(("verb", "path", "body"), [*ROUTES, *READS, *DELETES])
def test_every_route_needs_a_token(
    nobody: Caller, filled: dict[str, int], verb: str, path: str, body: Any
) -> None:
    assert nobody.send(verb, path.format(**filled), body).status_code == 401


# The order of checks


def test_401_comes_before_405(nobody: Caller) -> None:
    assert nobody.send("PUT", "/api/sessions/1/").status_code == 401


@pytest.mark.parametrize("path", ["/api/sessions/", "/api/sessions/1/", "/api/messages/x/", "/api/me/tokens/"])
@pytest.mark.parametrize("verb", ["PUT", "OPTIONS", "TRACE"])
def test_405_comes_before_415_and_404(alice: Caller, verb: str, path: str) -> None:
    answer = alice.send(verb, path, b"x", Content_Type="text/plain")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"]


NOT_JSON = {"Content_Type": "text/plain"}


def test_401_comes_before_415(nobody: Caller) -> None:
    assert nobody.post("/api/sessions/", b"x", **NOT_JSON).status_code == 401


@pytest.mark.parametrize(
    "path", ["/api/sessions/1/messages/", "/api/messages/?session_id=1", "/api/sessions/x/restore/"]
)
def test_415_comes_before_404(alice: Caller, path: str) -> None:
    assert alice.post(path, b"x", **NOT_JSON).status_code == 415


def test_415_comes_before_403(mallory: Caller, session: Session) -> None:
    assert mallory.patch(f"/api/sessions/{session.pk}/", b"x", **NOT_JSON).status_code == 415
    assert mallory.patch(f"/api/sessions/{session.pk}/", b"x").status_code == 403


def test_415_comes_before_403_on_a_collection(mallory: Caller) -> None:
    assert mallory.post("/api/users/", b"x", **NOT_JSON).status_code == 415
    assert mallory.post("/api/users/", b"x").status_code == 403


@pytest.mark.parametrize("body", [b"{", b'{"title": 1}', b'{"x": 1}'], ids=["no JSON", "bad", "unknown"])
def test_404_comes_before_422(alice: Caller, body: bytes) -> None:
    assert alice.patch("/api/sessions/1/?x=1", body).status_code == 404
    assert alice.post("/api/messages/?session_id=1&x=1", body).status_code == 404


def test_403_comes_before_422(mallory: Caller, session: Session) -> None:
    assert mallory.patch(f"/api/sessions/{session.pk}/?x=1", b"{").status_code == 403
    assert mallory.get(f"/api/messages/?session_id={session.pk}&limit=x").status_code == 403


def test_422_comes_before_409(alice: Caller, session: Session) -> None:
    message = new_message(session, role="assistant")
    Message.objects.update(status="streaming")
    assert alice.patch(f"/api/messages/{message.pk}/", {"tokens": "5"}).status_code == 422
    assert alice.patch(f"/api/messages/{message.pk}/", {"tokens": 5}).status_code == 409


def test_of_very_many_unknown_fields_a_hundred_are_told(alice: Caller) -> None:
    answer = alice.post("/api/sessions/", {f"field-{number}": 1 for number in range(5000)})
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 100)


def test_too_many_parameters_are_422(alice: Caller) -> None:
    assert alice.get(f"/api/sessions/?{'&'.join(['a'] * 1100)}").status_code == 422


def test_a_batch_of_very_many_unknown_fields_is_answered_shortly(alice: Caller, session: Session) -> None:
    message = {f"field-{number}": 1 for number in range(120)}
    answer = alice.post(f"/api/sessions/{session.pk}/messages/batch/", {"messages": [message] * 100})
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 100)
