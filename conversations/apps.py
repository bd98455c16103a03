from __future__ import annotations

from django.apps import AppConfig

from conversations.chat import checks

__all__ = ["checks"]  # Imported here, they are registered when the app is.


class ConversationsConfig(AppConfig):
    name = "conversations"
