"""A model server with OpenAI's two streaming interfaces, Responses and Chat Completions. What it does stands in
the question (the last message of a user), so that a test can direct it from another process: one with "database"
is answered by a call of the first tool, if there is one, and after that by ANSWER; "preface" puts text before the
call, "silent" makes it stop speaking within a text, "status 500" refuses."""

from __future__ import annotations

import json
import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, cast

ANSWER = "I found 3 documents."
PREFACE = "Let me look. "
CALL_TOKENS = (20, 5)
ANSWER_TOKENS = (30, 7)
Json = dict[str, Any]


class Heard(NamedTuple):
    """A request, as it came."""

    path: str
    key: str
    body: Json

    @property
    def said(self) -> list[tuple[str, str]]:
        """Role and text of the messages that it holds."""
        items = self.body.get("input") or self.body.get("messages") or []
        return [(item["role"], item["content"]) for item in items if item.get("role") in ("user", "assistant")]

    @property
    def question(self) -> str:
        return [text for role, text in self.said if role == "user"][-1]

    @property
    def output(self) -> str | None:
        """What the tool gave, if it has run since the question."""
        last = (self.body.get("input") or self.body.get("messages") or [])[-1]
        return last.get("output") or (last["content"] if last.get("role") == "tool" else None)

    @property
    def calls_a_tool(self) -> bool:
        return "database" in self.question and bool(self.body.get("tools")) and self.output is None


class ModelServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[Heard] = []
        self.hung_up = threading.Event()  # A client left in the middle of an answer.
        self.connections: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def model_server(self) -> ModelServer:
        return cast(ModelServer, self.server)

    def setup(self) -> None:
        super().setup()
        self.model_server.connections.add(self.connection)

    def finish(self) -> None:
        self.model_server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        heard = Heard(self.path, self.headers["Authorization"].removeprefix("Bearer "), body)
        self.model_server.heard.append(heard)
        if refused := re.search(r"status (\d+)", heard.question):
            self.refuse(int(refused[1]), heard.key)
        elif heard.path == "/v1/responses":
            self.stream(heard, ((f"event: {each['type']}\n", each) for each in response(heard)))
        else:
            self.stream(heard, (("", each) for each in completion(heard)), "data: [DONE]\n\n")

    def refuse(self, status: int, key: str) -> None:
        """As OpenAI does it, it repeats the key."""
        said = json.dumps({"error": {"message": f"Incorrect API key provided: {key}", "type": "x", "code": "y"}})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Should-Retry", "false")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def stream(self, heard: Heard, events: Iterator[tuple[str, Json]], last: str = "") -> None:
        """Server-sent events, each in a chunk of its own. Keeps the connection."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for name, event in events:
            if "silent" in heard.question and is_text(event):
                return self.wait_for_hang_up()
            self.chunk(f"{name}data: {json.dumps(event)}\n\n")
        if last:
            self.chunk(last)
        return self.chunk("")

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    def wait_for_hang_up(self) -> None:
        """Says nothing more."""
        self.close_connection = True
        if select.select([self.connection], [], [], 20)[0] and not self.connection.recv(1, socket.MSG_PEEK):
            self.model_server.hung_up.set()


def is_text(event: Json) -> bool:
    """The second word of an answer, in either interface."""
    return event.get("delta") == "found " or "'found '" in str(event.get("choices"))


def words(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


def text_of(heard: Heard) -> str:
    """With "preface" in the question, a tool call comes with some text before it."""
    if heard.calls_a_tool:
        return PREFACE if "preface" in heard.question else ""
    return ANSWER


def arguments(heard: Heard) -> str:
    return json.dumps({"query": heard.question})


def call_id(heard: Heard) -> str:
    """The same in every conversation: whoever keeps calls by it alone mixes them."""
    return "call_1"


# Responses


def response(heard: Heard) -> Iterator[Json]:
    yield {"type": "response.created", "sequence_number": 0, "response": response_object(heard, [], None)}
    items: list[Json] = []
    if text := text_of(heard):
        yield from text_item(text, len(items))
        items.append(message(text))
    if heard.calls_a_tool:
        yield from call_item(heard, len(items))
        items.append(call(heard))
    usage = CALL_TOKENS if heard.calls_a_tool else ANSWER_TOKENS
    whole = response_object(heard, items, usage)
    yield {"type": "response.completed", "sequence_number": 9, "response": whole}


def text_item(text: str, index: int) -> Iterator[Json]:
    place = {"output_index": index, "sequence_number": 1}
    item = {**message(text), "content": [], "status": "in_progress"}
    yield {"type": "response.output_item.added", "item": item, **place}
    place |= {"item_id": item["id"], "content_index": 0}
    for word in words(text):
        yield {"type": "response.output_text.delta", "delta": word, "logprobs": [], **place}
    yield {"type": "response.output_text.done", "text": text, "logprobs": [], **place}
    yield {"type": "response.output_item.done", "item": message(text), **place}


def call_item(heard: Heard, index: int) -> Iterator[Json]:
    place = {"output_index": index, "sequence_number": 2}
    item = {**call(heard), "arguments": "", "status": "in_progress"}
    yield {"type": "response.output_item.added", "item": item, **place}
    place |= {"item_id": item["id"]}
    yield {"type": "response.function_call_arguments.delta", "delta": arguments(heard), **place}
    yield {"type": "response.output_item.done", "item": call(heard), **place}


def message(text: str) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def call(heard: Heard) -> Json:
    name = heard.body["tools"][0]["name"]
    fields = {"name": name, "arguments": arguments(heard), "call_id": call_id(heard)}
    return {"type": "function_call", "id": "fc_1", "status": "completed", **fields}


def response_object(heard: Heard, output: list[Json], tokens: tuple[int, int] | None) -> Json:
    return {
        "id": f"resp_{len(heard.body['input'])}",
        "object": "response",
        "created_at": 1,
        "model": heard.body["model"],
        "status": "completed" if tokens else "in_progress",
        "output": output,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "usage": tokens and response_usage(*tokens),
    }


def response_usage(read: int, written: int) -> Json:
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written, **details}


# Chat Completions


def completion(heard: Heard) -> Iterator[Json]:
    for word in words(text_of(heard)):
        yield piece(heard, {"role": "assistant", "content": word})
    if heard.calls_a_tool:
        function = {"name": heard.body["tools"][0]["function"]["name"], "arguments": arguments(heard)}
        one = {"index": 0, "id": call_id(heard), "type": "function", "function": function}
        yield piece(heard, {"role": "assistant", "tool_calls": [one]})
    yield piece(heard, {}, "tool_calls" if heard.calls_a_tool else "stop")
    if (heard.body.get("stream_options") or {}).get("include_usage"):
        read, written = CALL_TOKENS if heard.calls_a_tool else ANSWER_TOKENS
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        yield {**piece(heard, {}), "choices": [], "usage": usage}


def piece(heard: Heard, delta: Json, finish: str | None = None) -> Json:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    fields = {"id": "chatcmpl_1", "object": "chat.completion.chunk", "created": 1}
    return {**fields, "model": heard.body["model"], "choices": choices}


@contextmanager
def model_serving() -> Iterator[ModelServer]:
    server = ModelServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
