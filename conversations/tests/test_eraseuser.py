from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.db.models import Model

from accounts.models import Identity, Membership, User
from conftest import Caller, caller, new_message, new_session
from conversations import erasure, retention, services
from conversations.models import AccessRecord, Message, Session, Usage
from conversations.tests.planting import (
    LoginSession,
    Planting,
    everything,
    is_free_text,
    login_of,
    personal_models,
)


def erased(ref: object, *options: str) -> str:
    out = StringIO()
    call_command("eraseuser", str(ref), *(options or ("--no-input",)), stdout=out)
    return out.getvalue()


@pytest.fixture
def eve(db: None) -> Caller:
    """Somebody to be erased: sessions live and trashed, at home and shared."""
    eve = caller("eve")
    Identity.objects.create(user=eve.user, issuer="https://issuer.example/", subject="auth0|eve")
    new_message(new_session(eve), "secret words")
    services.trash_session(new_message(new_session(eve)).session)
    return eve


def log(staff: User, row: Model, text: str = "") -> LogEntry:
    """What the admin writes when `staff` changes the row."""
    return LogEntry.objects.create(
        user=staff, content_type=ContentType.objects.get_for_model(row), object_id=row.pk, object_repr=text,
        action_flag=2, change_message=text,
    )  # fmt: skip


def test_it_works(eve: Caller) -> None:
    said = f"Erased user {eve.user.pk} ({eve.user.public_id}), 2 sessions with 2 messages.\n"
    assert erased(eve.user.pk) == said
    assert not User.objects.exists()
    assert not Session.objects.exists()
    assert not Message.objects.exists()


def test_nothing_that_is_text_is_left_anywhere(sam: Caller) -> None:
    """A model that is added later is planted and searched like the others: erasure covers it or this fails.

    The log of what staff did is kept on purpose; it has the person's public id, and lets go of the account.
    """
    user = User.objects.create_user("eve")
    planting = Planting(user)
    for model in personal_models():
        if model in (AccessRecord, Usage):  # Nobody changes one in the admin, so nothing is said of it.
            continue
        if admin.site.is_registered(model) or model._meta.app_label in ("accounts", "conversations"):
            log(sam.user, planting.rows[model], planting.marker)
    everywhere = {
        f"{m._meta.label}.{f.name}" for m in personal_models() for f in m._meta.fields if is_free_text(f)
    }
    assert planting.found() >= everywhere - {"sessions.Session.session_data"}
    erased(user.pk)
    assert planting.found() == {name for name in everywhere if name.startswith("conversations.AccessRecord.")}
    assert AccessRecord.objects.get().user is None


def test_everybody_else_keeps_everything(eve: Caller, alice: Caller, sam: Caller, session: Session) -> None:
    new_message(session)
    log(sam.user, alice.user)
    log(sam.user, session)
    login_of(alice.user, "alice").save()
    Membership.objects.create(user=eve.user, workspace=session.workspace)
    before = everything()
    eves = new_message(new_session(eve, workspace=session.workspace))
    login_of(eve.user, "eve").save()
    log(eve.user, session)
    log(sam.user, eves)
    erased(eve.user.pk)
    after = everything()
    assert sum(map(len, after.values())) > 10
    for label in after.keys() - {"conversations.UsageMark", "conversations.UsageState"}:  # Nobody's.
        rows = after[label]
        assert rows == [row for row in before[label] if row in rows]
    assert {row["session_key"] for row in after["sessions.Session"]} == {"alice"}
    assert len(after["admin.LogEntry"]) == 2


def test_users_whom_they_made_stay(eve: Caller) -> None:
    key = {"idempotency_key": "eve's word", "idempotency_digest": "0" * 64}
    made = User.objects.create_user("made", created_by=eve.user, **key)
    erased(eve.user.pk)
    left = User.objects.get()
    assert left == made
    assert (left.created_by, left.idempotency_key, left.idempotency_digest) == (None, None, None)


def test_their_token_opens_nothing(eve: Caller) -> None:
    assert eve.get("/api/me/").status_code == 200
    erased(eve.user.pk)
    assert eve.get("/api/me/").status_code == 401


