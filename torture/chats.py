"""What a scripted assistant is told to do (conversations/tests/scripted.py needs Django), and its streams."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any, Final

from torture.product import MARK, Product

SCRIPTED: Final = "conversations.tests.scripted.Scripted"
Step = tuple[str, dict[str, Any]]


def text(content: str) -> Step:
    return "TextDelta", {"content": content}


def pause(seconds: float) -> Step:
    return "pause", {"seconds": seconds}


def tool(call_id: str) -> Step:
    return "ToolCallStarted", {"call_id": call_id, "tool_name": "search"}


def tool_done(call_id: str) -> Step:
    return "ToolCallCompleted", {"call_id": call_id}


def message() -> Step:
    return "MessageCreated", {"tokens": 7}


def script(*steps: Step) -> str:
    """The message that makes the assistant do these steps."""
    return json.dumps(steps)


def words(count: int, seconds: float) -> str:
    """The message that makes it say so many words, each after so long."""
    return script(*(step for number in range(count) for step in (text(f"{MARK} {number} "), pause(seconds))))


def last_event(product: Product, said: str, timeout: float) -> str:
    """Say it and read the stream to its end: the type of its last event, or the status of a refusal."""
    link = HTTPConnection("127.0.0.1", product.port, timeout=timeout)
    headers = {"Authorization": f"Bearer {product.tokens[0]}", "Content-Type": "application/json"}
    try:
        link.request("POST", "/api/chat/stream", json.dumps({"message": said}), headers)
        answer = link.getresponse()
        lines = [line for line in answer.read().split(b"\n") if line.startswith(b"data: ")]
    finally:
        link.close()
    return str(json.loads(lines[-1][6:])["type"]) if lines else f"status {answer.status}"
