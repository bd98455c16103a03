"""A mistake in ASSISTANT is told at start, and not by the first message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from conversations.chat.assistants import assistant_at


@register("chatstore")  # E010
def assistant_can_be_made(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    try:
        assistant_at(settings.ENVIRONMENT.assistant)
    except (ImportError, AttributeError, TypeError, ImproperlyConfigured) as error:
        return [Error(f"ASSISTANT cannot be used: {error}", hint="See docs/chat.md.", id="chatstore.E010")]
    return []
