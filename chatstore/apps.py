from __future__ import annotations

from django.apps import AppConfig

from chatstore import checks

__all__ = ["checks"]  # Imported here, they are registered when the app is.


class ChatstoreConfig(AppConfig):
    name = "chatstore"
