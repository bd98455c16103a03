from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from conversations.erasure import CannotErase, NobodyNamed, SeveralNamed, about_to_go, erase, named, refusal
from conversations.management.bar import bar
from conversations.retention import Removed


class Command(BaseCommand):
    help = "Delete a person and everything of theirs, for good."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ref", help="An id, a public id, a username, or issuer|subject.")
        parser.add_argument(
            "--no-input", "--noinput", action="store_false", dest="interactive", help="Do not ask before."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints ids and counts, never a name or a message's words: output ends up in logs."""
        user = self.meant(options["ref"])
        if reason := refusal(user):
            raise CommandError(reason)
        expected = about_to_go(user)
        if options["interactive"]:
            confirm(user, expected)
        try:
            with bar("Messages", expected.messages, options["verbosity"]) as advance:
                removed = erase(user, advance)
        except CannotErase as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"Erased user {user.pk} ({user.public_id}), {removed}.")

    def meant(self, ref: str) -> User:
        try:
            return named(ref)
        except NobodyNamed:
            raise CommandError("No user has this id, public id, username or issuer|subject.") from None
        except SeveralNamed as error:
            raise CommandError(f"Several users are called so: {error}. Give a public id.") from None


def confirm(user: User, expected: Removed) -> None:
    """Ask the operator. CommandError for anything but yes, also where nobody can answer."""
    question = f"This deletes user {user.pk} ({user.public_id}) and {expected}, for good. Type 'yes' to go on: "
    try:
        answer = input(question)
    except EOFError:
        raise CommandError("Nobody answered; --no-input does not ask.") from None
    if answer.strip().lower() != "yes":
        raise CommandError("Nothing was deleted.")
