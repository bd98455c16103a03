"""A database with its tables and some users, for a scenario that does not kill PostgreSQL itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from chatstore.testdatabase import OwnPostgres
from torture.product import migrate

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
