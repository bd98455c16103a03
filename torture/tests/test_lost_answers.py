"""Whoever sends again after a lost answer gets the same ids and positions (promise 2)."""

from __future__ import annotations

import pytest

from torture.lost_answers import lost_answers, lost_commits
from torture.product import Product
from torture.store import Store

pytestmark = [pytest.mark.torture, pytest.mark.once]


def test_of_gunicorn(product: Product) -> None:
    result = lost_answers(1, writes=60, on=product)
    assert result.is_clean, result.said
    assert result.acknowledged == 60
    assert "cut in the headers: 7 lost, 7 repeated" in result.notes[0]


def test_of_postgresql(store: Store) -> None:
    result = lost_commits(1, writes=60, at=store)
    assert result.is_clean, result.said
    assert (result.acknowledged, result.unavailable >= 10) == (60, True)
