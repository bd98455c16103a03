"""Migrations beside a running service: they wait for a lock for a moment, and everybody behind them no longer."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Final

from django.db.backends.postgresql import schema

# Whoever comes after a statement that waits for a lock on a table waits behind it. `migrate` tries again.
LOCK_TIMEOUT: Final = "300ms"


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """Django's, with a lock timeout of its own in each migration that is a transaction."""

    def __enter__(self) -> Any:
        editor = super().__enter__()
        if self.atomic_migration:
            self.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        return editor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """What is left to the end can fail, too: Django leaves the transaction open then, with all its locks."""
        if kind is None:
            try:
                while self.deferred_sql:
                    self.execute(self.deferred_sql.pop(0), None)
            except BaseException:
                if self.atomic_migration:
                    self.atomic.__exit__(*sys.exc_info())
                raise
        super().__exit__(kind, error, traceback)
