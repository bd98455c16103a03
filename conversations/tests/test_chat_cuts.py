"""A client that goes away changes nothing, and a lost worker leaves the truth (promise 6; contract 4)."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

import pytest
from django.db import connection

from chatstore.tests.serving import fetch, own_database_url, serving
from conftest import Caller, new_session
from conversations.models import Message, Session, Turn
from conversations.tests.chat_clients import Stream, text_of, types, wait_until
from conversations.tests.scripted import SCRIPTED, Step, flood, paced, pause, script, text, tool, tool_done
from conversations.tests.turns import is_exact

pytestmark = [pytest.mark.waits, pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


def story(parts: int) -> list[Step]:
    """Four events a part: two pieces of text and a tool call."""
    return [
        step
        for number in range(parts)
        for step in (text(f"{number}a "), text(f"{number}b "), tool(f"{number}"), tool_done(f"{number}", "3 rows"))
    ]


def told(parts: int) -> str:
    return "".join(f"{number}a {number}b " for number in range(parts))


STORY = story(10)
AT_ONCE = 20


@contextmanager
def chat_server(**environment: str) -> Iterator[int]:
    chosen = {"ASSISTANT": SCRIPTED, "LOG_LEVEL": "INFO", "LOG_SQL": "false", **environment}
    with serving(own_database_url(), **chosen) as port:
        yield port


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[int]:
    """One of two workers, for all tests that leave it alive."""
    with chat_server(WEB_WORKERS="2") as port:
        yield port


def nothing_runs() -> bool:
    return not Turn.objects.running().exists()


def statuses() -> Counter[str]:
    return Counter(Turn.objects.values_list("status", flat=True))


def stored_text(session: Session) -> str:
    rows = Message.objects.filter(session=session, role="assistant").order_by("position")
    return "".join(rows.values_list("content", flat=True))


def markers(session: Session) -> Counter[str]:
    return Counter(Message.objects.filter(session=session, role="tool_call").values_list("status", flat=True))


# Clients that leave


def stall(stream: Stream) -> None:
    """The client keeps the stream open and reads no more."""


WAYS: dict[str, Callable[[Stream], None]] = {"closes": Stream.close, "resets": Stream.reset, "stalls": stall}


@pytest.mark.parametrize("leave", WAYS.values(), ids=WAYS.keys())
def test_a_client_that_leaves_after_any_event_changes_nothing(
    alice: Caller, server: int, leave: Callable[[Stream], None]
) -> None:
    sessions = [new_session(alice) for _ in STORY]

    def watch(number: int) -> Stream:
        body = {"message": paced(STORY, 0.02), "conversation_id": sessions[number].pk}
        stream = Stream(server, alice, body, buffer=1024)
        events = (event for event in stream.events if event["type"] != "message_created")
        assert len(list(islice(events, number + 1))) == number + 1
        leave(stream)
        return stream

    with ThreadPoolExecutor(AT_ONCE) as pool:
        streams = list(pool.map(watch, range(len(STORY))))
    wait_until(nothing_runs, 30)
    for stream in streams:
        stream.close()
    assert statuses() == {"complete": 40}
    assert {stored_text(session) for session in sessions} == {told(10)}
    assert all(markers(session) == {"complete": 10} for session in sessions)
    assert all(map(is_exact, sessions))


def test_a_client_that_does_not_read_does_not_hold_up_its_turn(alice: Caller, server: int) -> None:
    """It is sent more than the buffers between hold, so that the server's writes block."""
    piece = "All work and no play. " * 5_000
    session = new_session(alice)
    body = {"message": script(flood(piece, 80)), "conversation_id": session.pk}
    stream = Stream(server, alice, body, buffer=1024)
    wait_until(nothing_runs, 30)
    stream.reset()
    assert statuses() == {"complete": 1}
    assert stored_text(session) == piece * 80


# Workers that are lost


def worker_pid() -> int:
    """The process of the running turns, as they name it themselves."""
    (worker,) = set(Turn.objects.running().values_list("worker", flat=True))
    return int(worker.split(":")[1])


def test_a_killed_worker_leaves_what_had_been_said_a_second_before(alice: Caller) -> None:
    """Ten streams, each four events further than the next, and four that are in the middle of long texts."""
    stories = [new_session(alice) for _ in range(10)]
    long = [new_session(alice) for _ in range(4)]
    scripts = {session.pk: paced(story(20), 0.05) for session in stories}
    scripts |= {session.pk: paced([text(f"{n} ") for n in range(500)], 0.02) for session in long}
    with chat_server() as port, ThreadPoolExecutor(14) as pool:
        streams = []
        for session in [*long, *stories]:
            body = {"message": scripts[session.pk], "conversation_id": session.pk}
            streams.append(Stream(port, alice, body))
            pool.submit(streams[-1].until_lost)
            time.sleep(0.2)
        wait_until(lambda: len(streams[-1].seen) >= 4, 30)
        assert statuses() == {"running": 14}
        killed_at = time.monotonic()
        os.kill(worker_pid(), signal.SIGKILL)
        wait_until(nothing_runs, 30)
        for session, stream in zip([*long, *stories], streams, strict=True):
            is_the_truth(session, scripts[session.pk], stream, killed_at)
        answers = [Stream(port, alice, {"message": "Hello", "conversation_id": s.pk}).rest() for s in stories]
    assert len({len(stream.seen) for stream in streams}) > 7
    assert {events[-1]["type"] for events in answers} == {"done"}
    assert statuses() == {"interrupted": 14, "complete": 10}
    assert all(map(is_exact, [*long, *stories]))


