"""`X-Request-ID`: taken if sane, made otherwise, returned (contract 1). In the log: test_logs.py."""

from __future__ import annotations

import uuid

import pytest

from conftest import Caller

SANE = ["a", "A-b_c.9", "x" * 128]
INSANE = ["", "x" * 129, "a b", "a/b", "a,b", "<script>", "caf\u00e9", "a;b", "a\tb", '"a"']


@pytest.mark.parametrize("given", SANE)
def test_a_sane_id_is_taken(alice: Caller, given: str) -> None:
    assert alice.get("/api/sessions/", X_Request_ID=given).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", INSANE)
def test_another_is_replaced(alice: Caller, given: str) -> None:
    returned = alice.get("/api/sessions/", X_Request_ID=given).headers["X-Request-ID"]
    assert returned != given
    assert uuid.UUID(returned).version == 7


def test_without_one_each_request_has_its_own(alice: Caller) -> None:
    first, second = (alice.get("/api/sessions/").headers["X-Request-ID"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/sessions/1/", 404),
        ("/api/sessions/?x=1", 422),
        ("/api/nonsense", 404),
        ("/nonsense", 404),
        ("/health", 200),
        ("/", 200),
        ("/openapi.json", 200),
    ],
)
def test_every_answer_returns_it(alice: Caller, path: str, status: int) -> None:
    answer = alice.get(path, X_Request_ID="mine")
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (status, "mine")


def test_a_401_returns_it(nobody: Caller) -> None:
    answer = nobody.get("/api/sessions/", X_Request_ID="mine")
    assert (answer.headers["X-Request-ID"], answer.json()["request_id"]) == ("mine", "mine")


def test_a_304_returns_it(alice: Caller) -> None:
    tag = alice.get("/api/sessions/").headers["ETag"]
    answer = alice.get("/api/sessions/", If_None_Match=tag, X_Request_ID="mine")
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (304, "mine")
