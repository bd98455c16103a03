"""Whether the index that the search is to use is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Warning, register
from django.db import DatabaseError, InterfaceError, connection

from chatstore.http.logs import described
from conversations.search_index import INDEX, is_built


@register("chatstore")  # W003
def search_index_is_there(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """A warning and no error: without it the search is slow, and the rest works."""
    if not settings.ENVIRONMENT.search_index:
        return []
    if connection.vendor != "postgresql":
        return [Warning("SEARCH_INDEX does nothing on SQLite.", id="chatstore.W003")]
    try:
        said = "" if is_built() else "is not there, or its making was cancelled"
    except (DatabaseError, InterfaceError) as error:
        said = f"cannot be looked for ({described(error.__cause__ or error)})"
    hint = "`manage.py searchindex` makes it beside a running service."
    return (
        [Warning(f"SEARCH_INDEX is on, and the index {INDEX} {said}.", hint=hint, id="chatstore.W003")]
        if said
        else []
    )
