from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from conftest import Caller, new_message, new_session
from conversations import retention, services
from conversations.management.commands import maintain
from conversations.models import Maintenance, Message, Session, Turn, Usage
from conversations.tests import turns

DAY = timedelta(days=1)


def maintained() -> str:
    out = StringIO()
    call_command("maintain", stdout=out)
    return out.getvalue()


def purge_after(settings: Any, days: int | None) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"purge_after_days": days})


def test_it_settles_purges_and_counts(alice: Caller, session: Session, settings: Any) -> None:
    purge_after(settings, 30)
    turns.say(turns.begin(session))
    Turn.objects.update(lease_until=timezone.now() - DAY)
    Message.objects.update(created_at=timezone.now() - DAY * 3)
    gone = new_session(alice)
    new_message(gone)
    services.trash_session(gone)
    Session.objects.filter(pk=gone.pk).update(deleted_at=timezone.now() - DAY * 31)
    lines = maintained().splitlines()
    assert lines[:2] == ["1 settled.", "Purged 1 sessions with 1 messages."]
    assert lines[2].endswith("days counted.")
    assert Turn.objects.get().status == "interrupted"
    assert sum(Usage.objects.values_list("interrupted", flat=True)) == 1
    again = ["0 settled.", "Purged 0 sessions with 0 messages.", "0 days counted."]
    assert maintained().splitlines() == again


@pytest.mark.parametrize(("days", "is_there"), [(None, True), (40, True), (20, False), (0, False)])
def test_the_trash_is_purged_after_the_days_that_are_set(
    session: Session, settings: Any, days: int | None, is_there: bool
) -> None:
    purge_after(settings, days)
    services.trash_session(session)
    Session.objects.update(deleted_at=timezone.now() - DAY * 30)
    maintained()
    assert Session.objects.exists() is is_there


def test_one_at_a_time(db: None) -> None:
    assert maintain.take("here")
    assert maintained() == "Another one is at work.\n"
    Maintenance.objects.update(lease_until=timezone.now() - timedelta(seconds=1))  # It was killed.
    assert "days counted" in maintained()
    assert maintain.take("here")


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_whoever_is_just_taking_it_is_another_one_at_work() -> None:
    maintained()
    with turns.locked_elsewhere(Maintenance.objects.filter(pk=1)):
        assert maintained() == "Another one is at work.\n"


def test_it_leaves_no_lease_behind_when_it_fails(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("conversations.management.commands.maintain.usage.roll_up", fail)
    with pytest.raises(RuntimeError):
        maintained()
    assert maintain.take("here")


@pytest.mark.django_db(transaction=True)
def test_it_keeps_its_lease_while_it_works(alice: Caller, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    purge_after(settings, 0)
    monkeypatch.setattr(retention, "SESSIONS_AT_ONCE", 1)
    for _ in range(2):
        session = new_session(alice)
        new_message(session)
        services.trash_session(session)
    leases: list[datetime | None] = []

    def renewed(holder: str) -> None:
        assert not connection.in_atomic_block  # Or nobody would see it, and whoever takes it would wait.
        renew(holder)
        leases.append(Maintenance.objects.get().lease_until)

    renew = maintain.renew
    monkeypatch.setattr(maintain, "renew", renewed)
    maintained()
    assert len(set(leases)) == len(leases) >= 2


def test_whoever_was_away_for_too_long_ends(db: None) -> None:
    assert maintain.take("here")
    Maintenance.objects.update(holder="there")
    with pytest.raises(CommandError, match="taken over"):
        maintain.renew("here")


@pytest.mark.once
@pytest.mark.parametrize("days", ["-1", "x", "36501"])
def test_a_wrong_number_of_days_is_said_at_the_start(days: str) -> None:
    manage = Path(__file__).resolve().parents[2] / "manage.py"
    run = subprocess.run(
        [sys.executable, str(manage), "maintain"],
        env={**os.environ, "PURGE_AFTER_DAYS": days}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode
    assert "PURGE_AFTER_DAYS" in run.stderr
