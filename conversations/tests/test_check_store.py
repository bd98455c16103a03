"""The doctor of a store finds nothing where the product wrote alone; what is wrong it finds, and mends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO, StringIO
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import ApiToken, Membership, User, Workspace
from chatstore.retries import Retry
from conftest import Caller, new_message, new_session
from conversations import erasure, retention, services, usage
from conversations.chat import records
from conversations.doctor import schema, sessions
from conversations.models import Message, Session, Turn, Usage, UsageMark, UsageTotal
from conversations.tests import search_index, turns
from conversations.tests.seeds import VOLUME, emptied, seeded
from conversations.tests.turns import is_exact
from conversations.transfer import reading, writing
from conversations.transfer.report import Report

DAY = timedelta(days=1)
SECRET = "wonderful words"


class Checked(NamedTuple):
    lines: list[str]
    error: str

    @property
    def kinds(self) -> list[str]:
        return [line.split("  ")[0] for line in self.lines]


def checked(*options: str) -> Checked:
    """What the command prints, and how it ends. Messages' words are nowhere."""
    out, err, error = StringIO(), StringIO(), ""
    try:
        call_command("check_store", *options, stdout=out, stderr=err)
    except CommandError as raised:
        error = str(raised)
    assert SECRET not in out.getvalue() + err.getvalue() + error
    assert "Looked at" in err.getvalue() or not error.endswith("left.")
    return Checked(out.getvalue().splitlines(), error)


CLEAN = Checked([], "")


