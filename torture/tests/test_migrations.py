"""Migrations beside writers, on few rows. The lint and the long form say what many rows would."""

from __future__ import annotations

import pytest

from torture.migrations import migrations_under_load

pytestmark = [pytest.mark.torture, pytest.mark.once]


def test_no_writer_waits_behind_a_migration() -> None:
    """Bound by 300 ms, and by as much as a busy machine adds; where a migration waits in line, 2.5 s."""
    result = migrations_under_load(1, messages=20_000, hold=4, longest=1.5, one_by_one=False)
    assert result.is_clean, result.said
    assert result.acknowledged > 50
