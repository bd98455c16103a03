"""Migrations beside a running service: they wait for a lock for a moment, and everybody behind them no longer."""

from __future__ import annotations

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
