from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand

from accounts.models import LOCAL_ISSUER, ApiToken, User
from conversations import usage
from conversations.management.credentials import Credentials
from conversations.seeding import story

STAFF = "admin"
# Addresses to listen on that no browser can go to.
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Command(BaseCommand):
    help = "Say where the server is. In development also seed, make a staff login and a token, and show them."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Secrets are made and shown in development only; they are kept in `.development/`, for one's own eyes."""
        site = address()
        self.stdout.write(f"{site}/")
        if settings.ENVIRONMENT.is_development:
            self.introduce(site)

    def introduce(self, site: str) -> None:
        if not User.objects.exists():
            story.plant(seed=1, advance=lambda _: None)
            usage.roll_up(usage.waiting())
        kept = Credentials(Path(settings.BASE_DIR) / ".development")
        self.stdout.write(f"{site}/admin/  {staff_login(kept)}")
        self.stdout.write(f"{site}/docs")
        if token := working_token(kept):
            self.stdout.write(f'curl -H "Authorization: Bearer {token}" {site}/api/sessions/')
        if kept.error:
            self.stderr.write(f"The password and the token could not be kept in {kept.file}: {kept.error}")


def address() -> str:
    """Where a browser on this machine finds the server."""
    host = ANY_ADDRESS.get(settings.ENVIRONMENT.host, settings.ENVIRONMENT.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.ENVIRONMENT.port}"


def staff_login(kept: Credentials) -> str:
    """How to log in as `admin`, who is made where missing and never changed."""
    password = kept.get("password")
    staff = User.objects.filter(username=STAFF).first()
    if staff is None:
        kept.put("password", password := password or new_password())
        User.objects.create_superuser(STAFF, password=password)
    elif not (staff.is_active and staff.is_staff and staff.is_superuser):
        return f"(the user {STAFF} is there, but is no active staff superuser)"
    elif not password or not staff.check_password(password):
        said = "was changed" if password else "is not known here"
        return f"login: {STAFF}, whose password {said}; manage.py changepassword {STAFF} sets another"
    return f"login: {STAFF}, password: {password}"


def new_password() -> str:
    """A random one that AUTH_PASSWORD_VALIDATORS accept."""
    while True:
        password = secrets.token_urlsafe(15)
        try:
            validate_password(password, User(username=STAFF))
        except ValidationError:
            continue
        return password


def working_token(kept: Credentials) -> str | None:
    """The token that is kept, or a new one where it opens nothing here; None where nobody can have one."""
    token = kept.get("token")
    if token and ApiToken.objects.valid().of_text(token).exists():
        return token
    people = User.objects.filter(is_active=True)
    seeded = people.filter(identities__issuer=LOCAL_ISSUER, identities__subject=story.SEED_EMAIL).first()
    if not (user := seeded or people.filter(username=STAFF).first()):
        return None
    _, token = ApiToken.objects.issue(user, name="welcome")
    kept.put("token", token)
    return token
