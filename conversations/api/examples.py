"""The examples of the OpenAPI document: the conversation that `manage.py seed` makes."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample

SESSION = [
    OpenApiExample("A session", {"title": "Welcome Chat", "agent_id": "support"}, request_only=True),
]
MESSAGE = [
    OpenApiExample("A question", {"role": "user", "content": "Hello!"}, request_only=True),
    OpenApiExample(
        "A tool's marker",
        {
            "role": "tool_call",
            "content": "Called search_database",
            "tool_name": "search_database",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "span_id": "00f067aa0ba902b7",
        },
        request_only=True,
    ),
]
