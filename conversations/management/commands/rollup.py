from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from conversations import usage
from conversations.management.bar import bar


class Command(BaseCommand):
    help = "Count what was used on the days that are over: those not counted yet, and those that changed since."

    def handle(self, *args: Any, **options: Any) -> None:
        """Safe at any time, beside the service and beside another one. Stopped halfway, the next does the rest."""
        waiting = usage.waiting()
        with bar("Days", len(waiting.days), options["verbosity"]) as advance:
            usage.roll_up(waiting, advance)
        self.stdout.write(f"{len(waiting.days)} days counted.")
