from __future__ import annotations

import time
from typing import Any, Final

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError
from psycopg.errors import LockNotAvailable

PAUSE_SECONDS: Final = 2
PATIENCE_SECONDS: Final = 600


class Command(migrate.Command):
    """Django's, beside a running service: a migration that does not get a lock at once steps aside, so that nobody
    waits behind it, and is tried again."""

    def handle(self, *args: Any, **options: Any) -> None:
        until = None  # What migrations take that get their locks is not what it waits.
        while not self.is_done(*args, **options):
            until = until or time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > until:
                raise CommandError(
                    "A table that is to change was in use by long transactions for ten minutes. What was"
                    " migrated before stays; run it again when they have ended."
                )
            self.stderr.write("A table that is to change is in use by a long transaction; trying again.")
            time.sleep(PAUSE_SECONDS)

    def is_done(self, *args: Any, **options: Any) -> bool:
        """False where a lock was not to be had in time."""
        try:
            super().handle(*args, **options)
        except OperationalError as error:
            if not isinstance(error.__cause__, LockNotAvailable):
                raise
            return False
        return True
