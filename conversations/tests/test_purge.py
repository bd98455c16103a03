from __future__ import annotations

import threading
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone

from conftest import Caller, new_message, new_session
from conversations import retention, services
from conversations.models import Message, Session
from conversations.retention import Removed, purge
from conversations.tests import turns


def trashed(owner: Caller, days: float, messages: int = 2) -> Session:
    """A session that has been in the trash for so many days."""
    session = new_session(owner, title=f"{days} days")
    if messages:
        services.append(session, [{"role": "user", "content": "Hello!"}] * messages)
    services.trash_session(session)
    Session.objects.filter(pk=session.pk).update(deleted_at=timezone.now() - timedelta(days=days))
    return session


def purged(*arguments: str) -> str:
    out = StringIO()
    call_command("purge", *arguments, stdout=out)
    return out.getvalue()


def titles() -> set[str]:
    return set(Session.objects.values_list("title", flat=True))


def test_it_works(alice: Caller) -> None:
    session = trashed(alice, days=31, messages=3)
    assert purged("--older-than", "30") == "Purged 1 sessions with 3 messages.\n"
    assert not Session.objects.exists()
    assert not Message.objects.filter(session_id=session.pk).exists()


def test_what_lives_or_was_trashed_lately_stays(alice: Caller) -> None:
    new_message(new_session(alice, title="live"))
    trashed(alice, days=29)
    trashed(alice, days=31)
    purged("--older-than", "30")
    assert titles() == {"live", "29 days"}
    assert Message.objects.count() == 3


def test_an_old_session_that_lives_stays(alice: Caller) -> None:
    session = new_session(alice, title="live")
    Session.objects.filter(pk=session.pk).update(created_at=timezone.now() - timedelta(days=900))
    assert purged("--older-than", "0") == "Purged 0 sessions with 0 messages.\n"


def test_zero_days_empties_the_trash(alice: Caller) -> None:
    trashed(alice, days=0)
    assert purged("--older-than", "0") == "Purged 1 sessions with 2 messages.\n"


def test_a_dry_run_changes_nothing_and_counts_the_same(alice: Caller) -> None:
    kept = trashed(alice, days=31, messages=3)
    services.restore_session(kept)
    services.delete_message(Message.objects.filter(session=kept)[0])
    services.trash_session(kept)
    trashed(alice, days=31)
    before = list(Session.objects.values()), list(Message.objects.values())
    assert purged("--older-than", "0", "--dry-run") == "Would purge 2 sessions with 5 messages.\n"
    assert (list(Session.objects.values()), list(Message.objects.values())) == before
    assert purged("--older-than", "0") == "Purged 2 sessions with 5 messages.\n"


@pytest.mark.parametrize("days", ["-1", "1.5", "", "99999999999", "soon"])
@pytest.mark.django_db
def test_days_are_a_whole_number(days: str) -> None:
    with pytest.raises(CommandError, match="not a whole number of days"):
        purged(f"--older-than={days}")


def test_days_must_be_said() -> None:
    with pytest.raises(CommandError, match="--older-than"):
        purged()


def test_more_than_a_batch_goes(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SESSIONS_AT_ONCE", 2)
    for days in (40, 41, 42, 43, 44):
        trashed(alice, days)
    assert purged("--older-than", "30") == "Purged 5 sessions with 10 messages.\n"
    assert not Message.objects.exists()


def test_a_long_session_goes_in_portions(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SHORT", 3)
    monkeypatch.setattr(retention, "MESSAGES_AT_ONCE", 4)
    trashed(alice, days=31, messages=11)
    trashed(alice, days=31, messages=2)
    portions: list[int] = []
    assert purge(timezone.now(), portions.append) == Removed(2, 13)
    assert portions == [2, 4, 4, 3]
    assert not Message.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_session_being_restored_is_not_purged(alice: Caller) -> None:
    session = trashed(alice, days=31)
    with transaction.atomic():
        services.restore_session(session)
        purging = turns.in_thread(lambda: purge(timezone.now(), lambda _: None))
        purging.join(0.5)
        assert Message.objects.filter(session=session).count() == 2
    purging.join()
    assert Session.objects.live().get() == session
    assert Message.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_session_being_purged_is_gone_for_who_restores_it(alice: Caller) -> None:
    session = trashed(alice, days=31)
    answers: list[str] = []
    threads: list[threading.Thread] = []

    def restore() -> None:
        try:
            services.restore_session(session)
            answers.append("restored")
        except services.SessionGone:
            answers.append("gone")

    def while_it_goes(_: int) -> None:
        threads.append(turns.in_thread(restore))
        threads[0].join(0.5)
        assert answers == []  # It waits.

    purge(timezone.now(), while_it_goes)
    threads[0].join()
    assert answers == ["gone"]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_locked_session_does_not_stop_the_others(alice: Caller) -> None:
    locked, free = trashed(alice, days=40), trashed(alice, days=35)
    removed: list[Removed] = []
    with transaction.atomic():
        services.locked(locked)
        turns.in_thread(lambda: removed.append(purge(timezone.now(), lambda _: None))).join()
    assert removed == [Removed(1, 2)]
    assert not Session.objects.filter(pk=free.pk).exists()
