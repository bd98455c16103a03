from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any, Final

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from conversations import usage
from conversations.chat import records
from conversations.models import Maintenance
from conversations.retention import Removed, purge

LEASE: Final = timedelta(minutes=10)


class Command(BaseCommand):
    help = "What a timer runs: settle lost replies, purge the trash (PURGE_AFTER_DAYS), count what was used."

    def handle(self, *args: Any, **options: Any) -> None:
        """Safe at any time beside the service. One at a time: where another is at work this one says so and ends,
        and where that one was killed, after ten minutes without a sign of it the next goes on."""
        holder = records.worker_name()
        if not take(holder):
            self.stdout.write("Another one is at work.")
            return
        try:
            call_command("settle", stdout=self.stdout)
            self.stdout.write(f"Purged {purged(holder)}.")
            waiting = usage.waiting()
            usage.roll_up(waiting, lambda _: renew(holder))
            self.stdout.write(f"{len(waiting.days)} days counted.")
        finally:
            held_by(holder).update(holder="", lease_until=None)


@transaction.atomic
def take(holder: str) -> bool:
    """False where another has it, or is just taking it."""
    Maintenance.objects.get_or_create(pk=1)
    now = timezone.now()
    free = Maintenance.objects.filter(Q(lease_until=None) | Q(lease_until__lte=now))
    taken = free.select_for_update(skip_locked=True).first()
    return taken is not None and bool(free.update(holder=holder, lease_until=now + LEASE))


def held_by(holder: str) -> Any:
    return Maintenance.objects.filter(holder=holder)


def renew(holder: str) -> None:
    """CommandError where another has taken over: this one was away for longer than its lease."""
    if not held_by(holder).update(lease_until=timezone.now() + LEASE):
        raise CommandError("Another one has taken over.")


def purged(holder: str) -> Removed:
    """What has been in the trash for PURGE_AFTER_DAYS; nothing where that is not set. The lease is renewed after
    each commit: others see it then."""
    days = settings.ENVIRONMENT.purge_after_days
    if days is None:
        return Removed()
    before = timezone.now() - timedelta(days=days)
    return purge(before, lambda _: transaction.on_commit(partial(renew, holder)))