def is_the_truth(session: Session, said: str, stream: Stream, killed_at: float) -> None:
    first, *rest = Message.objects.filter(session=session).order_by("position")
    assert (first.role, first.content, first.status) == ("user", said, "complete")
    stored, produced = stored_text(session), produced_by(said)
    assert produced.startswith(stored)
    assert stored.startswith(stream.seen_before(killed_at - 1))
    assert {row.status for row in rest} <= {"complete", "interrupted"}
    assert [row.status for row in rest].count("interrupted") <= 1
    assert stream.seen[-1]["type"] not in ("done", "error")


def produced_by(said: str) -> str:
    return told(20) if "ToolCallStarted" in said else "".join(f"{n} " for n in range(500))


def test_a_shutdown_finishes_what_it_can_and_marks_the_rest(alice: Caller) -> None:
    """Fifty streams are open. Half of the replies would be complete in five seconds, half in half a minute."""
    short = [new_session(alice) for _ in range(25)]
    long = [new_session(alice) for _ in range(25)]
    scripts = {session.pk: paced(story(30), 0.25) for session in long}
    scripts |= {session.pk: paced([text(f"{n} ") for n in range(10)], 0.5) for session in short}
    with ThreadPoolExecutor(50) as pool:
        with chat_server() as port:
            bodies = [{"message": said, "conversation_id": pk} for pk, said in scripts.items()]
            streams = list(pool.map(lambda body: Stream(port, alice, body), bodies))
            for stream in streams:
                pool.submit(stream.until_lost)
            wait_until(lambda: all(stream.seen for stream in streams), 30)
            assert statuses() == {"running": 50}
            ended_at = time.monotonic()
        assert time.monotonic() - ended_at < 30
    assert statuses() == {"complete": 25, "interrupted": 25}
    assert not Message.objects.filter(status="streaming").exists()
    assert Counter(stream.seen[-1]["type"] for stream in streams) == {"done": 25, "error": 25}
    assert [stored_text(session) for session in [*long, *short]] == [text_of(stream.seen) for stream in streams]
    assert all(map(is_exact, [*short, *long]))


# Connections


def test_a_client_that_does_not_read_loses_its_place_and_others_keep_theirs(alice: Caller) -> None:
    """There are two places, one for whoever does not read and one for whoever waits a while for each word."""
    piece, slow = (
        "All work and no play. " * 5_000,
        [text("One "), pause(2.5), text("two "), pause(2.5), text("three")],
    )
    places = {"WEB_THREADS": "4", "STREAM_SHARE": "0.5"}
    with chat_server(ASSISTANT="conversations.tests.scripted_impatient.Scripted", **places) as port:
        stalled = Stream(port, alice, {"message": script(flood(piece, 80))}, buffer=1024)
        patient = Stream(port, alice, {"message": script(*slow)})
        third = Stream(port, alice, {"message": "Hello"})
        assert third.answer.status == 503
        third.close()
        assert text_of(patient.rest()) == "One two three"
        assert types(patient.seen)[-1] == "done"
        others = [Stream(port, alice, {"message": "Hello"}) for _ in range(2)]
        assert [text_of(other.rest()) for other in others] == ["Hello", "Hello"]
        stalled.close()
    assert statuses() == {"complete": 4}


def states(service: str) -> Counter[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT state FROM pg_stat_activity WHERE application_name = %s", [service])
        return Counter(state for (state,) in cursor.fetchall())


def test_forty_replies_at_once_need_no_more_than_four_connections(alice: Caller) -> None:
    """No connection is held while the assistants are silent: other requests find one at once."""
    said = script(text("One "), tool("1"), pause(5), tool_done("1"), text("two"))
    headers = {"Authorization": f"Bearer {alice.token}", "Content_Type": "application/json"}
    with ThreadPoolExecutor(40) as pool, chat_server(DB_POOL_MAX="4", SERVICE_NAME="four") as port:
        streams = list(pool.map(lambda _: Stream(port, alice, {"message": said}), range(30)))
        sent = json.dumps({"message": script(text("One "), pause(4), text("two"))})
        waiting = [pool.submit(fetch, port, "POST", "/api/chat", sent, **headers) for _ in range(10)]
        wait_until(lambda: Message.objects.filter(role__in=["tool_call", "assistant"]).count() == 30 + 40, 30)
        seen = []
        for _ in range(10):
            seen.append(states("four"))
            time.sleep(0.05)
        jobs = [pool.submit(fetch, port, "GET", "/api/conversations", **headers) for _ in range(40)]
        plain = [job.result()[0].status for job in jobs]
        assert statuses() == {"running": 40}
        ends = list(pool.map(Stream.rest, streams))
    assert {each.total() for each in seen} <= {1, 2, 3, 4}
    assert min(each.total() - each["idle"] for each in seen) == 0
    assert not any(each["idle in transaction"] for each in seen[-3:])
    assert plain == [200] * 40
    assert [job.result()[0].status for job in waiting] == [200] * 10
    assert {types(events)[-1] for events in ends} == {"done"}
    assert statuses() == {"complete": 40}
