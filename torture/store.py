"""A database with its tables and some users, for a scenario that does not kill PostgreSQL itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from chatstore.testdatabase import OwnPostgres
from torture.product import Product, migrate, serving

USERS = 4


class Store(NamedTuple):
    """Where it is, and a token of each user."""

    url: str
    tokens: list[str]


@contextmanager
def store_at(given: Store | None) -> Iterator[Store]:
    """The given one, or a new one that is gone after the block."""
    if given:
        yield given
        return
    server = OwnPostgres()
    try:
        url = server.start()
        yield Store(url, migrate(url, USERS))
    finally:
        server.stop()


@contextmanager
def server_for(given: Product | None, **settings: str) -> Iterator[Product]:
    """The given one, or a new one on a new database."""
    if given:
        yield given
        return
    with store_at(None) as store, serving_on(store, **settings) as product:
        yield product


@contextmanager
def serving_on(store: Store, wsgi: str = "chatstore.wsgi", **settings: str) -> Iterator[Product]:
    """gunicorn on it, for the block."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(store.url, Path(folder) / "log", store.tokens, wsgi, **settings) as product,
    ):
        yield product
