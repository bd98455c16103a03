"""The real OpenAI Agents SDK, offline, against a model server of our own (protocols 4)."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from chatstore.environment import BASE_DIR
from chatstore.tests.credentials import COLLECTED
from chatstore.tests.serving import fetch, own_database_url, serving
from conftest import Caller
from conversations.chat.assistants import (
    Asked,
    Event,
    MessageCreated,
    Said,
    TextDelta,
    ToolCallCompleted,
    ToolCallStarted,
)
from conversations.tests.chat_clients import Stream, text_of, types, wait_until
from conversations.tests.openai_server import ANSWER, PREFACE, ModelServer, model_serving

pytest.importorskip("agents", reason="needs requirements-openai-agents.txt")

from agents import (
    Agent,
    FunctionSpanData,
    GenerationSpanData,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    ResponseSpanData,
    Span,
    Trace,
    TracingProcessor,
    add_trace_processor,
    function_tool,
    set_trace_processors,
    set_tracing_disabled,
)
from openai import APIStatusError, AsyncOpenAI

from conversations.chat.openai_agents import NeedsApproval, OpenAIAgents

pytestmark = [pytest.mark.waits, pytest.mark.postgres]

HERE = "conversations.tests.test_openai_agents"
ASSISTANT = "conversations.chat.openai_agents.OpenAIAgents"
KEY = "sk-Quagmire-7431-Xylophone"
LOOK = "What is in our database?"
MEETING = threading.Barrier(2)


@function_tool
def search_database(query: str) -> str:
    if "meet" in query:
        MEETING.wait(10)
    return f"Found 3 results for {query}" + "!" * (300 if "long" in query else 0)


@function_tool(needs_approval=True)
def drop_database() -> str:
    return "Gone"


def named() -> Agent:
    """Its model is only named: the assistant makes the client."""
    return Agent(name="Librarian", instructions="Be brief.", model="fake-1", tools=[search_database])


def responses() -> Agent:
    model = OpenAIResponsesModel("fake-1", AsyncOpenAI())
    return Agent(name="Librarian", model=model, tools=[search_database])


def completions() -> Agent:
    model = OpenAIChatCompletionsModel("fake-1", AsyncOpenAI())
    return Agent(name="Librarian", model=model, tools=[search_database])


def careful() -> Agent:
    return Agent(name="Librarian", model="fake-1", tools=[drop_database])


def terse() -> Agent:
    """What its tool gives is its answer."""
    tools: list[Any] = [search_database]
    return Agent(name="Librarian", model="fake-1", tools=tools, tool_use_behavior="stop_on_first_tool")


def no_agent() -> str:
    return "no agent"


class Spans(TracingProcessor):
    """An operator's own processor: every span that has ended, by its id."""

    def __init__(self) -> None:
        self.ended: dict[str, Span[Any]] = {}

    def on_span_end(self, span: Span[Any]) -> None:
        self.ended[span.span_id] = span

    def on_span_start(self, span: Span[Any]) -> None: ...
    def on_trace_start(self, trace: Trace) -> None: ...
    def on_trace_end(self, trace: Trace) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with model_serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        COLLECTED.credentials.add(KEY)
        yield server


@pytest.fixture
def spans() -> Iterator[Spans]:
    add_trace_processor(spans := Spans())
    yield spans
    set_trace_processors([])


def assistant(settings: Settings, factory: str) -> OpenAIAgents:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"openai_agent": f"{HERE}.{factory}"})
    return OpenAIAgents()


def asked(question: str, *before: Said) -> Asked:
    return Asked("3f2b8c1e-0000-7000-8000-000000000001", [*before, Said("user", question)])


def reply(assistant: OpenAIAgents, question: str, *before: Said) -> list[Event]:
    """What it says, but for the empty texts that only ask whether it should go on."""
    return [event for event in assistant.reply(asked(question, *before)) if event != pulse(event)]


def pulse(event: Event) -> Event:
    return TextDelta("", event.trace_id)


def said(events: list[Event]) -> str:
    return "".join(event.content for event in events if isinstance(event, TextDelta))


def until_text(running: Iterator[Event]) -> TextDelta:
    """The first event that says something."""
    return next(event for event in running if isinstance(event, TextDelta) and event.content)


def kinds(events: list[Event]) -> list[type[Event]]:
    """Without repetitions in a row."""
    found = [type(event) for event in events]
    return [kind for kind, before in zip(found, [None, *found], strict=False) if kind != before]


