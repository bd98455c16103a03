"""Django's PostgreSQL backend, with what every request profits from (settings name it as `ENGINE`).

A connection from the pool is looked at before it is used, not asked: CONN_HEALTH_CHECKS cost a round trip.
And a query that is asked again and again can be planned once in a connection: `bound_cursor`.
"""

from __future__ import annotations

import select
from typing import Any, ClassVar

import orjson
from django.db.backends.postgresql import base, operations
from django.db.backends.postgresql.psycopg_any import get_adapters_template
from django.db.backends.utils import CursorWrapper
from psycopg import Connection, Cursor, OperationalError, adapters, errors, pq
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg_pool import ConnectionPool

from chatstore.postgresql.schema import DatabaseSchemaEditor


class JsonLoader(Loader):
    """Where Django has text, which `JSONField` then reads by json in five times the time."""

    format = pq.Format.BINARY

    def load(self, data: Buffer) -> Any:
        return orjson.loads(memoryview(data)[1:])  # The first byte is the version of jsonb's format, 1.


def adapters_of_bound() -> AdaptersMap:
    """Django's, but for JSON and times. psycopg's own loader of times takes a sixteenth of the time of Django's,
    and gives them in the connection's time zone, which Django sets to UTC. Addresses, of which Django has loaders
    of text alone, are in none of these queries."""
    found = AdaptersMap(get_adapters_template(True, None))
    found.register_loader("jsonb", JsonLoader)
    if loader := adapters.get_loader(adapters.types["timestamptz"].oid, pq.Format.BINARY):
        found.register_loader("timestamptz", loader)
    return found


class BoundedConnection(Connection[Any]):
    """Waits for its server so long and no longer, where somebody has said how long (`longest`, in seconds).

    A server that holds its connections open and says nothing (a machine that stands still, a proxy that does) is
    noticed by nothing else: its own `statement_timeout` stands still with it, and TCP finds nothing amiss.
    """

    longest: ClassVar[float | None] = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.longest if timeout is None else timeout)
        except errors._WaitTimeout:
            self.pgconn.finish()  # What it was asked may still be answered, to nobody.
            raise OperationalError("the server does not answer") from None


class BoundCursor(base.CursorMixin, Cursor[Any]):
    """Binds parameters in the server, and takes rows in their binary form: to write times and UUIDs as text was a
    quarter of PostgreSQL's work for a list of sessions."""

    adapters = adapters_of_bound()

    def __init__(self, connection: Connection[Any]) -> None:
        super().__init__(connection)
        self.format = pq.Format.BINARY


class PreparedCursor(BoundCursor):
    """Has the server plan each statement once, too. For texts that are always the same: a connection keeps the
    hundred last. Not behind a pooler that gives each transaction another connection."""

    def execute(self, *args: Any, **kwargs: Any) -> PreparedCursor:
        # Only here: other cursors put the values into the text, and psycopg would remember each.
        self.connection.prepare_threshold = 0
        try:
            super().execute(*args, **kwargs)
        except errors.FeatureNotSupported:
            # A migration has changed a column's type: what this connection has planned returns another.
            if self.connection.info.transaction_status != pq.TransactionStatus.IDLE:
                raise
            with self.connection.transaction(force_rollback=True):
                pass  # psycopg forgets its plans with a transaction that is rolled back.
            super().execute(*args, **kwargs)
        finally:
            self.connection.prepare_threshold = None
        return self


class DatabaseOperations(operations.DatabaseOperations):
    def last_executed_query(self, cursor: Any, sql: Any, params: Any) -> str:
        """For the tests that look at statements: with its values, which this cursor sends apart."""
        if isinstance(cursor, BoundCursor):
            return str(self.compose_sql(sql, params))
        return super().last_executed_query(cursor, sql, params)


class DatabaseWrapper(base.DatabaseWrapper):
    ops_class = DatabaseOperations
    SchemaEditorClass = DatabaseSchemaEditor

    @property
    def pool(self) -> ConnectionPool[Any] | None:
        """Asked for several times in a request. Django's own looks through the settings each time."""
        pools: dict[str, ConnectionPool[Any]] = self._connection_pools  # type: ignore[attr-defined]
        found: ConnectionPool[Any] | None = pools.get(self.alias) or super().pool
        if found:
            found.connection_class = BoundedConnection
        return found

    def get_connection_params(self) -> dict[str, Any]:
        """Nothing for a connection of the pool, which has been told: each request asks."""
        return {} if self.alias in self._connection_pools else super().get_connection_params()  # type: ignore[attr-defined]

    def _set_autocommit(self, autocommit: bool) -> None:
        if self.connection.autocommit != autocommit:  # Those of the pool are begun so.
            super()._set_autocommit(autocommit)  # type: ignore[misc]

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection[Any]:
        """A connection that is alive. Where PostgreSQL has gone, what it said last waits in the socket."""
        while True:
            found: Connection[Any] = super().get_new_connection(conn_params)
            if not self.pool or not has_something_to_say(found):
                return found
            try:
                ConnectionPool.check_connection(found)
                return found
            except OperationalError:
                self.pool.putconn(found)  # Which throws it away, and makes another.

    def bound_cursor(self, *, prepare: bool) -> CursorWrapper:
        """As `cursor()`, for a statement whose text is always the same, planned once or each time."""
        self.ensure_connection()
        with self.wrap_database_errors:
            is_kept = prepare and not self.settings_dict["DISABLE_SERVER_SIDE_CURSORS"]
            cursor = (PreparedCursor if is_kept else BoundCursor)(self.connection)
            return self._prepare_cursor(cursor)  # type: ignore[attr-defined]


def has_something_to_say(connection: Connection[Any]) -> bool:
    waiting = select.poll()
    waiting.register(connection.pgconn.socket, select.POLLIN)
    return bool(waiting.poll(0))
