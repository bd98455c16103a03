from __future__ import annotations

from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from chatstore.migration_operations import drop_invalid, without_timeouts
from conversations.models import Message
from conversations.search_index import INDEX, IndexedWords, is_built

# In kB. What waits is worked off by an append: of the default, 4 MB, in two seconds and more.
OPTIONS: Final = "gin_pending_list_limit = 256"


class Command(BaseCommand):
    help = "Make the index for SEARCH_INDEX, or drop it, beside a running service. PostgreSQL only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--drop", action="store_true", help="drop the index")

    def handle(self, *args: Any, **options: Any) -> None:
        """Safe to repeat: what is left of one that was cancelled goes first."""
        if connection.vendor != "postgresql":
            raise CommandError("SQLite has no such index.")
        name, table = (connection.ops.quote_name(each) for each in (INDEX, Message._meta.db_table))
        words = IndexedWords.template % {"expressions": connection.ops.quote_name("content")}
        with connection.schema_editor(atomic=False) as editor, without_timeouts(editor):
            if options["drop"]:
                editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            elif not is_built():
                drop_invalid(editor, INDEX)
                editor.execute(
                    f"CREATE INDEX CONCURRENTLY {name} ON {table} USING gin (({words})) WITH ({OPTIONS})"
                )
                editor.execute(f"ANALYZE {table}")
        self.stdout.write("Dropped." if options["drop"] else "The index is there.")
