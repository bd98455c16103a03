"""Workers are killed under writers (promise 1)."""

from __future__ import annotations

import pytest

from torture.store import Store
from torture.worker_kills import worker_kills

pytestmark = [pytest.mark.torture, pytest.mark.once]


def test_nothing_acknowledged_is_lost(store: Store) -> None:
    result = worker_kills(1, seconds=2, kills=4, at=store)
    assert result.is_clean, result.said
    assert (result.kills >= 4, result.acknowledged >= 20) == (True, True)
