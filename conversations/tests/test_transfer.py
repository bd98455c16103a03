"""A store's file: what is written is what is read, here and elsewhere."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.models import Sum
from django.utils import timezone
from pytest_django import Settings

from accounts.models import LOCAL_ISSUER, ApiToken, Identity, Membership, User, Workspace
from chatstore.environment import BASE_DIR
from chatstore.retries import Retry
from chatstore.tests.serving import own_database_url
from conftest import Caller, new_message, new_session
from conversations import services, usage
from conversations.models import Message, Session, Turn, Usage, UsageMark
from conversations.tests.seeds import VOLUME, emptied, seeded
from conversations.transfer import reading, sessions, writing
from conversations.transfer.lines import line_of
from conversations.transfer.report import Report

pytestmark = pytest.mark.django_db(transaction=True)

NEWLINE = b"\n"
METADATA = {
    "z": 1, "aa": [1.0, -0.0, 1e18, 5e-324, 1e-7, 123456789012345678, {"ü": None, "a": True}],
    "b": {"longer": "👋 \u2028", "k": "\x1f\"\\"},
}  # fmt: skip


# What the tests share


def written() -> bytes:
    with writing.snapshot():
        return b"".join(writing.exported())


def loaded(content: bytes) -> Report:
    """The report of reading this file; what it told is in `told`."""
    told: list[str] = []
    report = Report(told.append)
    report.told = told  # type: ignore[attr-defined]
    file = reading.File(BytesIO(content), report)
    file.open()
    reading.load(file, lambda lines: None)
    return report


def told(content: bytes) -> list[str]:
    lines: list[str] = loaded(content).told  # type: ignore[attr-defined]
    return lines


def rows_of(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


def file_of(rows: list[dict[str, Any]]) -> bytes:
    """A file of these rows, with the right numbers in its first line."""
    counts = dict.fromkeys(rows[0]["counts"], 0)
    for row in rows[1:]:
        if row["type"] in counts:
            counts[row["type"]] += 1
    return b"".join(map(line_of, [{**rows[0], "counts": counts}, *rows[1:]]))


def changed(file: bytes, kind: str, nth: int = 0, **fields: Any) -> bytes:
    rows = rows_of(file)
    [row for row in rows if row["type"] == kind][nth].update(fields)
    return file_of(rows)


def adding(content: bytes, **wanted: int) -> bool:
    report = loaded(content)
    return {kind: number for kind, number in report.added.items() if number} == wanted and not report.refused


@pytest.fixture
def store(alice: Caller, bob: Caller, shared: Workspace) -> bytes:
    """A file with something of everything."""
    Identity.objects.create(user=alice.user, issuer=LOCAL_ISSUER, subject="alice@example.com")
    Identity.objects.create(user=alice.user, issuer="https://issuer.example", subject="zoë")
    made = {"idempotency_key": "made", "idempotency_digest": "0" * 64}
    User.objects.create_user("made", created_by=alice.user, email="made@example.com", is_active=False, **made)
    said = new_session(alice, shared, title="Zoë's 👋", metadata=METADATA, pocket="p", group="", agent="a")
    services.append(said, [{"role": "user", "content": 'a\u2028\n"\\\x01', "metadata": METADATA, "tokens": 3}])
    call = {"role": "tool_call", "content": "Called", "tool_name": "t", "trace_id": "T" * 32, "span_id": "s"}
    services.append(said, [call, call, {"role": "assistant", "content": "x", "tokens": 4}], Retry("k", "1" * 64))
    services.delete_message(said.messages.select_related("session").get(position=3))
    services.change_message(said.messages.select_related("session").get(position=4), {"tokens": 9})
    services.create_session(bob.user, shared, {}, Retry("a key", "2" * 64))
    trashed = new_session(bob, shared, title="Trashed")
    new_message(trashed)
    services.trash_session(trashed)
    turn(said, 1, 4, "complete", finished_at=timezone.now())
    Message.objects.filter(session=trashed).update(created_at=timezone.now() - timedelta(days=40))
    Session.objects.filter(pk=trashed.pk).update(created_at=timezone.now().replace(microsecond=0))
    return written()


def turn(session: Session, question: int, answer: int, status: str, **fields: Any) -> Turn:
    times = {"lease_until": timezone.now() + timedelta(hours=1), "started_at": timezone.now()}
    about = {"session": session, "question": question, "answer": answer, "status": status, "worker": "w"}
    return Turn.objects.create(**about, **times, **fields)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Makes `connection` that of an empty SQLite store, until the test ends."""
    own = connections["default"]
    place = tmp_path / "other.sqlite3"
    settings = {**own.settings_dict, "ENGINE": "django.db.backends.sqlite3", "NAME": str(place), "OPTIONS": {}}

    def go_there() -> None:
        connections["default"] = connections.create_connection("default")

    with suppress(KeyError):
        before = connections.settings["default"]
    connections.settings["default"] = {**before, **settings}
    try:
        yield go_there
    finally:
        connections.settings["default"] = before
        if connections["default"] is not own:
            connections["default"].close()
        connections["default"] = own


