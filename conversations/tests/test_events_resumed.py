"""Live events look by look (contract 5): what is told of a session that others write, to whoever was there all
the time, comes back, or was cut off anywhere. The turns here run in another worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiToken
from conftest import Caller, new_message, new_session
from conversations import services
from conversations.chat import records
from conversations.chat.events import SLICE, Events, place_of
from conversations.chat.feed import Watcher, look
from conversations.models import Message, Session, Turn
from conversations.tests.turns import begin, expire, mark, running, say, status

pytestmark = [pytest.mark.waits, pytest.mark.django_db(transaction=True)]

Event = dict[str, Any]


class Page:
    """Somebody who watches: from now on, or from after the event with this id."""

    def __init__(self, person: Caller, session: Session, last_event_id: str = "") -> None:
        credential = ApiToken.objects.get(user=person.user)
        self.watcher = Watcher(session.pk, person.user.pk, credential, None)
        self.events = Events(session, self.watcher, place_of(last_event_id))

    def look(self) -> list[Event]:
        """What the feed's next look brings."""
        look([self.watcher])
        return self.read()

    def read(self) -> list[Event]:
        self.watcher.woken.clear()
        connection.close()  # What the test has opened.
        return [parsed(frame) for frame in self.events.news()]


def parsed(frame: bytes) -> Event:
    assert connection.connection is None, "A connection is held while something is sent."
    fields = dict(line.split(": ", 1) for line in frame.decode().rstrip("\n").split("\n"))
    event = json.loads(fields["data"])
    assert event["type"] == fields["event"]
    return {**event, "event_id": fields["id"]}


def told(events: Iterable[Event], *types: str) -> list[tuple[str, Any]]:
    """The events of these types, each with what it is about."""
    return [(e["type"], about(e)) for e in events if e["type"].startswith(types)]


def about(event: Event) -> Any:
    """The id of a message, the status of a turn."""
    return event["status"] if event["type"] == "done" else event.get("message_id", event.get("id"))


def version(session: Session) -> str:
    return str(Session.objects.get(pk=session.pk).version)


def edit(message: Message, content: str = "Edited") -> None:
    services.change_message(message, {"content": content})


def complete(turn: Turn, message: Message, **fields: Any) -> None:
    records.complete_row(turn, message, **fields)


def end(turn: Turn, how: str = "complete") -> None:
    records.finish(turn, how, {}, None)


# What is new


def test_a_message_that_changed_before_it_was_sent_is_new(alice: Caller, session: Session) -> None:
    known = new_message(session, "Known")
    place = version(session)
    first, second = new_message(session, "A"), new_message(session, "B")
    edit(first)
    edit(known)
    events = Page(alice, session, place).look()
    assert told(events, "message") == [
        ("message_created", second.pk),
        ("message_created", first.pk),
        ("message_created", known.pk),  # Nobody knows any more at which version it was made.
    ]


def test_a_message_that_was_there_is_updated(alice: Caller, session: Session) -> None:
    known, _ = new_message(session, "Known"), new_message(session, "Highest")
    place = version(session)
    edit(known)
    assert told(Page(alice, session, place).look(), "message") == [("message_updated", known.pk)]


def test_of_parallel_tools_none_is_left_out(alice: Caller, session: Session) -> None:
    turn = begin(session)
    page = Page(alice, session)
    page.read()
    one, two = mark(turn), mark(turn)
    complete(turn, one)
    assert told(page.look(), "tool") == [
        ("tool_call_started", two.pk),
        ("tool_call_started", one.pk),
        ("tool_call_completed", one.pk),
    ]
    complete(turn, two)
    assert told(page.look(), "tool") == [("tool_call_completed", two.pk)]


# Whoever is cut off


def story(session: Session) -> Iterator[None]:
    """Two turns with tools, a third, and what others do meanwhile; a step at a time."""
    hello = new_message(session, "Before")
    first = begin(session)
    yield
    one, two = mark(first), mark(first)
    yield
    complete(first, two)
    complete(first, one)
    yield
    reply = say(first)
    yield
    services.append(session, [{"role": "user", "content": text} for text in "abc"])
    records.save_texts([running(first, reply, "Well, well")])
    yield
    complete(first, reply, content="Well, well.")
    yield
    end(first)
    yield
    services.change_session(session, {"title": "Renamed"})
    yield
    second = begin(session)
    mark(second)
    say(second)
    yield
    end(second, "failed")
    edit(hello)
    yield
    third = begin(session)
    one, two = mark(third), mark(third)
    yield
    complete(third, one)
    yield
    end(third, "interrupted")
    yield
    new_message(session, "After")