def execute(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def on_postgresql(*statements: str) -> None:
    if connection.vendor == "postgresql":
        execute("SET CONSTRAINTS ALL IMMEDIATE", *statements)


def without(table: str, *constraints: str) -> None:
    """The table takes what these refuse, until the test ends."""
    on_postgresql(*(f"ALTER TABLE conversations_{table} DROP CONSTRAINT {name}" for name in constraints))
    if connection.vendor == "sqlite":
        execute("PRAGMA ignore_check_constraints = ON")


@pytest.fixture
def said(session: Session) -> Iterator[Session]:
    """A session of five messages, one of them deleted, whose days are counted."""
    call = {"role": "tool_call", "content": "Called", "tool_name": "search", "tokens": 2}
    services.append(session, [{"role": "user", "content": SECRET, "tokens": 3}, call], Retry("k", "1" * 64))
    for _ in range(3):
        new_message(session, SECRET, tokens=5)
    services.delete_message(message(session, 4))
    Message.objects.update(created_at=F("created_at") - DAY * 3, updated_at=F("updated_at") - DAY * 3)
    times = {name: F(name) - DAY * 3 for name in ("created_at", "last_activity", "updated_at")}
    Session.objects.update(**times)
    usage.roll_up(usage.waiting())
    session.refresh_from_db()
    assert checked() == CLEAN
    yield session
    if connection.vendor == "sqlite":
        execute("PRAGMA ignore_check_constraints = OFF")


def message(session: Session, position: int) -> Message:
    return Message.objects.select_related("session").get(session=session, position=position)


def change(session: Session, nth: int, /, **values: Any) -> Message:
    row = message(session, nth)
    Message.objects.filter(pk=row.pk).update(**values)
    return row


# A store that the product made


def a_chat(owner: Caller, status: str) -> None:
    turn = turns.begin(new_session(owner))
    row = turns.say(turn)
    records.save_texts([turns.running(turn, row, "Well, well")])
    if status == "running":
        return
    if status == "lost":
        turns.expire(turn)
        records.settle()
        return
    records.complete_row(turn, turns.mark(turn), trace_id="t")
    records.finish(turn, status, {row.pk: "Well, well."}, "t")


def made_by_every_path(owner: Caller, other: Caller, workspace: Workspace) -> None:
    seeded()
    seeded(*VOLUME)
    for status in [*Turn.Status.values, "lost"]:
        a_chat(owner, status)
    session = new_session(owner, workspace, title="Given", metadata={"a": [1.5, "👋"]})
    services.append(session, [{"role": "user", "content": "Hi", "tokens": 4}] * 7, Retry("k", "1" * 64))
    services.append(session, [{"role": "user", "content": "Hi", "tokens": 4}] * 7, Retry("k", "1" * 64))
    services.delete_message(message(session, 7))
    services.delete_message(message(session, 3))
    services.change_message(message(session, 2), {"tokens": 9, "metadata": {"b": 2**62}})
    services.change_session(session, {"title": "Another"})
    services.trash_session(session)
    services.restore_session(session)
    services.trash_session(new_session(other, workspace))
    gone = new_session(owner)
    new_message(gone)
    services.trash_session(gone)
    erasure.erase(other.user, lambda _: None)


def over_the_api(owner: Caller) -> None:
    made = owner.post("/api/sessions/", {"title": "A", "metadata": {"n": 1e18}}, Idempotency_Key="made").json()
    place = f"/api/sessions/{made['session_id']}/messages/"
    owner.post(f"{place}batch/", {"messages": [{"role": "user", "content": "x", "tokens": 2}] * 3})
    ids = [row["id"] for row in owner.get(place).json()]
    assert owner.delete(f"/api/messages/{ids[-1]}/").status_code == 204
    assert owner.patch(f"/api/messages/{ids[0]}/", {"content": "y", "tokens": 0}).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_store_that_the_product_made_is_clean(alice: Caller, bob: Caller, shared: Workspace) -> None:
    over_the_api(alice)
    made_by_every_path(alice, bob, shared)
    assert checked() == CLEAN
    with writing.snapshot():
        file = b"".join(writing.exported())
    usage.roll_up(usage.waiting())
    retention.purge(timezone.now(), lambda _: None)
    assert checked() == CLEAN
    usage.roll_up(usage.waiting())
    assert Usage.objects.exists()
    assert checked("--fix") == CLEAN
    emptied()
    opened = reading.File(BytesIO(file), Report(lambda _: None, strict=True))
    opened.open()
    reading.load(opened, lambda _: None)
    assert checked() == CLEAN
    usage.roll_up(usage.waiting())
    assert checked() == CLEAN


def test_an_empty_store_is_clean(db: None) -> None:
    assert checked() == CLEAN


def test_it_asks_no_more_for_more_sessions(alice: Caller) -> None:
    def asked() -> int:
        new_message(new_session(alice))
        with CaptureQueriesContext(connection) as queries:
            assert checked("--only", "counters", "--only", "contents") == CLEAN
        return len(queries)

    first = asked()
    for _ in range(20):
        new_message(new_session(alice))
    assert asked() == first


# What is found


class Defect(NamedTuple):
    """How it is made, and what is said of it; `is_mended` by `--fix`, and `is_seen` by clients then."""

    kind: str
    said: str
    make: Callable[[Session], Any]
    is_mended: bool = True
    is_seen: bool = True


def of_session(**values: Any) -> Callable[[Session], Any]:
    return lambda session: Session.objects.filter(pk=session.pk).update(**values)


def of_message(nth: int, /, *constraints: str, **values: Any) -> Callable[[Session], Any]:
    def make(session: Session) -> None:
        without("message", *constraints)
        change(session, nth, **values)

    return make


def unchecked(name: str, **values: Any) -> Callable[[Session], Any]:
    def make(session: Session) -> None:
        without("session", name)
        Session.objects.filter(pk=session.pk).update(**values)

    return make


def turn_of(**values: Any) -> Callable[[Session], Any]:
    def make(session: Session) -> None:
        now = timezone.now()
        given = {"question": 1, "answer": 2, "status": "complete", "worker": "w", "lease_until": now - DAY}
        if values.get("status") == "odd":
            without("turn", "turn_status")
        Turn.objects.create(session=session, started_at=now - DAY, **{**given, **values})

    return make


def lost_turn(session: Session) -> None:
    turn = turns.begin(session)
    turns.say(turn)
    Turn.objects.update(lease_until=timezone.now() - DAY)


def left_streaming(session: Session) -> None:
    turns.say(turns.begin(session))
    Turn.objects.all().delete()


def metadata_of(text: str) -> Callable[[Session], Any]:
    """As the database has it."""

    def make(session: Session) -> None:
        place = "%s::jsonb" if connection.vendor == "postgresql" else "%s"
        table = Message._meta.db_table
        with connection.cursor() as cursor:
            sql = f"UPDATE {table} SET metadata = {place} WHERE id = %s"
            cursor.execute(sql, [text, message(session, 2).pk])

    return make


def lost_rows(*positions: int) -> Callable[[Session], Any]:
    def make(session: Session) -> None:
        rows = Message.objects.filter(session=session, position__in=positions)
        left = Message.objects.filter(session=session, deleted_at=None).exclude(position__in=positions)
        rows.delete()
        counted = {"message_count": left.count(), "tokens": sum(left.values_list("tokens", flat=True))}
        Session.objects.filter(pk=session.pk).update(**counted)
        Usage.objects.all().delete()  # What is counted now is another matter.
        UsageTotal.objects.all().delete()
        usage.count_days(session.created_at.date(), session.created_at.date())

    return make


def used_otherwise(_: Session) -> None:
    Usage.objects.update(tokens=F("tokens") + 1)


def totalled_otherwise(_: Session) -> None:
    UsageTotal.objects.filter(kind="tool").delete()


def homeless(_: Session) -> None:
    user = User.objects.create_user("homeless")
    user.memberships.all().delete()
    Workspace.objects.filter(personal_of=user).delete()


FUTURE = timezone.now() + DAY * 400
PAST = timezone.now() - DAY * 400
DEFECTS: dict[str, Defect] = {
    "message_count": Defect("counters", "message_count is 3", of_session(message_count=3)),
    "tokens": Defect("counters", "tokens is 1, and there are 15", of_session(tokens=1)),
    "last_position": Defect("counters", "last_position is 4, and a message has 5", of_session(last_position=4)),
    "gap": Defect("positions", "No message has the position 1 to 2, 4.", lost_rows(1, 2, 4), is_mended=False),
    "lost-end": Defect("positions", "No message has the position 6 to 9.", of_session(last_position=9), False),
    "position": Defect("positions", "below 1", of_message(1, "message_numbers", position=-1), is_mended=False),
    "version": Defect("versions", "version is 2", of_session(version=2)),
    "version-0": Defect("versions", "version is 0", unchecked("session_version", version=0)),
    "message-version": Defect("versions", "below 1", of_message(2, "message_numbers", version=0)),
    "activity-late": Defect("times", "last_activity", of_session(last_activity=timezone.now() - DAY / 2)),
    "activity-early": Defect("times", "last_activity", of_session(last_activity=PAST)),
    "updated": Defect("times", "updated_at", of_session(updated_at=PAST)),
    "deleted-never": Defect("times", "deleted_at", of_session(deleted_at=FUTURE)),
    "deleted-before": Defect("times", "deleted_at", of_session(deleted_at=PAST)),
    "owner-id": Defect("orphans", "another public id", of_session(owner_public_id=uuid4())),
    "homeless": Defect("orphans", "no personal workspace", homeless, is_seen=False),
    "lost-turn": Defect("turns", "has lost its worker", lost_turn),
    "streaming": Defect("turns", "It is streaming", left_streaming),
    "turn-nowhere": Defect("turns", "names a message", turn_of(answer=9), is_mended=False),
    "turn-status": Defect("turns", "no such status", turn_of(status="odd"), is_seen=False),
    "left-over": Defect("contents", "still holds", of_message(4, content=SECRET, tool_name="t"), is_seen=False),
    "empty": Defect("contents", "no content", of_message(1, "message_content", content=""), is_mended=False),
    "role": Defect("contents", "no such role", of_message(1, "message_role", role="odd"), is_mended=False),
    "status": Defect("contents", "no such status", of_message(1, "message_status", status="odd"), is_mended=False),
    "half-key": Defect("contents", "no digest", of_message(1, idempotency_digest=None), is_mended=False),
    "half-digest": Defect("contents", "no key", of_message(3, idempotency_digest="1" * 64), is_seen=False),
    "no-object": Defect("contents", "no object", metadata_of("[1]"), is_mended=False),
    "json-null": Defect("contents", "no object", metadata_of("null")),
    "number": Defect("contents", "beyond 2^63", metadata_of('{"a": [{"b": 1234567890123456789012}], "c": 1}')),
    "float": Defect("contents", "beyond 2^63", metadata_of('{"a": -1e300}')),
    "title": Defect("contents", "no title", unchecked("session_title", title="")),
    "usage": Defect("usage", "is not that of its messages", used_otherwise, is_seen=False),
    "totals": Defect("usage", "is not that of its messages", totalled_otherwise, is_seen=False),
}
# What the database refuses while its constraints are there.
REFUSED = {
    "last_position", "position", "version-0", "message-version", "turn-status", "empty", "role", "status", "title",
}  # fmt: skip


def shown_beside(name: str) -> Iterator[str]:
    """The constraint that was in the way; and a message of another role is counted elsewhere."""
    if name in REFUSED and connection.vendor == "postgresql":
        yield "schema"
    if name == "role":
        yield "usage"


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_and_mended(said: Session, name: str) -> None:
    defect = DEFECTS[name]
    if name == "last_position":
        without("session", "session_counters")
    defect.make(said)
    said.refresh_from_db()
    before = said.version

    found = checked()
    assert set(found.kinds) == {defect.kind, *shown_beside(name)}
    assert any(defect.said in line for line in found.lines)
    mended = checked("--fix", "--only", defect.kind)
    assert set(mended.kinds) == {defect.kind}
    again = checked("--only", defect.kind)
    said.refresh_from_db()
    if defect.is_mended:
        assert all(line.endswith("Mended.") for line in mended.lines)
        assert mended.error == ""
        assert again == CLEAN
        assert (said.version > before) is defect.is_seen
    else:
        assert again == mended
        assert again.error.endswith("left.")
        assert said.version == before


def test_several_are_mended_at_once_and_the_version_rises_once(said: Session) -> None:
    of_session(message_count=2, tokens=99, updated_at=PAST)(said)
    Message.objects.filter(session=said, position=2).update(metadata={"n": 2**80})
    lost_turn(said)
    of_session(last_activity=PAST)(said)
    version = Session.objects.get(pk=said.pk).version
    assert set(checked("--fix").kinds) == {"counters", "times", "contents", "turns"}
    assert checked() == CLEAN
    assert is_exact(said)
    assert said.version == version + 2  # A turn that has lost its worker is settled by itself.
    assert message(said, 2).metadata == {"n": str(2**80)}
    assert Turn.objects.get().status == "interrupted"


def test_what_is_mended_reaches_a_client_that_resumes(alice: Caller, said: Session) -> None:
    of_session(version=2)(said)
    metadata_of(json.dumps({"n": 2**70}))(said)
    place = f"/api/sessions/{said.session_id}/messages/?since_version={said.version}"
    assert alice.get(place).json() == []
    checked("--fix")
    assert [row["position"] for row in alice.get(place).json()] == [2]


@pytest.mark.postgres
def test_a_mend_that_the_database_refuses_is_told(said: Session) -> None:
    """A session cannot have fewer tokens than none."""
    without("message", "message_numbers")
    change(said, 2, tokens=-50)
    found = checked("--fix", "--only", "counters", "--only", "contents")
    assert found.kinds == ["counters", "contents"]
    assert "cannot be mended before the rest" in found.lines[0]
    assert "PATCH them" in found.lines[1]
    said.refresh_from_db()
    assert said.tokens == 15


@pytest.mark.postgres
def test_two_messages_with_one_position_are_explained(said: Session) -> None:
    without("message", "message_position")
    change(said, 5, position=3)
    twice, gap = (line for line in checked("--fix", "--only", "positions").lines)
    assert "Several messages have the position 3." in twice
    assert "No message has the position 5." in gap


# Rows that name nothing


@pytest.fixture
def unbound(said: Session) -> Iterator[Session]:
    """Foreign keys hold nothing until the test ends."""
    if connection.vendor == "postgresql":
        execute("SET CONSTRAINTS ALL IMMEDIATE")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT conrelid::regclass, conname FROM pg_constraint"
                " WHERE contype = 'f' AND conrelid::regclass::text ~ '^(accounts|conversations)_'"
            )
            for table, name in cursor.fetchall():
                cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    yield said
    for model in (Message, Turn, Session, Usage, Membership, Workspace, ApiToken, User):
        model._default_manager.all()._raw_delete("default")