# There and back


def test_what_was_written_and_read_is_written_the_same(store: bytes) -> None:
    emptied()
    assert loaded(store).refused == 0
    assert written() == store


def test_it_is_the_same_on_another_database_and_back(store: bytes, other: Callable[[], None]) -> None:
    own = connections["default"]
    other()
    assert connection.vendor == "sqlite"
    call_command("migrate", verbosity=0)
    assert told(store) == []
    there = written()
    connections["default"].close()
    connections["default"] = own
    emptied()
    assert told(there) == []
    assert there == store
    assert written() == store


def test_a_volume_moves() -> None:
    seeded(*VOLUME)
    content = written()
    emptied()
    assert adding(content, user=7, workspace=7, membership=7, session=23, message=400)
    assert written() == content


def test_the_same_twice_adds_nothing(store: bytes) -> None:
    emptied()
    loaded(store)
    again = loaded(store)
    assert not any(again.added.values())
    assert again.refused == 0
    assert sum(again.there.values()) == store.count(b"\n") - 1
    assert written() == store


def test_every_field_is_in_order_and_none_is_a_row_number(store: bytes) -> None:
    rows = rows_of(store)
    assert all(list(row) == sorted(row) for row in rows)
    assert not any({"id", "user_id", "session_pk", "password", "digest", "is_staff"} & set(row) for row in rows)
    assert [identity["issuer"] for row in rows for identity in row.get("identities", [])] == [
        "https://issuer.example",
        LOCAL_ISSUER,
    ]
    keys = [row["session_id"] for row in rows if row["type"] == "session"]
    assert keys == sorted(keys)


def test_metadata_is_written_in_one_way_on_every_database(alice: Caller) -> None:
    new_session(alice, metadata=METADATA)
    numbers = "[1.0,0.0,1000000000000000000,5e-324,1e-7,123456789012345678,"
    inner = '{"a":true,"ü":null}],"b":{"k":"\\u001f\\"\\\\","longer":"👋 \u2028"},"z":1}'
    assert f'"metadata":{{"aa":{numbers}{inner}' in written().decode()


def test_no_secret_is_in_the_file(alice: Caller) -> None:
    alice.user.set_password("a password")
    alice.user.save()
    token = ApiToken.objects.get(user=alice.user)
    content = written().decode()
    for secret in (alice.token, token.digest, token.prefix, alice.user.password):
        assert secret not in content


def test_powers_do_not_move(sam: Caller) -> None:
    content = written()
    emptied()
    assert told(content) == []
    there = User.objects.get(username="sam")
    assert not (there.is_staff)
    assert not (there.is_superuser)
    assert not (there.has_usable_password())


def test_positions_keep_their_gaps(alice: Caller) -> None:
    session = new_session(alice)
    for _ in range(4):
        new_message(session)
    Message.objects.filter(session=session, position__in=[2, 4]).delete()
    Session.objects.filter(pk=session.pk).update(message_count=2)
    content = written()
    emptied()
    assert told(content) == []
    moved = Session.objects.get()
    assert list(moved.messages.order_by("position").values_list("position", flat=True)) == [1, 3]
    assert new_message(moved).position == 5
    assert moved.last_position == 4


