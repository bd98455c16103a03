from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.validators import MaxLengthValidator, validate_email

from accounts.models import LOCAL_ISSUER, ApiToken, User


class Command(BaseCommand):
    help = "Make an API token for the person with this email, and the person where there is none."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--name", default="createtoken", help="What the token is for.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints the token, alone, on standard output, once; anything else on standard error.

        The person is the one whom this installation calls by the email (issuer `local`), never one who
        merely has it as an address: two issuers may share one.
        """
        email = options["email"].strip().lower()
        try:
            validate_email(email)
            MaxLengthValidator(User._meta.get_field("email").max_length)(email)
        except ValidationError:
            raise CommandError(f"{options['email']!r} is not an email address.") from None
        user, created = User.objects.of_identity(LOCAL_ISSUER, email, email=email)
        if not user.is_active:
            raise CommandError("This user is deactivated; a token would open nothing.")
        _, text = ApiToken.objects.issue(user, name=options["name"])
        self.stderr.write(f"A token for {'the new user' if created else 'user'} {user.public_id}:")
        self.stdout.write(text)
