"""Ten thousand messages by `Link`, while another client appends."""

from __future__ import annotations

import re
import threading

import pytest
from django.db import connection

from conftest import Caller
from conversations import services
from conversations.models import Session

NEXT = re.compile(r'<https?://[^/]+(.*)>; rel="next"')
STORED = 10_000


def appended(session: Session, count: int) -> None:
    services.append(session, [{"role": "user", "content": "x"}] * count)


def append_until(done: threading.Event, session: Session) -> None:
    while not done.is_set():
        appended(session, 3)
        done.wait(0.01)
    connection.close()


def followed(reader: Caller, path: str | None) -> list[int]:
    """The positions on all pages from `path` on."""
    positions: list[int] = []
    while path:
        page = reader.get(path)
        positions += [message["position"] for message in page.json()]
        following = NEXT.fullmatch(page.headers.get("Link", ""))
        path = following[1] if following else None
    return positions


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_every_message_comes_once_and_in_order_while_others_append(alice: Caller, session: Session) -> None:
    for _ in range(STORED // 500):
        appended(session, 500)
    done = threading.Event()
    other = threading.Thread(target=append_until, args=(done, session))
    other.start()
    try:
        positions = followed(alice, f"/api/messages/?session_id={session.pk}&limit=100")
    finally:
        done.set()
        other.join()
    assert len(positions) > STORED
    assert positions == list(range(1, len(positions) + 1))
