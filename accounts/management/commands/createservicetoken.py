from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.models import ServiceToken, Workspace
from chatstore.ids import uuid_of

LONGEST_NAME = 255
MOST_DAYS = 36_500


class Command(BaseCommand):
    help = "Make a service token, with which a back end acts on behalf of the users whom it names."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="What the log calls the service.")
        scopes = ", ".join(repr(scope) for scope in ServiceToken.Scope.values)
        parser.add_argument("--scope", default=ServiceToken.Scope.READ_WRITE, help=f"One of {scopes}.")
        parser.add_argument(
            "--workspace", metavar="PUBLIC_ID", help="Act for this workspace's members alone, within it."
        )
        parser.add_argument("--expires-in-days", type=int, metavar="N", help="Not given: never.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints the token, alone, on standard output, once; anything else on standard error."""
        token, text = ServiceToken.objects.issue(
            name=name_of(options["name"]),
            scope=scope_of(options["scope"]),
            workspace=workspace_of(options["workspace"]),
            expires_at=expiry_of(options["expires_in_days"]),
        )
        place = f"members of {token.workspace}" if token.workspace else "every user without powers"
        until = f"until {token.expires_at:%Y-%m-%d}" if token.expires_at else "until revoked"
        self.stderr.write(f"Service token {token.pk} ({token.name}), to {token.scope}, for {place}, {until}:")
        self.stdout.write(text)


def name_of(text: str) -> str:
    name = text.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise CommandError(f"The name must be 1 to {LONGEST_NAME} printable characters.")
    return name


def scope_of(text: str) -> str:
    if text not in ServiceToken.Scope.values:
        raise CommandError("The scope must be: read, write, or 'read write'.")
    return text


def workspace_of(text: str | None) -> Workspace | None:
    if text is None:
        return None
    public_id = uuid_of(text.strip())
    if public_id is None:
        raise CommandError("The workspace must be named by its public id, a UUID.")
    workspace = Workspace.objects.filter(public_id=public_id).first()
    if workspace is None:
        raise CommandError(f"There is no workspace {public_id}.")
    return workspace


def expiry_of(days: int | None) -> datetime | None:
    if days is None:
        return None
    if not 1 <= days <= MOST_DAYS:
        raise CommandError(f"The days must be 1 to {MOST_DAYS:,}.")
    return timezone.now() + timedelta(days=days)
