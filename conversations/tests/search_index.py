"""The index of words for a test, in the test's own transaction, where nothing can be made concurrently."""

from __future__ import annotations

from django.conf import settings
from django.db import connection
from pytest_django import Settings

from conversations.search_index import INDEX, IndexedWords


def make() -> None:
    words = IndexedWords.template % {"expressions": "content"}
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL maintenance_work_mem = '512MB'")
        cursor.execute(f"CREATE INDEX {INDEX} ON conversations_message USING gin (({words}))")


def switch_on(chosen: Settings) -> None:
    chosen.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"search_index": True})
