"""The same write, many times at once and later, is stored once (promise 2)."""

from __future__ import annotations

import pytest

from torture.product import Product
from torture.retry_storm import retry_storm

pytestmark = [pytest.mark.torture, pytest.mark.once]


def test_each_is_stored_once(product: Product) -> None:
    result = retry_storm(1, writes=100, on=product)
    assert result.is_clean, result.said
    assert (result.acknowledged, result.notes) == (100, ["400 answers of 2 workers"])