def test_a_retry_after_the_move_is_recognised(store: bytes) -> None:
    emptied()
    loaded(store)
    session = Session.objects.get(title="Zoë's 👋")
    with pytest.raises(services.MessageGone):  # One of the batch has been deleted since.
        services.append(session, [{"role": "user", "content": "x"}], Retry("k", "1" * 64))
    bob = User.objects.get(username="bob")
    place = Workspace.objects.get(name="Shared")
    made, created = services.create_session(bob, place, {}, Retry("a key", "2" * 64))
    assert not created
    assert made.idempotency_key == "a key"
    made_user = User.objects.get(username="made")
    assert made_user.created_by == User.objects.get(username="alice")
    assert made_user.idempotency_key == "made"


@pytest.mark.parametrize("lease", [timedelta(hours=1), timedelta(hours=-1)])
def test_what_is_still_being_written_is_interrupted_in_the_file(alice: Caller, lease: timedelta) -> None:
    session = new_session(alice)
    new_message(session)
    new_message(session, "so far", "assistant")
    session.messages.filter(position=2).update(status="streaming")
    running = turn(session, 1, 2, "running")
    Turn.objects.filter(pk=running.pk).update(lease_until=timezone.now() + lease)
    content = written()
    rows = rows_of(content)
    assert [row["status"] for row in rows if "status" in row] == ["complete", "interrupted", "interrupted"]
    emptied()
    assert told(content) == []
    assert written() == content
    assert not Turn.objects.running().exists()


def test_the_days_that_were_loaded_are_counted_again(store: bytes) -> None:
    emptied()
    UsageMark.objects.all().delete()
    loaded(store)
    old = (timezone.now() - timedelta(days=40)).date()
    assert list(UsageMark.objects.values_list("day", flat=True).distinct()) == [old]
    usage.roll_up(usage.waiting())
    assert Usage.objects.get(day=old).messages == 1
    UsageMark.objects.all().delete()
    loaded(store)
    assert not UsageMark.objects.exists()


# A store that has something of it


def test_what_is_missing_is_added_to_what_is_there(store: bytes) -> None:
    Session.objects.filter(title="Trashed").delete()
    Membership.objects.filter(user__username="bob", workspace__name="Shared").delete()
    Identity.objects.filter(subject="zoë").delete()
    assert adding(store, session=1, message=1, membership=1)
    assert written() == store


def test_missing_messages_are_added_and_counted(store: bytes) -> None:
    session = Session.objects.get(title="Zoë's 👋")
    session.messages.filter(position=4).delete()
    Session.objects.filter(pk=session.pk).update(message_count=2, tokens=3)
    Turn.objects.all().delete()
    assert adding(store, message=1, turn=1)
    assert written() == store


@pytest.mark.parametrize(
    ("kind", "fields", "names"),
    [
        ("user", {"name": "SECRET"}, "name"),
        ("user", {"username": "secret", "email": ""}, "username, email"),
        ("workspace", {"name": "SECRET"}, "name"),
        ("membership", {"role": "member"}, "role"),
        ("session", {"title": "SECRET"}, "title"),
        ("session", {"metadata": {"SECRET": 1}}, "metadata"),
        ("session", {"version": 1000, "titled": False}, "titled, version"),
        ("message", {"content": "SECRET"}, "content"),
        ("message", {"metadata": {"z": True}}, "metadata"),
        ("message", {"created_at": "2020-01-01T00:00:00Z", "status": "failed"}, "created_at, status"),
        ("turn", {"trace_id": "SECRET"}, "trace_id"),
    ],
)
def test_the_same_key_with_other_content_is_told_and_stays(
    store: bytes, kind: str, fields: dict[str, Any], names: str
) -> None:
    lines = told(changed(store, kind, **fields))
    number = next(n for n, row in enumerate(rows_of(store), 1) if row["type"] == kind)
    assert len(lines) == 1
    assert lines[0].startswith(f"line {number}: {kind} ")
    assert lines[0].endswith(f" is here with another {names}")
    assert "secret" not in lines[0].lower()
    assert written() == store


