from __future__ import annotations

import threading
from collections import Counter

import pytest
from django.db import connection
from django.db.models import Count, Max

from accounts.models import User
from conftest import Caller, new_session
from conversations import services
from conversations.models import Message, Session
from conversations.seeding import loading, people, volume
from conversations.seeding.plans import PlannedMessage, PlannedPerson, PlannedSession
from conversations.tests.seeds import VOLUME, seeded, wrongly_counted

pytestmark = pytest.mark.django_db

# What loading promises


def test_a_loaded_session_is_as_if_it_had_been_appended(alice: Caller) -> None:
    seeded()
    loaded = Session.objects.get(title="Refund for a damaged parcel")
    appended = new_session(alice, title=loaded.title, agent=loaded.agent)
    for message in loaded.messages.order_by("position"):
        shown = {"role": message.role, "content": message.content, "tokens": message.tokens}
        links = {"tool_name": message.tool_name, "trace_id": message.trace_id, "span_id": message.span_id}
        services.append(appended, [{**shown, **links}])
    appended.refresh_from_db()
    own = {"id", "session_id", "session", "owner", "owner_public_id", "workspace", "created_at", "updated_at"}
    own |= {"last_activity", "idempotency_key", "idempotency_digest"}
    assert unlike(loaded, appended) <= own
    pairs = zip(*(session.messages.order_by("position") for session in (loaded, appended)), strict=True)
    assert all(unlike(*pair) <= own for pair in pairs)


def unlike(one: Session | Message, other: Session | Message) -> set[str]:
    return {f.name for f in one._meta.concrete_fields if getattr(one, f.attname) != getattr(other, f.attname)}


def test_appending_goes_on_after_what_was_loaded() -> None:
    seeded()
    session = Session.objects.get(title="Welcome Chat")
    message = services.append(session, [{"role": "user", "content": "And now?"}])[0][0]
    assert (message.position, message.version) == (3, 4)


def test_a_session_longer_than_a_piece_is_loaded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PIECE", 10)
    seeded("--users", "1", "--sessions", "1", "--messages", "37")
    assert Session.objects.get().message_count == 37
    assert wrongly_counted() == []


def test_a_run_that_was_stopped_is_finished_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PIECE", 50)
    wanted = volume.Volume(1, 7, 23, 400)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        volume.plant(wanted, stop)
    partly = Message.objects.count()
    assert 0 < partly < 400
    assert volume.plant(wanted, lambda _: None).messages == 400 - partly
    assert Message.objects.count() == 400
    assert wrongly_counted() == []


@pytest.mark.django_db(transaction=True)
def test_two_runs_at_once_make_one_set() -> None:
    added: list[loading.Added] = []

    def run() -> None:
        try:
            added.append(volume.plant(volume.Volume(1, 40, 60, 600), lambda _: None))
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.messages for one in added) == Message.objects.count() == 600
    assert sum(one.users for one in added) == User.objects.count() == 40
    assert len(added) == 3


def test_a_session_of_a_stranger_with_the_same_key_is_not_in_the_way(alice: Caller) -> None:
    session = new_session(alice)
    Session.objects.filter(pk=session.pk).update(idempotency_key="story:welcome")
    assert "4 sessions" in seeded()


def test_json_and_every_letter_arrive() -> None:
    person = PlannedPerson("test", "somebody", volume.START)
    people.ensure([person])
    text = "tab\there \\N \\. 'quoted' \"twice\" line\nfeed\r🎉 \x01 \u2028 end\\"
    said = [PlannedMessage("user", text, volume.START, metadata={"a": [1, None, {"b": "ü\\n"}]})]
    loading.load([PlannedSession("test", "somebody", "k", volume.START, 1, said, metadata={})], lambda _: None)
    message = Message.objects.get()
    assert message.content == text
    assert message.metadata == {"a": [1, None, {"b": "ü\\n"}]}
    assert message.session.metadata == {}


# Volume


def test_volume_makes_as_many_as_asked_for() -> None:
    assert seeded(*VOLUME).startswith("Added 7 users, 23 sessions, 400 messages in ")
    assert (User.objects.count(), Session.objects.count(), Message.objects.count()) == (7, 23, 400)


@pytest.mark.parametrize(
    ("options", "added"),
    [
        (("--messages", "45"), "1 users, 3 sessions, 45 messages"),
        (("--sessions", "11"), "2 users, 11 sessions, 220 messages"),
        (("--users", "2"), "2 users, 20 sessions, 400 messages"),
        (("--users", "2", "--messages", "0"), "2 users, 0 sessions, 0 messages"),
        (("--sessions", "5", "--messages", "2"), "1 users, 5 sessions, 2 messages"),
    ],
    ids=["messages", "sessions", "users", "people only", "empty sessions"],
)
def test_what_is_not_given_follows(options: tuple[str, ...], added: str) -> None:
    assert added in seeded(*options)


def test_every_trace_has_three_to_six_messages_of_one_session() -> None:
    seeded(*VOLUME)
    traces = Message.objects.exclude(trace_id=None).values("trace_id").order_by("trace_id")
    sizes = traces.annotate(n=Count("pk"), sessions=Count("session", distinct=True))
    assert {row["n"] for row in sizes} == {3, 4, 5, 6}
    assert {row["sessions"] for row in sizes} == {1}


def test_markers_have_a_tool_a_trace_and_a_span() -> None:
    seeded(*VOLUME)
    markers = Message.objects.filter(role="tool_call")
    assert markers.exists()
    for marker in markers:
        assert marker.content == f"Called {marker.tool_name}"
        assert (len(marker.trace_id or ""), len(marker.span_id or "")) == (32, 16)
    assert len(set(markers.values_list("span_id"))) == markers.count()


def test_sizes_and_shares_are_uneven() -> None:
    seeded("--sessions", "50")
    lengths = sorted(len(content) for content in Message.objects.values_list("content", flat=True))
    assert lengths[0] >= 1
    assert lengths[-1] > 8 * lengths[len(lengths) // 2]
    assert Session.objects.aggregate(Max("message_count"))["message_count__max"] > 60
    assert max(Counter(Session.objects.values_list("owner", flat=True)).values()) > 10


def test_times_never_go_back() -> None:
    seeded(*VOLUME)
    for session in Session.objects.prefetch_related("messages"):
        times = [m.created_at for m in sorted(session.messages.all(), key=lambda m: m.position)]
        assert [session.created_at, *times] == sorted([session.created_at, *times])


@pytest.mark.parametrize("total", [0, 1, 22, 23, 24, 1000], ids=str)
def test_shares_make_the_whole(total: int) -> None:
    given = list(volume.shares(total, 23, seed=1))
    assert sum(given) == total
    assert len(given) == 23
    assert min(given) >= (1 if total >= 23 else 0)
