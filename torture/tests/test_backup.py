"""A backup under writers, restored and served."""

from __future__ import annotations

import pytest

from torture.backup import NoDump, backup, backup_sqlite

pytestmark = [pytest.mark.torture, pytest.mark.once]


def test_what_was_acknowledged_before_a_dump_is_restored() -> None:
    try:
        result = backup(1, messages=0, writes=100)
    except NoDump:
        pytest.skip("this PostgreSQL comes without pg_dump")
    assert result.is_clean, result.said
    assert result.acknowledged >= 100


def test_what_was_acknowledged_before_a_copy_is_in_it() -> None:
    result = backup_sqlite(1, messages=0, writes=60)
    assert result.is_clean, result.said
    assert result.acknowledged >= 60