def test_two_histories_are_not_mixed(store: bytes) -> None:
    session = Session.objects.get(title="Zoë's 👋")
    new_message(session, "It went on here.")
    report = loaded(store)
    assert report.refused == 1
    assert report.left_out == 5
    assert Message.objects.filter(session=session).count() == 5


def test_a_user_is_known_by_an_identity(store: bytes) -> None:
    emptied()
    there = User.objects.create_user("zoe")
    Identity.objects.create(user=there, issuer="https://issuer.example", subject="zoë")
    report = loaded(store)
    assert report.refused == 0
    session = Session.objects.get(title="Zoë's 👋")
    assert (session.owner, session.owner_public_id) == (there, there.public_id)
    assert set(there.identities.values_list("subject", flat=True)) == {"zoë", "alice@example.com"}
    assert there.memberships.count() == 2
    assert not any(loaded(store).added.values())


def test_a_personal_workspace_takes_what_was_in_the_file_s(alice: Caller) -> None:
    Identity.objects.create(user=alice.user, issuer=LOCAL_ISSUER, subject="a")
    new_message(new_session(alice))
    content = written()
    emptied()
    there = User.objects.create_user("there")
    Identity.objects.create(user=there, issuer=LOCAL_ISSUER, subject="a")
    assert told(content) == []
    assert Session.objects.get().workspace == there.personal_workspace()
    assert Workspace.objects.count() == 1


def test_identities_of_two_users_are_no_one(store: bytes) -> None:
    emptied()
    for name, issuer in (("zoë", "https://issuer.example"), ("alice@example.com", LOCAL_ISSUER)):
        Identity.objects.create(user=User.objects.create_user(name[:3]), issuer=issuer, subject=name)
    lines = told(store)
    assert "has identities of several users who are here" in lines[0]
    assert any("the owner of this session is not here" in line for line in lines)
    assert not Session.objects.filter(title="Zoë's 👋").exists()
    assert Session.objects.count() == 2


def test_a_username_that_is_taken_is_told(store: bytes) -> None:
    emptied()
    User.objects.create_user("alice")
    assert "breaks a rule of the database" in told(store)[0]
    assert Session.objects.count() == 2


def test_a_key_that_made_another_session_is_told(store: bytes) -> None:
    Session.objects.filter(idempotency_key="a key").update(session_id=UUID(int=5))
    lines = told(store)
    assert len(lines) == 1
    assert "breaks a rule of the database" in lines[0]


# Stopped, and two at once


def small(monkeypatch: pytest.MonkeyPatch, piece: int = 40) -> None:
    monkeypatch.setattr(sessions, "PIECE", piece)
    monkeypatch.setattr(reading, "PEOPLE", 3)


def test_stopped_at_each_transaction_the_next_finishes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 150)
    seeded(*VOLUME)
    content = written()
    stops = 0
    emptied()
    while True:
        steps = iter(range(10_000))

        def stop(_: int, steps: Iterator[int] = steps, after: int = stops) -> None:
            if next(steps) == after:
                raise KeyboardInterrupt

        file = reading.File(BytesIO(content), Report(pytest.fail))
        file.open()
        try:
            reading.load(file, stop)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 5
    assert written() == content


def test_a_session_is_there_as_a_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 50)
    seeded("--users", "1", "--sessions", "1", "--messages", "400")
    content = written()
    emptied()
    loads = iter(range(100))
    plain = sessions.load_messages

    def failing(*arguments: Any) -> None:
        if next(loads) == 3:
            raise KeyboardInterrupt
        plain(*arguments)

    monkeypatch.setattr(sessions, "load_messages", failing)
    with pytest.raises(KeyboardInterrupt):
        loaded(content)
    assert next(loads) == 4
    assert (Session.objects.count(), Message.objects.count()) == (0, 0)
    assert told(content) == []
    assert written() == content


LONG = ("--users", "3", "--sessions", "300", "--messages", "8000")  # More than one transaction.


