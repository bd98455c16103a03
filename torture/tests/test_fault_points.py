"""A fault at each step of what writes: nothing is there by half, and the same request again completes it."""

from __future__ import annotations

import pytest

from torture.fault_points import fault_points
from torture.store import Store

pytestmark = [pytest.mark.torture, pytest.mark.once]


def test_nothing_is_there_by_half(store: Store) -> None:
    chosen = ["append", "batch", "delete message", "delete session", "chat"]
    result = fault_points(
        1, operations=chosen, scopes_of_chat=["request", "turn"], points_of_chat=1, lease=4, at=store
    )
    assert result.is_clean, result.said
    assert result.kills >= 50
