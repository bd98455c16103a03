"""One database for all short forms that leave PostgreSQL alive, and one server for those that leave it alive."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from torture.product import Product
from torture.store import Store, serving_on, store_at


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """On a PostgreSQL of its own."""
    with store_at(None) as made:
        yield made


@pytest.fixture(scope="session")
def product(store: Store) -> Iterator[Product]:
    with serving_on(store) as server:
        yield server