def test_killed_in_a_line_the_next_finishes_it() -> None:
    seeded(*LONG)
    content = written()
    emptied()
    process = manage("importjsonl", "-", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(content[: len(content) * 9 // 10])
    process.stdin.flush()
    while not Message.objects.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    there = Message.objects.count()
    assert 0 < there < 8_000
    assert Session.objects.aggregate(said=Sum("message_count"))["said"] == there
    report = loaded(content)
    assert report.refused == 0
    assert report.added["message"] == 8_000 - there
    assert written() == content


@pytest.mark.parametrize("left_out", [1, 2, 400, 5_000])
def test_a_torn_file_is_told_and_the_whole_one_finishes_it(store: bytes, left_out: int) -> None:
    emptied()
    torn = store[:-left_out]
    lines = told(torn)
    number = torn.count(b"\n") + (not torn.endswith(b"\n"))
    ends = f"is the end, after {number - 1:,} lines; line 1 says {store.count(NEWLINE) - 1:,}"
    assert (f"line {number}: {ends}" in lines) == (number < store.count(NEWLINE))
    assert any(line.startswith(f"line {number}: is not JSON") for line in lines) == (left_out > 1)
    assert told(store) == []
    assert written() == store


def test_a_client_s_append_waits_for_the_import_of_its_session(
    store: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = User.objects.get(username="alice")
    session = Session.objects.get(title="Zoë's 👋")
    session.messages.filter(position=4).delete()
    Session.objects.filter(pk=session.pk).update(message_count=2, tokens=3)
    client = Caller(alice, ApiToken.objects.issue(alice)[1])
    answers: list[int] = []

    def say() -> None:
        body = {"role": "user", "content": "Meanwhile"}
        answers.append(client.post(f"/api/sessions/{session.pk}/messages/", body).status_code)
        connection.close()

    thread = threading.Thread(target=say)
    plain = sessions.load_messages

    def slowly(*arguments: Any) -> None:
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        plain(*arguments)

    monkeypatch.setattr(sessions, "load_messages", slowly)
    assert told(store) == []
    thread.join()
    assert answers == [201]
    assert list(session.messages.order_by("position").values_list("position", flat=True)) == [1, 2, 3, 4, 5]
    session.refresh_from_db()
    assert (session.last_position, session.message_count, session.tokens) == (5, 4, 12)


def test_clients_append_while_the_same_is_imported_again_and_again(store: bytes) -> None:
    session = Session.objects.get(title="Zoë's 👋")
    start = threading.Barrier(3)

    def say() -> None:
        start.wait(10)
        for _ in range(20):
            new_message(session)
        connection.close()

    threads = [threading.Thread(target=say) for _ in range(2)]
    for thread in threads:
        thread.start()
    start.wait(10)
    reports = [loaded(store) for _ in range(10)]
    for thread in threads:
        thread.join()
    assert not any(sum(report.added.values()) for report in reports)
    assert all(report.refused in (0, 1) for report in reports)
    assert loaded(store).refused == 1
    positions = list(session.messages.order_by("position").values_list("position", flat=True))
    assert positions == list(range(1, 45))
    session.refresh_from_db()
    assert (session.last_position, session.message_count) == (44, 43)


def test_two_at_once_make_one_store(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    seeded(*VOLUME)
    content = written()
    emptied()
    lines: list[str] = []
    added: list[int] = []
    start = threading.Barrier(2)

    def run() -> None:
        try:
            start.wait(10)
            report = loaded(content)
            lines.extend(report.told)  # type: ignore[attr-defined]
            added.append(report.added["message"])
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines == []
    assert sum(added) == 400
    assert written() == content


@pytest.mark.postgres
def test_an_export_is_of_one_moment(store: bytes) -> None:
    def write() -> None:
        for session in Session.objects.live():
            new_message(session)
        connection.close()

    with writing.snapshot():
        lines = writing.exported()
        first = next(lines)
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert first + b"".join(lines) == store
    assert written() != store


# The commands


def manage(*words: str, **options: Any) -> subprocess.Popen[bytes]:
    """A command in a process of its own, on the database of the tests."""
    environment = {**os.environ, "DATABASE_URL": own_database_url()}
    command = [sys.executable, "manage.py", *words]
    return subprocess.Popen(
        command, cwd=BASE_DIR, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_standard_output_and_input_take_a_store(store: bytes) -> None:
    out, err = manage("exportjsonl", "-").communicate()
    assert out == store
    assert err.decode() == f"Wrote {store.count(NEWLINE):,} lines.\n"
    emptied()
    out, err = manage("importjsonl", "-", stdin=subprocess.PIPE).communicate(store)
    assert out.startswith(b"Added 3 users")
    assert err == b""
    assert written() == store


def run(command: str, *arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command(command, *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize("name", ["store.jsonl", "store.jsonl.gz"])
def test_the_commands_move_a_store(store: bytes, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    run("exportjsonl", str(place))
    first = place.read_bytes()
    run("exportjsonl", str(place))
    assert place.read_bytes() == first
    assert (gzip.decompress(first) if name.endswith(".gz") else first) == store
    assert place.stat().st_mode & 0o777 == 0o600
    emptied()
    out, err = run("importjsonl", str(place))
    assert out.startswith(
        "Added 3 users, 1 creation, 4 workspaces, 5 memberships, 3 sessions, 5 messages, 1 turn in"
    )
    assert err == ""
    assert [path.name for path in tmp_path.iterdir()] == [name]
    out, _ = run("importjsonl", str(place))
    assert out.startswith("Added nothing in")


def test_a_store_is_written_with_debug_too(store: bytes, tmp_path: Path, settings: Settings) -> None:
    settings.DEBUG = True
    run("exportjsonl", str(tmp_path / "store.jsonl"))
    assert (tmp_path / "store.jsonl").read_bytes() == store


def test_an_export_that_fails_leaves_no_file(
    store: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "store.jsonl"
    place.write_bytes(b"before")
    monkeypatch.setattr(writing, "spelled", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("exportjsonl", str(place))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_an_error_is_told_with_its_line_and_ends_in_an_error(store: bytes, tmp_path: Path) -> None:
    place = tmp_path / "store.jsonl"
    place.write_bytes(changed(store, "message", content="other"))
    with pytest.raises(CommandError, match=r"^1 lines could not go in\.$"):
        run("importjsonl", str(place))
    emptied()
    place.write_bytes(store.replace(b'"role":"tool_call"', b'"role":"SECRET"'))
    with pytest.raises(CommandError, match="3 lines could not"):  # Two messages, and the session's counters.
        run("importjsonl", str(place))
    assert Message.objects.count() == 3


def test_strict_stops_at_the_first(store: bytes, tmp_path: Path) -> None:
    emptied()
    place = tmp_path / "store.jsonl"
    place.write_bytes(changed(store, "message", role="nobody"))
    with pytest.raises(CommandError, match="Stopped at this line"):
        run("importjsonl", str(place), "--strict")
    assert not Session.objects.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Line 1"),
        (b"{}\n", "Line 1"),
        (b'{"type":"session"}\n', "Line 1"),
        (b'{"counts":{},"format":1,"type":"store"}\n', "Line 1 counts user is missing"),
        (b"\x1f\x8b\x00", "Line 1"),
    ],
)
def test_what_is_no_store_is_not_read(tmp_path: Path, content: bytes, said: str) -> None:
    place = tmp_path / "store.jsonl"
    place.write_bytes(content)
    with pytest.raises(CommandError, match=said):
        run("importjsonl", str(place))


def test_another_format_is_not_read(store: bytes, tmp_path: Path) -> None:
    place = tmp_path / "store.jsonl"
    place.write_bytes(changed(store, "store", format=2))
    with pytest.raises(CommandError, match="format 1"):
        run("importjsonl", str(place))


@pytest.mark.parametrize("how", ["not-gzip", "cut-off", "missing"])
def test_a_file_that_cannot_be_read_is_said(store: bytes, tmp_path: Path, how: str) -> None:
    place = tmp_path / "store.jsonl.gz"
    if how != "missing":
        place.write_bytes(store if how == "not-gzip" else gzip.compress(store)[:-200])
    with pytest.raises(CommandError, match=r"^The file "):
        run("importjsonl", str(place))


def test_a_cut_off_file_is_noticed(store: bytes) -> None:
    emptied()
    cut = b"".join(store.splitlines(keepends=True)[:-1])
    last = cut.count(b"\n")
    assert told(cut)[0] == f"line {last}: is the end, after {last - 1:,} lines; line 1 says {last:,}"