def removed(model: Any, **where: Any) -> None:
    """The row alone."""
    model._default_manager.filter(**where)._raw_delete("default")


def test_what_names_a_session_that_is_gone(unbound: Session) -> None:
    turn_of()(unbound)
    removed(Session, pk=unbound.pk)
    found = checked("--fix", "--only", "orphans")
    assert found.lines[0].startswith(f"orphans  5 messages name the session {unbound.pk}, which is not there.")
    assert "1 turns name the session" in found.lines[1]
    assert found.error == "2 findings are left."
    assert Message.objects.count() == 5


def test_more_such_sessions_than_a_page_has(unbound: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_AT_ONCE", 2)
    owner = Caller(User.objects.get(username="alice"), "")
    made = [new_session(owner) for _ in range(9)]
    for session in made:
        new_message(session)
    for session in made[:7]:
        removed(Session, pk=session.pk)
    assert len(checked("--only", "orphans").lines) == 7


def test_an_owner_and_a_workspace_that_are_gone(unbound: Session) -> None:
    removed(User, pk=unbound.owner_id)
    removed(Workspace, public_id=unbound.workspace_id)
    lines = checked("--only", "orphans").lines
    assert sum(f"session={unbound.session_id}  Its owner is not there." in line for line in lines) == 1
    assert sum(f"session={unbound.session_id}  Its workspace is not there." in line for line in lines) == 1
    assert any("The membership" in line and "names a user that is not there" in line for line in lines)
    assert any("The usage" in line and "names a workspace that is not there" in line for line in lines)


# Texts that are none


@pytest.mark.once
@pytest.mark.parametrize("stored", [b"a\0b", b"a\xed\xa0\x80b", b"\xff"])
def test_a_text_that_is_none_is_replaced(alice: Caller, said: Session, stored: bytes) -> None:
    table, row = Message._meta.db_table, message(said, 1)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET content = CAST(%s AS TEXT) WHERE id = %s", [stored, row.pk])
        cursor.execute(f"UPDATE {Session._meta.db_table} SET title = CAST(%s AS TEXT)", [stored])
    found = checked()
    assert found.kinds == ["contents", "contents"]
    assert found.lines[1].startswith(f"contents  session={said.session_id}  message={row.pk}  A text holds")
    assert set(checked("--fix").kinds) == {"contents"}
    assert checked() == CLEAN
    assert "\N{REPLACEMENT CHARACTER}" in message(said, 1).content
    assert alice.get(f"/api/sessions/{said.session_id}/").status_code == 200


@pytest.mark.once
def test_a_lone_surrogate_in_metadata_is_replaced(alice: Caller, said: Session) -> None:
    metadata_of('{"a\\ud800": ["\\u0000", "\\ud83d\\udc4b"]}')(said)
    assert checked().kinds == ["contents"]
    assert checked("--fix").error == ""
    assert message(said, 2).metadata == {"a\ufffd": ["\ufffd", "👋"]}


# How it goes


def test_a_session_that_changed_meanwhile_is_no_alarm(
    alice: Caller, said: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row was read before an append, its messages after."""

    def overtaken(messages: Any) -> Any:
        new_message(said)
        monkeypatch.setattr(sessions, "counts_of", counts_of)
        return counts_of(messages)

    counts_of = sessions.counts_of
    monkeypatch.setattr(sessions, "counts_of", overtaken)
    assert checked() == CLEAN


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_writers_beside_it_raise_no_alarm(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_AT_ONCE", 3)
    there = [new_session(alice) for _ in range(8)]
    over = threading.Event()

    def write(nth: int) -> Callable[[], None]:
        def work() -> None:
            while not over.is_set():
                session = there[nth % len(there)]
                row = new_message(session, tokens=2)
                services.change_message(row, {"tokens": 7})
                services.delete_message(new_message(session))
                made = new_session(alice)
                new_message(made)
                services.trash_session(made)
                retention.purge(timezone.now(), lambda _: None)

        return work

    writers = [turns.in_thread(write(nth)) for nth in range(4)]
    try:
        found = [checked() for _ in range(15)]
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert found == [CLEAN] * 15
    assert Message.objects.count() > 20
    assert checked() == CLEAN


def test_one_that_was_stopped_goes_on(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_AT_ONCE", 2)
    there = [new_session(alice) for _ in range(5)]
    Session.objects.filter(pk__in=[there[0].pk, there[4].pk]).update(tokens=1)
    page_after, asked = sessions.page_after, []

    def stopped(after: int) -> Any:
        asked.append(after)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return page_after(after)

    monkeypatch.setattr(sessions, "page_after", stopped)
    found = checked("--only", "counters")
    assert len(found.lines) == 1
    first = there[1].pk + 1
    assert found.error == f"Stopped. This goes on: manage.py check_store --only counters --from {first}"
    rest = checked("--only", "counters", "--from", str(first))
    assert [f"session={there[4].session_id}" in line for line in rest.lines] == [True]
    assert len(checked("--from", str(there[0].session_id)).lines) == 2
    assert len(checked("--from", str(there[4].session_id)).lines) == 1


@pytest.mark.parametrize("ref", ["0", "x", "", str(uuid4())])
def test_a_session_to_begin_with_that_is_not_there(db: None, ref: str) -> None:
    assert checked("--from", ref).error == "There is no such session; the id of any will do."


def test_findings_as_json(said: Session) -> None:
    of_session(tokens=1)(said)
    shape = {"kind": "counters", "session": str(said.session_id), "message": None, "mended": True}
    sentence = "tokens is 1, and there are 15 tokens of live messages. Mended."
    assert [json.loads(line) for line in checked("--json", "--fix").lines] == [{**shape, "sentence": sentence}]


def test_only_some_kinds(said: Session) -> None:
    of_session(tokens=1, updated_at=PAST)(said)
    assert checked("--only", "times", "--fix").kinds == ["times"]
    assert checked().kinds == ["counters"]
    assert checked("--only", "usage") == CLEAN


def test_a_reply_of_a_counted_day_is_counted_again_as_interrupted(said: Session) -> None:
    row = change(said, 5, status="streaming", role="assistant")
    usage.count_days(row.created_at.date(), row.created_at.date())
    assert checked("--fix").kinds == ["turns"]
    assert UsageMark.objects.get().day == row.created_at.date()
    usage.roll_up(usage.waiting())
    assert sum(Usage.objects.values_list("interrupted", flat=True)) == 1
    assert checked() == CLEAN


def test_marked_days_and_those_that_are_open_are_let_be(said: Session) -> None:
    services.change_message(message(said, 1), {"tokens": 77})
    new_message(said)
    assert UsageMark.objects.exists()
    assert checked() == CLEAN
    UsageMark.objects.all().delete()
    assert checked().kinds == ["usage"]


def test_a_long_session_is_a_page_of_its_own(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MESSAGES_AT_ONCE", 3)
    there = [new_session(alice) for _ in range(4)]
    for session in there:
        services.append(session, [{"role": "user", "content": "x"}] * 2)
    pages, after = [], 0
    while (page := sessions.page_after(after)).last is not None:
        pages.append(list(page.sessions))
        after = page.last
    assert [*pages, list(page.sessions)] == [[s.pk for s in there[:2]], [s.pk for s in there[2:]]]


# The schema


def test_migrations_that_are_missing_end_it(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    execute("DELETE FROM django_migrations WHERE app = 'conversations' AND name = '0007_message_streaming'")
    assert checked().error == "1 migrations are not applied: run `manage.py migrate` first."


@pytest.mark.django_db(transaction=True)
def test_an_index_that_is_missing_is_made_again() -> None:
    execute("DROP INDEX message_version")
    assert checked().lines == ["schema  conversations_message has no index message_version."]
    assert checked("--fix").lines == ["schema  conversations_message has no index message_version. Mended."]
    assert checked() == CLEAN


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_an_index_that_is_invalid_is_made_again() -> None:
    execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('message_time')")
    assert checked().lines == ["schema  The index message_time is invalid."]
    assert checked("--fix").error == ""
    assert checked() == CLEAN


@pytest.mark.postgres
def test_an_invalid_index_of_a_constraint_or_of_the_search_is_explained(db: None) -> None:
    search_index.make()
    names = "('message_search', 'message_position')"
    execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid IN"
        f" (SELECT oid FROM pg_class WHERE relname IN {names})"
    )
    position, search = checked("--fix").lines
    assert position.startswith("schema  The index message_position is invalid. REINDEX it")
    assert search == "schema  The index message_search is invalid. `manage.py searchindex` makes it again."


def not_valid(constraint: str) -> None:
    """It holds for new rows alone, and a message of before breaks it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", [constraint])
        (rule,) = cursor.fetchone()
    table = "ALTER TABLE conversations_message"
    execute(
        f"{table} DROP CONSTRAINT {constraint}",
        "UPDATE conversations_message SET tokens = -1 WHERE position = 1",
        f"{table} ADD CONSTRAINT {constraint} {rule} NOT VALID",
    )


NOT_VALID = "schema  The constraint message_numbers of conversations_message is NOT VALID: old rows may break it."


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_constraint_that_is_not_valid_is_validated_when_its_rows_are_right(alice: Caller) -> None:
    new_message(new_session(alice))
    not_valid("message_numbers")
    try:
        assert checked("--only", "schema").lines == [NOT_VALID]
        (line,) = checked("--fix", "--only", "schema").lines
        assert (
            line == f"{NOT_VALID} It cannot be mended (CheckViolation: sqlstate=23514 constraint=message_numbers)."
        )
    finally:
        Message.objects.update(tokens=0)
        assert checked("--fix", "--only", "schema").lines == [f"{NOT_VALID} Mended."]
    assert checked() == CLEAN


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("statement", "said_of"),
    [
        (
            "ALTER TABLE conversations_session DROP CONSTRAINT session_title",
            "session has no constraint session_title",
        ),
        ("DROP INDEX session_idempotency_key", "session has no constraint session_idempotency_key"),
        (
            "ALTER TABLE conversations_session DROP CONSTRAINT conversations_session_session_id_key",
            "session has no unique constraint on session_id",
        ),
        (
            "DO $$ BEGIN EXECUTE (SELECT 'DROP INDEX ' || indexname FROM pg_indexes WHERE"
            " tablename = 'accounts_identity' AND indexdef LIKE '%(user_id)'); END $$",
            "identity has no index on user_id",
        ),
    ],
)
def test_a_constraint_that_is_missing_is_explained(db: None, statement: str, said_of: str) -> None:
    execute(statement)
    (line,) = checked("--fix").lines
    assert f"{said_of}. `manage.py sqlmigrate` shows" in line


@pytest.mark.postgres
def test_a_foreign_key_that_is_missing_is_explained(unbound: Session) -> None:
    lines = checked("--only", "schema").lines
    assert any("conversations_message has no foreign key on session_id" in line for line in lines)


def test_every_table_is_looked_at() -> None:
    tables = {model._meta.db_table for model in schema.models()}
    assert {"conversations_message", "accounts_user", "django_session", "auth_group_permissions"} <= tables
