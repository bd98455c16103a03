"""One database for all short forms that leave PostgreSQL alive, and one server for those that leave it alive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from torture.product import Product, migrate
from torture.store import USERS, Store, serving_on


@pytest.fixture(scope="session")
def store() -> Store:
    """In the server of the tests, beside their own database."""
    url = os.environ["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("DROP DATABASE IF EXISTS torture WITH (FORCE)")
        server.execute("CREATE DATABASE torture")
    made = urlunsplit(urlsplit(url)._replace(path="/torture"))
    return Store(made, migrate(made, USERS))


@pytest.fixture(scope="session")
def product(store: Store) -> Iterator[Product]:
    with serving_on(store) as server:
        yield server
