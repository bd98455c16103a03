"""Assistants that fail, and what they say that cannot be stored as it is (contract 4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conftest import Caller
from conversations.models import Message, Session, Turn
from conversations.tests import chat_clients
from conversations.tests.chat_clients import rows, streamed, text_of, types
from conversations.tests.scripted import SECRET, fail, message, script, text, tool, tool_done

pytestmark = pytest.mark.django_db(transaction=True)

assistant = chat_clients.assistant


# Assistants that fail


FAILURES: dict[str, tuple[str, str, str]] = {
    "raises": ("Scripted", script(text("Some"), fail()), "Some"),
    "raises-at-once": ("Scripted", script(fail()), ""),
    "raises-where-it-is-asked": ("Refuses", "Hello", ""),
    "quits": ("Quits", "Hello", "Goodbye"),
    "yields-no-event": ("Babbles", "Hello", "Hello"),
    "text-that-is-none": ("Scripted", script(text("Some"), ("TextDelta", {"content": 5})), "Some"),
    "tokens-below-zero": ("Scripted", script(text("Some"), message(tokens=-1)), "Some"),
    "tokens-beyond-the-column": ("Scripted", script(text("Some"), message(tokens=2**31)), "Some"),
}
FAILING = pytest.mark.parametrize(("name", "said", "kept"), FAILURES.values(), ids=FAILURES.keys())


@FAILING
def test_an_assistant_that_fails_is_502(
    alice: Caller,
    assistant: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    name: str,
    said: str,
    kept: str,
) -> None:
    assistant(name)
    answer = alice.post("/api/chat", {"message": said})
    assert (answer.status_code, answer.json()["code"]) == (502, "assistant_failed")
    assert SECRET not in answer.content.decode() + caplog.text
    assert (Turn.objects.get().status, Turn.objects.get().finished_at is None) == ("failed", False)


@FAILING
def test_an_assistant_that_fails_ends_the_stream_with_one_error(
    alice: Caller, assistant: Callable[[str], None], name: str, said: str, kept: str
) -> None:
    assistant(name)
    events = streamed(alice, said)
    assert events[-1] == {"type": "error", "detail": "The assistant failed."}
    assert [event for event in types(events) if event in ("done", "error")] == ["error"]
    assert text_of(events) == kept
    question, *rest = rows(Session.objects.get())
    assert question == ("user", said, "complete")
    assert rest == ([("assistant", kept, "failed")] if kept else [])


def test_after_a_failure_the_conversation_goes_on(alice: Caller, session: Session) -> None:
    streamed(alice, script(text("Some"), fail()), session)
    assert types(streamed(alice, "Hello", session))[-1] == "done"


def test_the_same_key_of_a_failed_turn_fails_again(alice: Caller) -> None:
    answers = [alice.post("/api/chat", {"message": script(fail())}, Idempotency_Key="k") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [502, 502]
    assert Turn.objects.count() == 1


# Words that are odd


def test_an_assistant_may_say_nothing(alice: Caller) -> None:
    answer = alice.post("/api/chat", {"message": script()})
    assert (answer.status_code, answer.json()["assistant_message"]) == (200, None)
    assert types(streamed(alice, script(text(""), message()))) == ["done"]


UNSTORABLE = "a\x00b\ud800c"
STORED = "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_text_that_cannot_be_stored_is_mended(alice: Caller) -> None:
    assert text_of(streamed(alice, script(text(UNSTORABLE)))) == STORED
    assert Message.objects.get(role="assistant").content == STORED


def test_tools_whose_words_cannot_be_stored_are_mended(alice: Caller) -> None:
    events = streamed(alice, script(tool("a", UNSTORABLE), tool_done("a", UNSTORABLE)))
    assert [event.get("tool_name") for event in events[:2]] == [STORED, STORED]
    assert events[1]["result_summary"] == STORED
    assert events[-1]["operations"] == [{"tool_name": STORED, "status": "completed", "details": STORED}]


@pytest.mark.parametrize(("sent", "kept"), [(UNSTORABLE, STORED), ("t" * 300, "t" * 255)], ids=["nul", "long"])
@pytest.mark.parametrize("name", ["trace_id", "span_id"])
def test_traces_that_cannot_be_stored_are_mended(alice: Caller, name: str, sent: str, kept: str) -> None:
    events = streamed(alice, script(tool("a", **{name: sent}), tool_done("a", **{name: sent}), text("Hello")))
    assert types(events)[-1] == "done"
    assert Message.objects.filter(**{name: kept}).exists()


def test_a_name_of_a_tool_that_is_too_long_is_cut(alice: Caller) -> None:
    assert streamed(alice, script(tool("a", "n" * 300)))[0]["tool_name"] == "n" * 255


def test_a_very_long_text_is_kept(alice: Caller) -> None:
    events = streamed(alice, script(*[text("0123456789" * 20_000)] * 5))
    assert types(events)[-1] == "done"
    assert Message.objects.get(role="assistant").content == "0123456789" * 100_000


# Tools that are odd


def test_a_tool_that_does_not_come_to_an_end_is_interrupted(alice: Caller) -> None:
    done = streamed(alice, script(tool("a"), text("Well.")))[-1]
    assert done["operations"] == [{"tool_name": "search", "status": "interrupted", "details": ""}]
    assert rows(Session.objects.get())[1:] == [
        ("tool_call", "Called search", "interrupted"),
        ("assistant", "Well.", "complete"),
    ]


def test_a_tool_ends_once_and_only_if_it_began(alice: Caller) -> None:
    events = streamed(alice, script(tool_done("b"), tool("a"), tool_done("a", "1"), tool_done("a", "2")))
    assert types(events) == ["tool_call_started", "tool_call_completed", "done"]
    assert events[-1]["operations"] == [{"tool_name": "search", "status": "completed", "details": "1"}]


def test_two_tools_with_one_call_id_are_both_closed(alice: Caller) -> None:
    events = streamed(alice, script(tool("a"), tool("a"), tool_done("a")))
    assert types(events) == ["tool_call_started", "tool_call_started", "tool_call_completed", "done"]
    assert not Message.objects.filter(status="streaming").exists()
