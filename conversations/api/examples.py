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
USAGE = [
    OpenApiExample(
        "Two days",
        {
            "from": "2026-11-01",
            "to": "2026-11-30",
            "as_of": "2026-11-22T10:42:42.123456Z",
            "group_by": "day",
            "messages": 9,
            "tokens": 1530,
            "interrupted": 1,
            "failed": 0,
            "groups": [
                {
                    "day": "2026-11-20",
                    "messages": 4,
                    "tokens": 820,
                    "interrupted": 0,
                    "failed": 0,
                    "sessions": 1,
                },
                {
                    "day": "2026-11-22",
                    "messages": 5,
                    "tokens": 710,
                    "interrupted": 1,
                    "failed": 0,
                    "sessions": 2,
                },
            ],
        },
        response_only=True,
    ),
    OpenApiExample(
        "By agent",
        {
            "from": "2026-11-01",
            "to": "2026-11-30",
            "as_of": "2026-11-22T10:42:42.123456Z",
            "group_by": "agent",
            "messages": 9,
            "tokens": 1530,
            "interrupted": 1,
            "failed": 0,
            "groups": [
                {"agent": "support", "messages": 7, "tokens": 1400, "interrupted": 1, "failed": 0},
                {"agent": None, "messages": 2, "tokens": 130, "interrupted": 0, "failed": 0},
            ],
        },
        response_only=True,
    ),
]
