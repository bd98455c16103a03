"""The OpenAI Agents SDK as an assistant: ASSISTANT=conversations.chat.openai_agents.OpenAIAgents.

Needs the extra (requirements-openai-agents.txt); nothing else imports the SDK. OPENAI_AGENT names the operator's
factory: a callable without arguments that returns an `agents.Agent` with its model and tools. It is called once
for each turn, in the turn's own event loop. Clients belong to one loop, so the factory makes a new one each time
and keeps none; a model that is only named gets a client of the turn's own, by OPENAI_BASE_URL and OPENAI_API_KEY
in the process's environment (the SDK does not read `.env`).

Nothing is traced to anybody: importing this module takes away the SDK's exporter to OpenAI, with all other trace
processors. Processors of an operator's own are added in the factory's module, which is imported later; there
`add_trace_processor` and `set_trace_processors` both do what they say.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from conversations.chat.assistants import (
    Asked,
    Event,
    MessageCreated,
    TextDelta,
    ToolCallCompleted,
    ToolCallStarted,
)

try:
    from agents import (
        Agent,
        GenerationSpanData,
        Model,
        ModelProvider,
        ModelSettings,
        MultiProvider,
        ResponseSpanData,
        RunConfig,
        RunContextWrapper,
        RunHooks,
        Runner,
        Span,
        StreamEvent,
        Tool,
        ToolCallItem,
        ToolCallOutputItem,
        Trace,
        TracingProcessor,
        TResponseInputItem,
        add_trace_processor,
        get_current_span,
        set_trace_processors,
    )
    from agents.tool_context import ToolContext
    from openai import AsyncOpenAI
except ImportError as error:
    raise ImproperlyConfigured(
        f"ASSISTANT={__name__}.OpenAIAgents needs the extra openai-agents: "
        "pip install --require-hashes -r requirements-openai-agents.txt"
    ) from error

PULSE_SECONDS: Final = 0.5
LONGEST_SUMMARY: Final = 200
TEXTS = ("response.output_text.delta", "response.refusal.delta")

set_trace_processors([])
for transport in ("httpx2", "httpcore2"):  # They log whole URLs, in which some servers want a key, and headers.
    logging.getLogger(transport).setLevel(logging.WARNING)


class NeedsApproval(Exception):
    """A tool waits for somebody's approval, and nobody can be asked here."""


class OpenAIAgents:
    def __init__(self) -> None:
        self.factory = factory_at(settings.ENVIRONMENT.openai_agent)
        add_trace_processor(ModelSpans())

    def reply(self, asked: Asked) -> Iterator[Event]:
        """A run of the agent, in an event loop that lives in this thread as long as the reply and stands still
        between its events. Where nothing happens it yields an empty text every PULSE_SECONDS: a turn that was
        stopped meanwhile closes it then. Closing ends the requests to the model; a tool that is no coroutine
        cannot be ended, and is waited for."""
        with asyncio.Runner(loop_factory=TurnLoop) as runner:
            run = Run()
            runner.run(run.begin(self.factory, asked))
            try:
                while event := runner.run(run.next_event()):
                    yield event
            finally:
                runner.run(run.end())


def factory_at(path: str) -> Callable[[], Agent]:
    """What OPENAI_AGENT names. ImproperlyConfigured where that is nothing, or nothing to call."""
    if not path:
        raise ImproperlyConfigured("OPENAI_AGENT must name a callable that returns an agents.Agent.")
    try:
        factory = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"OPENAI_AGENT={path} cannot be imported.") from error
    if not callable(factory):
        raise ImproperlyConfigured(f"OPENAI_AGENT={path} is nothing to call.")
    return cast(Callable[[], Agent], factory)