def essence(events: Iterable[Event]) -> set[tuple[Any, ...]]:
    """What nobody may miss: what is new, the last state of everything, each step of a tool, each turn's end."""
    found: set[tuple[Any, ...]] = set()
    last: dict[Any, int] = {}
    for event in events:
        if event["type"] == "done":
            found.add(("done", event["status"], json.dumps(event["operations"])))
        elif event["type"].startswith(("tool", "message_created")):
            found.add((event["type"], about(event)))
        if "version" in event:
            key = (event["type"].partition("_")[0], event["id"])
            last[key] = max(last.get(key, 0), event["version"])
    return found | {(*key, highest) for key, highest in last.items()}


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 100])
def test_whoever_is_cut_off_anywhere_misses_nothing(alice: Caller, session: Session, steps: int) -> None:
    """Somebody looks after each of so many steps. After every event they might have been cut off, to come back
    at the end."""
    start = version(session)
    page = Page(alice, session, start)
    events = page.read()
    for number, _ in enumerate(story(session), 1):
        events += page.look() if number % steps == 0 else []
    events += page.look()
    ids = [start, *(event["event_id"] for event in events)]
    assert [status for _, status in told(events, "done")] == ["complete", "failed", "interrupted"]
    assert len(set(told(events, "tool"))) == 8
    missed = {
        number: essence(events) - essence([*events[:number], *Page(alice, session, place).look()])
        for number, place in enumerate(ids)
    }
    assert not any(missed.values()), {number: what for number, what in missed.items() if what}


def test_twice_cut_off_it_is_still_new(alice: Caller, session: Session) -> None:
    """The second of two messages came before the first, which had been changed."""
    place = version(session)
    first, second = new_message(session, "A"), new_message(session, "B")
    edit(first)
    seen = Page(alice, session, place).look()[0]
    events = Page(alice, session, seen["event_id"]).look()
    assert told([seen], "message") == [("message_created", second.pk)]
    assert ("message_created", first.pk) in told(events, "message")


@pytest.mark.parametrize("last_event_id", ["0", "999999", "999999:3"])
def test_an_id_of_another_database_brings_everything(alice: Caller, session: Session, last_event_id: str) -> None:
    for _ in story(session):
        pass
    events = Page(alice, session, last_event_id).look()
    rows = Message.objects.filter(session=session).order_by("version", "position")
    assert told(events, "message") == [("message_created", pk) for pk in rows.values_list("pk", flat=True)]
    assert [status for _, status in told(events, "done")] == ["complete", "failed", "interrupted"]


# The ends of turns


def test_turns_that_end_within_one_look_are_each_told(alice: Caller, session: Session) -> None:
    page = Page(alice, session)
    page.read()
    first = begin(session)
    reply = say(first)
    complete(first, reply, content="Well")
    end(first)
    second = begin(session)
    end(second, "failed")
    third = begin(session)
    asked = dict(Message.objects.filter(session=session).values_list("position", "pk"))
    assert told(page.look(), "message", "done") == [
        ("message_created", asked[first.question]),
        ("message_created", reply.pk),
        ("done", "complete"),
        ("message_created", asked[second.question]),
        ("done", "failed"),
        ("message_created", asked[third.question]),
    ]
    end(third)
    assert told(page.look(), "done") == [("done", "complete")]


def rename(turn: Turn) -> None:
    services.change_session(turn.session, {"title": "Renamed"})


def append(turn: Turn) -> None:
    new_message(turn.session, "From elsewhere")


@pytest.mark.parametrize("meanwhile", [rename, append])
def test_an_end_is_told_to_whoever_comes_back(
    alice: Caller, session: Session, meanwhile: Callable[[Turn], None]
) -> None:
    """What others do comes between the last row and the end, whose own version is none."""
    turn = begin(session)
    complete(turn, say(turn), content="Well")
    meanwhile(turn)
    seen = Page(alice, session, "0").look()[-1]
    end(turn)
    assert told(Page(alice, session, seen["event_id"]).look(), "done") == [("done", "complete")]


def test_an_end_is_not_told_again_once_the_next_turn_is_known(alice: Caller, session: Session) -> None:
    """It would be taken for the end of the turn that runs."""
    end(begin(session))
    begin(session)
    assert told(Page(alice, session, version(session)).look(), "done") == []


def test_who_watches_from_now_on_hears_of_no_earlier_end(alice: Caller, session: Session) -> None:
    end(begin(session))
    assert Page(alice, session).look() == []


