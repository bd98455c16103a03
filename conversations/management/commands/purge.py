from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from conversations.management.bar import bar
from conversations.retention import counted, purge, purgeable

MOST_DAYS = 36_500


def days(text: str) -> int:
    """A whole number of days. ArgumentTypeError for anything else."""
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_DAYS):
        raise ArgumentTypeError(f"{text!r} is not a whole number of days from 0 to {MOST_DAYS}.")
    return int(text)


class Command(BaseCommand):
    help = "Delete sessions that have been in the trash for so many days, with their messages, for good."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than", type=days, required=True, metavar="DAYS")
        parser.add_argument("--dry-run", action="store_true", help="Only count what would be purged.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Safe beside the service: a session that is restored at the same moment is left, or was purged before.
        Stopped halfway, the next run does the rest."""
        before = timezone.now() - timedelta(days=options["older_than"])
        expected = counted(purgeable(before))
        if options["dry_run"]:
            self.stdout.write(f"Would purge {expected}.")
            return
        with bar("Messages", expected.messages, options["verbosity"]) as advance:
            removed = purge(before, advance)
        self.stdout.write(f"Purged {removed}.")