def test_more_than_a_batch_goes(eve: Caller, sam: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SESSIONS_AT_ONCE", 2)
    monkeypatch.setattr(erasure, "ROWS_AT_ONCE", 2)
    for number in range(5):
        log(sam.user, new_message(new_session(eve)))
        log(eve.user, sam.user)
        log(sam.user, eve.user)
        login_of(eve.user, f"eve{number}").save()
    assert "7 sessions with 7 messages" in erased(eve.user.pk)
    assert not Session.objects.exists()
    assert not LogEntry.objects.exists()
    assert not LoginSession.objects.exists()


def test_an_erasure_that_was_stopped_is_finished_by_the_next(eve: Caller) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erasure.erase(eve.user, stop)
    assert not User.objects.get().is_active
    assert eve.get("/api/me/").status_code == 401
    erased(eve.user.pk)
    assert not User.objects.exists()


# Who is meant


@pytest.mark.parametrize(
    "spelling",
    ["{0.pk}", "{0.public_id}", "{0.username}", "https://issuer.example/|auth0|eve"],
    ids=["id", "public id", "username", "identity"],
)
def test_a_person_can_be_named(eve: Caller, spelling: str) -> None:
    erased(spelling.format(eve.user))
    assert not User.objects.exists()


@pytest.mark.parametrize(
    "ref", ["0", "99", "nobody", "https://issuer.example/|eve", "https://issuer.example/", "|"]
)
def test_nobody_is_named(eve: Caller, ref: str) -> None:
    with pytest.raises(CommandError, match="No user has this"):
        erased(ref)
    assert User.objects.exists()


def test_a_name_that_is_somebody_elses_id_is_refused(eve: Caller) -> None:
    User.objects.create_user(str(eve.user.pk))
    before = everything()
    with pytest.raises(CommandError, match="Several users"):
        erased(eve.user.pk)
    assert everything() == before


# Asking first


def answering(monkeypatch: pytest.MonkeyPatch, text: str) -> list[str]:
    """The operator types `text`; returns what they are asked."""
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return text

    monkeypatch.setattr("builtins.input", answer)
    return asked


def test_it_asks(eve: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, "yes")
    erased(eve.user.pk, "--verbosity=1")
    assert "2 sessions with 2 messages" in asked[0]
    assert not User.objects.exists()


@pytest.mark.parametrize("answer", ["", "no", "y"])
def test_anything_but_yes_deletes_nothing(eve: Caller, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    answering(monkeypatch, answer)
    before = everything()
    with pytest.raises(CommandError, match="Nothing was deleted"):
        erased(eve.user.pk, "--verbosity=1")
    assert everything() == before


def test_where_nobody_answers_nothing_is_deleted(eve: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO())
    with pytest.raises(CommandError, match="--no-input"):
        erased(eve.user.pk, "--verbosity=1")
    assert Session.objects.count() == 2


def test_no_word_of_theirs_is_printed(
    eve: Caller, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answering(monkeypatch, "yes")
    said = erased(eve.user.pk, "--verbosity=3") + "".join(asked) + "".join(capsys.readouterr())
    assert "secret" not in said
    assert "eve" not in said.replace("every", "")


# What is refused


def refused(user: Any) -> str:
    """Erase somebody; returns why not, having made sure that nothing has changed."""
    before = everything()
    with pytest.raises(CommandError) as caught:
        erased(user.pk)
    assert everything() == before
    return str(caught.value)


def test_the_last_active_superuser_stays(sam: Caller, eve: Caller) -> None:
    User.objects.create_user("retired", is_superuser=True, is_active=False)
    assert "last active superuser" in refused(sam.user)


def test_one_of_two_superusers_goes(sam: Caller) -> None:
    other = User.objects.create_superuser("other")
    erased(sam.user.pk)
    assert User.objects.get() == other


def test_other_peoples_sessions_at_home_are_in_the_way(eve: Caller, mallory: Caller) -> None:
    home = eve.user.personal_workspace()
    Membership.objects.create(user=mallory.user, workspace=home)
    guest = new_session(mallory, workspace=home)
    assert "1 sessions of other people" in refused(eve.user)
    services.trash_session(guest)
    assert "1 sessions of other people" in refused(eve.user)


def test_other_members_at_home_are_not(eve: Caller, mallory: Caller) -> None:
    Membership.objects.create(user=mallory.user, workspace=eve.user.personal_workspace())
    erased(eve.user.pk)
    assert User.objects.get() == mallory.user
    assert mallory.user.memberships.count() == 1


def test_a_session_that_comes_to_the_home_meanwhile_stops_it(eve: Caller, mallory: Caller) -> None:
    home = eve.user.personal_workspace()

    def come(_: int) -> None:
        if not Session.objects.filter(owner=mallory.user).exists():
            new_session(mallory, workspace=home)

    with pytest.raises(erasure.CannotErase):
        erasure.erase(eve.user, come)
    assert Session.objects.get().owner == mallory.user
    assert not User.objects.get(pk=eve.user.pk).is_active
