from __future__ import annotations

import time
from argparse import SUPPRESS
from collections.abc import Callable
from itertools import islice
from math import ceil
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.bar import bar
from conversations.seeding import chitchat, story, volume
from conversations.seeding.loading import Added, Advance

MOST_MESSAGES = 10**9


class Command(BaseCommand):
    help = "Make users, sessions and messages for development. The same again adds nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--seed", type=int, default=1, help="Another number makes other rows; the same makes the same."
        )
        parser.add_argument(
            "--dataset",
            choices=["story", "chitchat"],
            help="story (the default): a few sessions. chitchat: 258,145 real messages.",
        )
        parser.add_argument("--users", type=int, help="Make volume: so many users.")
        parser.add_argument("--sessions", type=int, help="Make volume: so many sessions (10 for each user).")
        parser.add_argument("--messages", type=int, help="Make volume: so many messages (20 in each session).")
        parser.add_argument("--force", action="store_true", help="Also where ENV is not development.")
        parser.add_argument("--limit", type=int, help=SUPPRESS)  # So many conversations of the dataset.

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints what was added and how fast. Every kind of set is loaded in transactions of whole sessions:
        a run that was stopped is finished by the next."""
        if not (settings.ENVIRONMENT.is_development or options["force"]):
            raise CommandError(f"ENV={settings.ENVIRONMENT.env}: seed is for development. --force does it anyway.")
        total, plant = chosen(options)
        started = time.perf_counter()
        with bar("Messages", total, options["verbosity"]) as advance:
            added = plant(advance)
        self.stdout.write(summary(added, time.perf_counter() - started))


def chosen(options: dict[str, Any]) -> tuple[int, Callable[[Advance], Added]]:
    """How many messages the set has that the options name, and what loads it."""
    sizes = [options[name] for name in ("users", "sessions", "messages")]
    if any(size is not None for size in sizes):
        if options["dataset"]:
            raise CommandError("Either --dataset or a volume (--users, --sessions, --messages).")
        wanted = volume_of(options["seed"], *sizes)
        return wanted.messages, lambda advance: volume.plant(wanted, advance)
    if options["dataset"] == "chitchat":
        conversations = conversations_of(options["limit"])
        return chitchat.count(conversations), lambda advance: chitchat.plant(conversations, advance)
    total = sum(planned.size for planned in story.planned_sessions(options["seed"]))
    return total, lambda advance: story.plant(options["seed"], advance)


def conversations_of(limit: int | None) -> chitchat.Conversations:
    try:
        return dict(islice(chitchat.dataset().items(), limit))
    except chitchat.DatasetMissing:
        raise CommandError(
            "The package chitchat-dataset is not installed; it comes with the tools of the tests:"
            " make .venv/installed-dev, or pip install chitchat-dataset."
        ) from None


def volume_of(seed: int, users: int | None, sessions: int | None, messages: int | None) -> volume.Volume:
    """What is not given follows from what is: 20 messages in a session, 10 sessions for a user."""
    if sessions is None:
        sessions = (users or 0) * 10 if messages is None else ceil(messages / 20)
    users = ceil(sessions / 10) if users is None else users
    messages = sessions * 20 if messages is None else messages
    wanted = volume.Volume(seed, users, sessions, messages)
    check(wanted)
    return wanted


def check(wanted: volume.Volume) -> None:
    if not all(0 <= size <= MOST_MESSAGES for size in (wanted.users, wanted.sessions, wanted.messages)):
        raise CommandError(f"Numbers of rows are 0 to {MOST_MESSAGES:,}.")
    if (wanted.sessions and not wanted.users) or (wanted.messages and not wanted.sessions):
        raise CommandError("Messages need a session, and sessions need a user.")


def summary(added: Added, seconds: float) -> str:
    if not added:
        return "Nothing to add: everything is there."
    rate = f"{added.messages / seconds:,.0f} messages/s"
    counts = f"{added.users:,} users, {added.sessions:,} sessions, {added.messages:,} messages"
    return f"Added {counts} in {seconds:.1f} s ({rate})."