def one(events: list[Event], kind: type[Any]) -> Any:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def held() -> tuple[int, int]:
    """Open files and threads of this process."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


FACTORIES = pytest.mark.parametrize("factory", ["named", "responses", "completions"])


@FACTORIES
def test_it_works(factory: str, server: ModelServer, settings: Settings) -> None:
    events = reply(assistant(settings, factory), LOOK)
    assert kinds(events) == [ToolCallStarted, ToolCallCompleted, TextDelta, MessageCreated]
    assert said(events) == ANSWER
    assert one(events, ToolCallStarted).tool_name == "search_database"
    assert one(events, ToolCallCompleted).summary == f"Found 3 results for {LOOK}"
    assert one(events, MessageCreated).tokens == 7
    (trace_id,) = {event.trace_id for event in events}
    assert str(trace_id).startswith("trace_")
    assert len(server.heard) == 2
    assert {heard.key for heard in server.heard} == {KEY}


@FACTORIES
def test_a_turn_without_tools_is_one_message(factory: str, server: ModelServer, settings: Settings) -> None:
    events = reply(assistant(settings, factory), "Hello!")
    assert kinds(events) == [TextDelta, MessageCreated]
    assert said(events) == ANSWER
    assert len(events) == 5  # Four words.


@FACTORIES
def test_text_before_a_tool_call_is_a_message_of_its_own(
    factory: str, server: ModelServer, settings: Settings
) -> None:
    events = reply(assistant(settings, factory), f"{LOOK} With a preface")
    assert kinds(events) == [
        TextDelta,
        MessageCreated,
        ToolCallStarted,
        ToolCallCompleted,
        TextDelta,
        MessageCreated,
    ]
    assert said(events) == PREFACE + ANSWER
    messages = [event for event in events if isinstance(event, MessageCreated)]
    assert [event.tokens for event in messages] == [5, 7]
    assert len({event.span_id for event in messages}) == 2


@FACTORIES
def test_spans_are_the_ones_that_an_operator_traces(
    factory: str, server: ModelServer, settings: Settings, spans: Spans
) -> None:
    events = reply(assistant(settings, factory), LOOK)
    started, completed, message = (
        one(events, kind) for kind in (ToolCallStarted, ToolCallCompleted, MessageCreated)
    )
    assert started.span_id == completed.span_id
    assert isinstance(spans.ended[started.span_id].span_data, FunctionSpanData)
    answered = spans.ended[message.span_id]
    assert isinstance(answered.span_data, ResponseSpanData | GenerationSpanData)
    calls_of_models = [
        span for span in spans.ended.values() if isinstance(span.span_data, type(answered.span_data))
    ]
    assert answered is calls_of_models[-1]
    assert answered.trace_id == message.trace_id
    assert "_" in str(answered.trace_id)


def test_two_turns_at_once_keep_their_ids_apart(server: ModelServer, settings: Settings, spans: Spans) -> None:
    both = assistant(settings, "named")
    questions = [f"Who will meet {name} in the database?" for name in ("alice", "bob")]
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda question: reply(both, question), questions))
    traces = [{event.trace_id for event in events} for events in replies]
    assert all(len(found) == 1 for found in traces)
    assert traces[0] != traces[1]
    for question, events in zip(questions, replies, strict=True):
        assert one(events, ToolCallCompleted).summary == f"Found 3 results for {question}"
        for event in (one(events, ToolCallCompleted), one(events, MessageCreated)):
            assert spans.ended[event.span_id].trace_id == event.trace_id


@FACTORIES
def test_the_model_is_sent_the_history(factory: str, server: ModelServer, settings: Settings) -> None:
    before = [Said("user", "Hello!"), Said("assistant", "Hi, Alice."), Said("assistant", "")]
    reply(assistant(settings, factory), "And now?", *before)
    expected = [("user", "Hello!"), ("assistant", "Hi, Alice."), ("user", "And now?")]
    assert server.heard[0].said == expected


def test_a_system_message_stays_one(server: ModelServer, settings: Settings) -> None:
    reply(assistant(settings, "named"), "Hello!", Said("system", "Speak Latin."))
    assert {"role": "system", "content": "Speak Latin."} in server.heard[0].body["input"]


@pytest.mark.parametrize("status", [401, 500])
@FACTORIES
def test_a_refusal_of_the_model_server_is_raised_and_no_key_is_logged(
    factory: str, status: int, server: ModelServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(APIStatusError) as raised:
        reply(assistant(settings, factory), f"Please answer with status {status}, Zanzibar")
    assert raised.value.status_code == status
    assert KEY in str(raised.value)  # So it could have been.
    assert "openai" in caplog.text
    assert KEY not in caplog.text
    assert "Zanzibar" not in caplog.text
    assert server.url not in caplog.text


@FACTORIES
def test_closing_a_reply_ends_the_request_to_the_model(
    factory: str, server: ModelServer, settings: Settings
) -> None:
    running = assistant(settings, factory).reply(asked("Be silent."))
    assert until_text(running).content == "I "
    began = time.monotonic()
    running.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 1
    assert server.hung_up.wait(5)


def test_a_reply_that_waits_for_its_model_tells_nothing_now_and_then(
    server: ModelServer, settings: Settings
) -> None:
    running = assistant(settings, "named").reply(asked("Be silent."))
    first = until_text(running)
    assert list(islice(running, 2)) == [pulse(first), pulse(first)]
    running.close()  # type: ignore[attr-defined]


@FACTORIES
def test_a_turn_leaves_nothing_behind(factory: str, server: ModelServer, settings: Settings) -> None:
    several = assistant(settings, factory)
    reply(several, LOOK)
    wait_until(lambda: not server.connections)
    before = held()
    for question in [LOOK, "Hello!"] * 3:
        reply(several, question)
    closed = several.reply(asked("Be silent."))
    next(closed)
    closed.close()  # type: ignore[attr-defined]
    wait_until(lambda: not server.connections)
    gc.collect()  # What was not closed warns here, and a warning is an error.
    wait_until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


def test_a_long_output_of_a_tool_is_cut(server: ModelServer, settings: Settings) -> None:
    summary = one(reply(assistant(settings, "named"), "A long database"), ToolCallCompleted).summary
    assert len(summary) == 200
    assert summary.endswith("!…")


def test_what_a_tool_gives_may_be_the_answer(server: ModelServer, settings: Settings) -> None:
    events = reply(assistant(settings, "terse"), LOOK)
    assert kinds(events) == [ToolCallStarted, ToolCallCompleted, TextDelta, MessageCreated]
    assert said(events) == f"Found 3 results for {LOOK}"


def test_what_a_tool_gives_is_the_answer_also_after_a_preface(server: ModelServer, settings: Settings) -> None:
    events = reply(assistant(settings, "terse"), f"{LOOK} With a preface")
    assert said(events).startswith(f"{PREFACE}Found 3 results for {LOOK}")


def test_a_tool_that_needs_approval_fails_the_turn(server: ModelServer, settings: Settings) -> None:
    with pytest.raises(NeedsApproval):
        reply(assistant(settings, "careful"), LOOK)


def test_without_tracing_there_are_no_ids(server: ModelServer, settings: Settings) -> None:
    set_tracing_disabled(True)
    try:
        events = reply(assistant(settings, "named"), LOOK)
    finally:
        set_tracing_disabled(False)
    assert kinds(events) == [ToolCallStarted, ToolCallCompleted, TextDelta, MessageCreated]
    assert {(event.trace_id, getattr(event, "span_id", None)) for event in events} == {(None, None)}


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("", "must name"), (f"{HERE}.nowhere", "cannot be imported"), (f"{HERE}.KEY", "nothing to call")],
    ids=["none", "not-there", "no-callable"],
)
def test_a_wrong_factory_is_named_at_the_start(path: str, complaint: str, settings: Settings) -> None:
    settings.ENVIRONMENT = settings.ENVIRONMENT.model_copy(update={"openai_agent": path})
    with pytest.raises(ImproperlyConfigured, match=f"OPENAI_AGENT.*{complaint}"):
        OpenAIAgents()


def test_a_factory_that_makes_no_agent_fails_the_turn(server: ModelServer, settings: Settings) -> None:
    with pytest.raises(ImproperlyConfigured, match="OPENAI_AGENT must return"):
        reply(assistant(settings, "no_agent"), "Hello!")


# In processes of their own


def python(script: str, **environment: str) -> str:
    settings = {"DJANGO_SETTINGS_MODULE": "chatstore.settings", **environment}
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(
        command, cwd=BASE_DIR, env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_without_the_extra_the_error_names_it() -> None:
    script = (
        "import sys; sys.modules['agents'] = None\n"
        "from django.core.exceptions import ImproperlyConfigured\n"
        "from conversations.chat.assistants import assistant_at\n"
        f"try: assistant_at('{ASSISTANT}')\n"
        "except ImproperlyConfigured as error: print(error)"
    )
    assert "needs the extra openai-agents" in python(script)


def test_nothing_else_imports_the_sdk() -> None:
    script = (
        "import sys, chatstore.wsgi\n"
        "print([name for name in ('agents', 'openai', 'conversations.chat.openai_agents') if name in sys.modules])"
    )
    assert python(script, DATABASE_URL="sqlite:///nowhere.sqlite3").strip() == "[]"


def test_nothing_is_sent_to_anybody_but_the_model_server(server: ModelServer) -> None:
    """To the end of the process, when an exporter would send what it still has."""
    script = (
        "import sys; sys.addaudithook(\n"
        "  lambda event, args: event in ('socket.connect', 'socket.getaddrinfo') and print(event, args[:2]))\n"
        "import django; django.setup()\n"
        "from conversations.chat.assistants import Asked, Said, assistant_at\n"
        f"for event in assistant_at('{ASSISTANT}').reply(Asked('s', [Said('user', 'The database')])): pass"
    )
    told = python(script, OPENAI_AGENT=f"{HERE}.named").splitlines()
    assert told
    assert [line for line in told if "127.0.0.1" not in line] == []


# On a real server


@pytest.fixture
def port(server: ModelServer, transactional_db: None, tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "log").open("wb") as log:
        factory = f"{HERE}.named"
        with serving(own_database_url(), log, ASSISTANT=ASSISTANT, OPENAI_AGENT=factory) as port:
            yield port


def read(port: int, path: str, person: Caller) -> list[dict[str, Any]]:
    answer, body = fetch(port, "GET", path, Authorization=f"Bearer {person.token}")
    assert answer.status == 200, body
    found: list[dict[str, Any]] = json.loads(body)
    return found


@pytest.mark.postgres
def test_a_turn_is_seen_stored_and_found_by_its_trace(port: int, server: ModelServer, alice: Caller) -> None:
    events = Stream(port, alice, {"message": LOOK}).rest()
    assert list(dict.fromkeys(types(events))) == [
        "tool_call_started",
        "tool_call_completed",
        "text_delta",
        "message_created",
        "done",
    ]
    assert text_of(events) == ANSWER
    assert events[1]["result_summary"] == f"Found 3 results for {LOOK}"
    session = events[-1]["conversation_id"]
    question, marker, answer = read(port, f"/api/sessions/{session}/messages/", alice)
    assert (question["role"], question["content"]) == ("user", LOOK)
    assert (marker["role"], marker["content"]) == ("tool_call", "Called search_database")
    assert marker["tool_name"] == "search_database"
    assert (answer["role"], answer["content"], answer["tokens"]) == ("assistant", ANSWER, 7)
    assert marker["span_id"].startswith("span_")
    assert answer["span_id"].startswith("span_")
    assert marker["span_id"] != answer["span_id"]
    assert marker["trace_id"] == answer["trace_id"]
    traced = read(port, f"/api/messages/?trace_id={marker['trace_id']}", alice)
    assert {marker["id"], answer["id"]} <= {message["id"] for message in traced}


@pytest.mark.postgres
def test_the_second_turn_of_a_conversation_sends_the_history(
    port: int, server: ModelServer, alice: Caller
) -> None:
    session = Stream(port, alice, {"message": LOOK}).rest()[-1]["conversation_id"]
    Stream(port, alice, {"message": "And now?", "conversation_id": session}).rest()
    assert server.heard[-1].said == [("user", LOOK), ("assistant", ANSWER), ("user", "And now?")]


@pytest.mark.postgres
def test_a_failing_model_server_fails_the_turn_without_a_word_of_it(
    port: int, server: ModelServer, alice: Caller, tmp_path: Path
) -> None:
    events = Stream(port, alice, {"message": "Answer with status 401"}).rest()
    assert events == [{"type": "error", "detail": "The assistant failed."}]
    log = (tmp_path / "log").read_text()
    assert "AuthenticationError" in log
    assert KEY not in log


@pytest.mark.postgres
def test_stopping_a_turn_ends_the_request_to_a_silent_model(port: int, server: ModelServer, alice: Caller) -> None:
    stream = Stream(port, alice, {"message": "Be silent."})
    assert next(stream.events)["content"] == "I "
    (session,) = read(port, "/api/sessions/", alice)
    answer, _ = fetch(port, "POST", f"/api/sessions/{session['id']}/stop/", Authorization=f"Bearer {alice.token}")
    assert answer.status == 202
    assert stream.rest()[-1]["type"] == "error"
    assert server.hung_up.wait(3)
