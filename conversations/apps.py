from __future__ import annotations

from django.apps import AppConfig

from conversations import checks
from conversations.chat import checks as chat_checks

__all__ = ["chat_checks", "checks"]  # Imported here, they are registered when the app is.


class ConversationsConfig(AppConfig):
    name = "conversations"