def test_an_end_comes_after_its_rows(alice: Caller, session: Session) -> None:
    """The turn ends while somebody looks, between their query for rows and the one for turns."""
    turn = begin(session)
    page = Page(alice, session)
    reply = say(turn)
    to_do: list[Callable[[], object]] = [lambda: complete(turn, reply, content="Well"), lambda: end(turn)]

    def between(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if 'FROM "conversations_turn"' in sql:
            now, to_do[:] = to_do[:], []  # These read turns, too.
            for each in now:
                each()
        return execute(sql, *args)

    look([page.watcher])
    with connection.execute_wrapper(between):
        events = page.read()
    assert not to_do
    assert told(events, "message", "done") == [("message_created", reply.pk)]
    assert told(page.look(), "message", "done") == [("message_updated", reply.pk), ("done", "complete")]


def test_a_late_lease_is_no_end(alice: Caller, session: Session) -> None:
    turn = begin(session)
    page = Page(alice, session)
    expire(turn)
    assert told(page.look(), "done") == []
    complete(turn, say(turn), content="Well")
    end(turn)
    assert told(page.look(), "done") == [("done", "complete")]


def test_a_lost_turn_ends_when_it_is_settled(alice: Caller, session: Session) -> None:
    turn = begin(session)
    page = Page(alice, session)
    expire(turn)
    page.look()
    records.settle()
    assert status(turn) == "interrupted"
    assert told(page.look(), "done") == [("done", "interrupted")]


# How much is read


def test_a_long_absence_is_read_in_slices(alice: Caller, session: Session) -> None:
    first = new_message(session, "First")
    for _ in range(4):
        services.append(session, [{"role": "user", "content": "Hello"}] * (SLICE - 100))
    edit(first)
    with CaptureQueriesContext(connection) as queries:
        events = Page(alice, session, "1").look()
    rows = Message.objects.filter(session=session).order_by("version", "position")
    assert told(events, "message") == [("message_created", pk) for pk in rows.values_list("pk", flat=True)]
    slices = [each["sql"] for each in queries if f"LIMIT {SLICE + 1}" in each["sql"]]
    assert len(slices) == 4


def test_no_further_slice_for_whoever_may_not_watch_any_more(alice: Caller, session: Session) -> None:
    for _ in range(2):
        services.append(session, [{"role": "user", "content": "Hello"}] * SLICE)
    page = Page(alice, session, "1")
    frames = page.events.news()
    next(frames)
    page.watcher.wake(ended=True)
    assert len(list(frames)) == SLICE - 1


def test_an_id_is_never_ahead_of_what_was_sent(alice: Caller, session: Session) -> None:
    for _ in range(3):
        services.append(session, [{"role": "user", "content": "Hello"}] * (SLICE - 100))
    versions = list(Message.objects.filter(session=session).values_list("version", flat=True))
    events = [event for event in Page(alice, session, "1").look() if event["type"] == "message_created"]
    for number, event in enumerate(events, 1):
        due = len([each for each in versions if each <= int(event["event_id"])])
        assert due <= number
    assert events[-1]["event_id"] == version(session)


Counted = Callable[[int], AbstractContextManager[Any]]
SEATS = TURNS = TOKENS = TEXTS = 1


@pytest.mark.parametrize("watchers", [1, 20])
def test_a_look_costs_the_same_for_any_number(
    alice: Caller, django_assert_num_queries: Counted, watchers: int
) -> None:
    """Each watches a reply of its own that another worker writes. While it does not grow, nobody is woken; when it
    does, nobody asks the database for it."""
    sessions = [new_session(alice) for _ in range(watchers)]
    turns = [begin(session) for session in sessions]
    rows = [say(turn, "Well") for turn in turns]
    pages = [Page(alice, session) for session in sessions]
    for page in pages:
        assert told(page.look(), "text_delta")
    watching = [page.watcher for page in pages]
    with django_assert_num_queries(SEATS + TURNS + TOKENS + TEXTS):
        look(watching)
    assert not any(watcher.woken.is_set() for watcher in watching)
    records.save_texts([running(turn, row, "Well, well") for turn, row in zip(turns, rows, strict=True)])
    with django_assert_num_queries(SEATS + TURNS + TOKENS + TEXTS):
        look(watching)
        assert all(watcher.woken.is_set() for watcher in watching)
        assert [[e["content"] for e in page.read()] for page in pages] == [[", well"]] * watchers


def test_of_two_who_read_the_same_text_only_the_one_behind_is_woken(alice: Caller, session: Session) -> None:
    turn = begin(session)
    reply = say(turn, "Well")
    early = Page(alice, session)
    early.look()
    records.save_texts([running(turn, reply, "Well, well")])
    late = Page(alice, session)
    late.look()
    look([early.watcher, late.watcher])
    assert not late.watcher.woken.is_set()
    assert [event["content"] for event in early.read()] == [", well"]
