"""What others say of a person, as far as it can be kept."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from chatstore.http.fields import UNSTORABLE

MOST_CHARACTERS = 255
MOST_OF_AN_EMAIL = 254


def is_kept(text: object, longest: int = MOST_CHARACTERS) -> bool:
    """Whether this is text that a column holds: not empty, not too long, without NUL and lone surrogates."""
    return isinstance(text, str) and 0 < len(text) <= longest and not UNSTORABLE.search(text)


def profile_of(name: Any, email: Any, email_verified: bool) -> dict[str, str]:
    """The fields of a user made at first sight. An email that nobody has verified is not taken over."""
    return {
        "name": name if is_kept(name) else "",
        "email": email if email_verified and is_email(email) else "",
    }


def is_email(text: Any) -> bool:
    if not is_kept(text, MOST_OF_AN_EMAIL):  # Before Django's validator, which fails on what is no text.
        return False
    try:
        validate_email(text)
    except ValidationError:
        return False
    return True
