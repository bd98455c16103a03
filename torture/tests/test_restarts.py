"""gunicorn is reloaded and shut down under load: no request is lost."""

from __future__ import annotations

import pytest

from torture.restarts import restarts
from torture.store import Store

pytestmark = [pytest.mark.torture, pytest.mark.once]


def test_no_request_is_lost(store: Store) -> None:
    result = restarts(1, servers=1, reloads=1, pause=1, at=store)
    assert result.is_clean, result.said
    assert "chats" in result.notes[0]
    assert "streams" in result.notes[0]
