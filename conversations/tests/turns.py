"""A turn step by step, as a worker writes it, and what is stored of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from chatstore.retries import Retry
from conversations.chat import records
from conversations.models import Message, Session, Turn

HERE, THERE = "here:1:x", "there:2:y"


def begin(session: Session, worker: str = HERE, content: str = "Hello", retry: Retry | None = None) -> Turn:
    return records.begin(session, content, worker, retry).turn


def say(turn: Turn, text: str = "Well") -> Message:
    """A row of the reply, running."""
    return records.add_row(turn, role="assistant", content=text)


def mark(turn: Turn) -> Message:
    return records.add_row(turn, role="tool_call", content="Called search", tool_name="search")


def expire(turn: Turn) -> None:
    """Its worker has not been heard of for too long."""
    Turn.objects.filter(pk=turn.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def status(turn: Turn) -> str:
    return Turn.objects.get(pk=turn.pk).status


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """On a connection of its own, which it closes."""

    def connected() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=connected)
    thread.start()
    return thread


@contextmanager
def locked_elsewhere(rows: QuerySet[Any]) -> Iterator[None]:
    """Another connection holds the locks of these rows."""
    is_held, release = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                list(rows.select_for_update())
                is_held.set()
                release.wait(10)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        assert is_held.wait(10)
        try:
            yield
        finally:
            release.set()
            held.result()


def running(turn: Turn, message: Message | None, text: str = "") -> records.Running:
    return records.Running(turn.pk, turn.session_id, message.pk if message else None, text)


def is_exact(session: Session) -> bool:
    """Whether positions have no gaps, counters equal a recount, and the version is the highest of a message."""
    session.refresh_from_db()
    found = list(Message.objects.filter(session=session).order_by("position"))
    assert [message.position for message in found] == [*range(1, session.last_position + 1)]
    assert session.message_count == len([message for message in found if not message.deleted_at])
    assert session.tokens == sum(message.tokens for message in found if not message.deleted_at)
    return session.version == max(message.version for message in found)
