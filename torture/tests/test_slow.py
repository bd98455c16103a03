"""A slow or absent database, and slow or odd clients, on one server (the short forms of both scenarios)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from torture.checker import check
from torture.http_edge import TALKATIVE, odd_answers, odd_requests, slow_clients
from torture.product import Product
from torture.report import check_store
from torture.slow_database import Stage, Times, locked_session, staged, stalled, stopped, unanswered

pytestmark = [pytest.mark.torture, pytest.mark.once]
# `noise` and `ratio` are for a busy machine: what starves or hangs takes longer than both.
TIMES = Times(statement=1, stall=5, stop=3, recovery=2.5, window=1, lock=2.5, noise=2, ratio=0.2)
THREADS = 20
SEED = 1


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(SEED, TIMES, WEB_THREADS=str(THREADS), **TALKATIVE) as found:
        yield found


@pytest.fixture(scope="module")
def product(stage: Stage) -> Product:
    """The same server, for somebody whose sessions come and go."""
    return replace(stage.product, tokens=[stage.token])


def test_odd_requests_are_refused_or_answered_once(product: Product) -> None:
    assert [*odd_requests(product, SEED), *odd_answers(product)] == []


def test_who_is_quick_is_served_while_others_are_slow(product: Product) -> None:
    said, _ = slow_clients(product, 3 * THREADS, seconds=3, ratio=5, noise=1)
    assert said == []


@pytest.mark.parametrize("part", [stalled, unanswered, locked_session, stopped])
def test_each_request_ends_as_a_success_or_a_503(stage: Stage, part: Callable[[Stage], None]) -> None:
    stage.said.clear()
    part(stage)
    assert stage.said == []


def test_nothing_acknowledged_is_lost(stage: Stage) -> None:
    assert not check(stage.product, stage.sessions, stage.attempts)
    assert check_store(stage.product.database_url) == []
    assert stage.product.log_problems() == []