class TurnLoop(asyncio.SelectorEventLoop):
    """Knows its connections, so that they end with it, whoever opened them: clients keep theirs for reuse."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        transport, protocol = await super().create_connection(*args, **kwargs)
        self.opened.add(transport)
        return transport, protocol

    async def drop_connections(self) -> None:
        for transport in list(self.opened):
            transport.abort()
        await asyncio.sleep(0)  # Where transports close their sockets.


class Run(RunHooks):
    """One run of an agent, told as events with one trace id.

    A message is all text of one response of the model. Its tokens are that response's output tokens as the model
    server counts them (with reasoning, and arguments of tool calls in the same response), 0 where it does not; a
    response without text is no message, and its tokens are not told. Its span is the SDK's span of the call of
    the model, a tool call's span that of its function. Ids are None where tracing is off.
    """

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.trace_id: str | None = None
        self.has_text = False  # The response that streams now.
        self.turn_span: str | None = None
        self.model_spans: dict[str | None, str] = {}  # By the span of the SDK's turn around it.
        self.called: dict[str, str] = {}  # Names of tools that are called and not yet told of, by call id.
        self.tool_spans: dict[str, str | None] = {}

    async def begin(self, factory: Callable[[], Agent], asked: Asked) -> None:
        self.task = asyncio.create_task(self.follow(factory, asked))

    async def next_event(self) -> Event | None:
        """None after the last; raises what the run raised."""
        try:
            async with asyncio.timeout(PULSE_SECONDS):
                event = await self.events.get()
        except TimeoutError:
            return TextDelta("", self.trace_id)
        if event is None:
            await self.task
        return event

    async def end(self) -> None:
        """Nothing of the run goes on."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(self.task, *tasks, return_exceptions=True)
        await cast(TurnLoop, asyncio.get_running_loop()).drop_connections()

    async def follow(self, factory: Callable[[], Agent], asked: Asked) -> None:
        RUN.set(self)
        models = NamedModels()
        try:
            await self.run(made_by(factory), asked, models)
        finally:
            self.events.put_nowait(None)
            await models.aclose()

    async def run(self, agent: Agent, asked: Asked, models: ModelProvider) -> None:
        result = Runner.run_streamed(agent, items_of(asked), hooks=self, run_config=config(agent, asked, models))
        self.trace_id = real(result.trace.trace_id) if result.trace else None
        async for event in result.stream_events():
            self.take(event)
        if result.interruptions:
            raise NeedsApproval
        if not self.has_text:  # The agent's answer is what a tool gave, or came in one piece.
            self.tell(TextDelta(str(result.final_output or ""), self.trace_id))
            self.tell(MessageCreated(trace_id=self.trace_id))

    def tell(self, event: Event) -> None:
        self.events.put_nowait(event)

    # What the SDK says

    def take(self, event: StreamEvent) -> None:
        if event.type == "raw_response_event":
            self.take_raw(event.data)
        elif event.type == "run_item_stream_event":
            if isinstance(event.item, ToolCallItem):
                self.take_call(event.item)
            elif isinstance(event.item, ToolCallOutputItem):
                self.take_output(event.item)

    def take_raw(self, data: Any) -> None:
        if data.type == "response.created":
            self.has_text = False
        elif data.type in TEXTS:
            self.has_text = True
            self.tell(TextDelta(data.delta, self.trace_id))
        elif data.type == "response.completed" and self.has_text:
            tokens = data.response.usage.output_tokens if data.response.usage else 0
            self.tell(MessageCreated(tokens, self.trace_id, self.model_spans.get(self.turn_span)))

    def take_call(self, item: ToolCallItem) -> None:
        """A function is told of when it starts, with its span. What the model's server runs has run already."""
        call_id, kind = item.call_id or "", field(item.raw_item, "type")
        self.called[call_id] = item.tool_name or str(kind).removesuffix("_call")
        if kind != "function_call" or call_id in self.tool_spans:
            self.tell_started(call_id)
        if not field(item.raw_item, "call_id"):
            self.tell(ToolCallCompleted(call_id, "", self.trace_id))

    def take_output(self, item: ToolCallOutputItem) -> None:
        call_id = item.call_id or ""
        self.tell_started(call_id)
        span_id = self.tool_spans.get(call_id)
        self.tell(ToolCallCompleted(call_id, summary(item.output), self.trace_id, span_id))
        self.has_text = False  # What was said before was no answer, where the tool gives it.

    def tell_started(self, call_id: str) -> None:
        """Once for each call."""
        name = self.called.pop(call_id, None)
        if name is not None:
            self.tell(ToolCallStarted(call_id, name, self.trace_id, self.tool_spans.get(call_id)))

    async def on_llm_start(
        self,
        context: RunContextWrapper,
        agent: Agent,
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        self.turn_span = current_span()

    async def on_tool_start(self, context: RunContextWrapper, agent: Any, tool: Tool) -> None:
        if isinstance(context, ToolContext):
            self.tool_spans[context.tool_call_id] = current_span()
            self.tell_started(context.tool_call_id)


RUN: ContextVar[Run | None] = ContextVar("the run of the Agents SDK", default=None)


class ModelSpans(TracingProcessor):
    """Tells each run the spans of its calls of a model. The SDK calls this where a span begins, in the context of
    the run: it keeps nothing, and runs cannot mix."""

    def on_span_start(self, span: Span[Any]) -> None:
        run = RUN.get()
        if run is not None and isinstance(span.span_data, GenerationSpanData | ResponseSpanData):
            run.model_spans[span.parent_id] = span.span_id

    def on_span_end(self, span: Span[Any]) -> None: ...
    def on_trace_start(self, trace: Trace) -> None: ...
    def on_trace_end(self, trace: Trace) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...


class NamedModels(ModelProvider):
    """The models that an agent only names, over one client, made where one is needed. The SDK's own provider
    keeps one HTTP client for the whole process, which loops must not share."""

    def __init__(self) -> None:
        self.client: AsyncOpenAI | None = None

    def get_model(self, model_name: str | None) -> Model:
        self.client = self.client or AsyncOpenAI()
        return MultiProvider(openai_client=self.client).get_model(model_name)

    async def aclose(self) -> None:
        if self.client is not None:
            await self.client.close()


def made_by(factory: Callable[[], Agent]) -> Agent:
    agent = factory()
    if not isinstance(agent, Agent):
        raise ImproperlyConfigured("OPENAI_AGENT must return an agents.Agent.")
    return agent


def config(agent: Agent, asked: Asked, models: ModelProvider) -> RunConfig:
    """Chat completions count tokens where they are asked to; an agent that says no keeps its word."""
    counted = ModelSettings(include_usage=agent.model_settings.include_usage is not False)
    return RunConfig(model_provider=models, model_settings=counted, group_id=asked.session_id)


def items_of(asked: Asked) -> list[TResponseInputItem]:
    said = [{"role": said.role, "content": said.content} for said in asked.history if said.content]
    return cast(list[TResponseInputItem], said)


def summary(output: Any) -> str:
    text = str(output)
    return text if len(text) <= LONGEST_SUMMARY else f"{text[: LONGEST_SUMMARY - 1]}\N{HORIZONTAL ELLIPSIS}"


def current_span() -> str | None:
    span = get_current_span()
    return real(span.span_id) if span else None


def real(identifier: str) -> str | None:
    """None for what the SDK says instead of an id where tracing is off."""
    return None if identifier == "no-op" else identifier


def field(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)
