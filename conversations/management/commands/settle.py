from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from conversations.chat import records


class Command(BaseCommand):
    help = "Write down as interrupted the replies whose worker is lost. The running service does so by itself."

    def handle(self, *args: Any, **options: Any) -> None:
        settled = 0
        while some := records.settle():
            settled += some
        self.stdout.write(f"{settled} settled.")
