"""The checker finds each thing that can go wrong with an append, and nothing where all went well."""

from __future__ import annotations

import pytest

from torture.checker import Attempt, Findings, Row, check_session

pytestmark = pytest.mark.once

Made = tuple[tuple[int, int], ...]


def attempt(
    key: str, started: float, ended: float, status: int | None, made: Made = (), count: int | None = None
) -> Attempt:
    digests = tuple(f"{key}{number}" for number in range(count or len(made) or 1))
    return Attempt("session", key, digests, started, ended, status, made)


A = attempt("a", 0, 1, 201, ((11, 1),))
BATCH = attempt("b", 2, 3, 201, ((12, 2), (13, 3)))
STORED = [Row(11, 1, "a0"), Row(12, 2, "b0"), Row(13, 3, "b1")]


def found(stored: list[Row], attempts: list[Attempt]) -> set[str]:
    findings = Findings()
    check_session(stored, attempts, findings)
    return set(findings.counts)


@pytest.mark.parametrize(
    ("stored", "attempts"),
    [
        pytest.param(STORED, [A, BATCH], id="acknowledged"),
        pytest.param(STORED, [A, A, BATCH, attempt("b", 8, 9, 200, BATCH.made)], id="replayed"),
        pytest.param(STORED, [A, BATCH, attempt("c", 4, 5, 422)], id="refused"),
        pytest.param(STORED, [A, BATCH, attempt("c", 4, 5, None)], id="unanswered-and-absent"),
        pytest.param([*STORED, Row(14, 4, "c0")], [A, BATCH, attempt("c", 4, 5, 503)], id="503-and-there"),
        pytest.param(
            [Row(12, 1, "b0"), Row(13, 2, "b1"), Row(11, 3, "a0")],
            [attempt("a", 0, 9, 201, ((11, 3),)), attempt("b", 2, 3, 201, ((12, 1), (13, 2)))],
            id="at-once-in-either-order",
        ),
        pytest.param(
            [Row(12, 1, "b0"), Row(11, 2, "a0")],
            [
                attempt("b", 0, 1, None),
                attempt("a", 2, 3, 201, ((11, 2),)),
                attempt("b", 4, 5, 200, ((12, 1),)),
            ],
            id="stored-by-the-first-try",
        ),
    ],
)
def test_nothing_is_found_where_all_went_well(stored: list[Row], attempts: list[Attempt]) -> None:
    assert found(stored, attempts) == set()


@pytest.mark.parametrize(
    ("stored", "attempts", "kind"),
    [
        pytest.param(STORED[1:], [A, BATCH], "lost", id="acknowledged-and-absent"),
        pytest.param(STORED[:2], [A, BATCH], "lost", id="half-of-an-acknowledged-batch"),
        pytest.param([Row(12, 1, "b0")], [attempt("b", 0, 1, None, count=2)], "lost", id="half-of-an-unanswered"),
        pytest.param([Row(11, 1, "x0"), *STORED[1:]], [A, BATCH], "lost", id="other-content"),
        pytest.param([*STORED, Row(14, 4, "a0")], [A, BATCH], "duplicated", id="twice"),
        pytest.param(
            [*STORED, Row(14, 4, "c0"), Row(15, 5, "c0")],
            [A, BATCH, attempt("c", 4, 5, None)],
            "duplicated",
            id="unanswered-and-twice",
        ),
        pytest.param(STORED, [A, attempt("a", 8, 9, 200, ((19, 9),)), BATCH], "different", id="another-answer"),
        pytest.param([Row(11, 4, "a0"), *STORED[1:]], [A, BATCH], "reordered", id="elsewhere-than-was-said"),
        pytest.param(
            [Row(12, 1, "b0"), Row(13, 2, "b1"), Row(11, 3, "a0")],
            [attempt("a", 0, 1, 201, ((11, 3),)), attempt("b", 2, 3, 201, ((12, 1), (13, 2)))],
            "reordered",
            id="before-what-had-ended",
        ),
        pytest.param([*STORED, Row(14, 4, "x0")], [A, BATCH], "unexpected", id="sent-by-nobody"),
        pytest.param(
            [*STORED, Row(14, 4, "c0")],
            [A, BATCH, attempt("c", 4, 5, 422)],
            "unexpected",
            id="refused-and-there",
        ),
    ],
)
def test_what_went_wrong_is_found(stored: list[Row], attempts: list[Attempt], kind: str) -> None:
    assert kind in found(stored, attempts)
