"""PostgreSQL is killed under writers (promise 1)."""

from __future__ import annotations

import pytest

from torture.postgres_kills import postgres_kills, postgres_too_early

pytestmark = [pytest.mark.torture, pytest.mark.once]
SEED = 1


def test_nothing_acknowledged_is_lost() -> None:
    result = postgres_kills(SEED, cycles=2, writes=100)
    assert result.is_clean, result.said
    assert (result.kills, result.acknowledged >= 300) == (2, True)


def test_the_checker_cries_where_postgresql_acknowledges_too_early() -> None:
    result = postgres_too_early(SEED)
    assert result.is_clean, result
    assert result.lost
