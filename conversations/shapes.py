"""The contract's JSON of a session and a message, from a row: a mapping of columns (contract 2 and 3).

UUIDs and times stay what they are where `json_bytes` writes them as the contract has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from chatstore.http.times import wire_time

SESSION_COLUMNS = (
    "id",
    "session_id",
    "owner_id",
    "owner_public_id",
    "workspace_id",
    "title",
    "pocket",
    "group",
    "agent",
    "metadata",
    "message_count",
    "tokens",
    "version",
    "last_activity",
    "created_at",
    "updated_at",
    "deleted_at",
)
MESSAGE_COLUMNS = (
    "id",
    "session_id",
    "position",
    "role",
    "content",
    "tool_name",
    "trace_id",
    "span_id",
    "tokens",
    "metadata",
    "status",
    "version",
    "created_at",
    "updated_at",
    "deleted_at",
)


def time_of(value: datetime) -> datetime | str:
    """A full second is spelled here: orjson leaves out digits that are zero."""
    return value if value.microsecond else wire_time(value)


def session_shape(row: Mapping[str, Any]) -> dict[str, Any]:
    deleted_at = row["deleted_at"]
    return {
        "id": row["id"],
        "session_id": row["session_id"],
        "user_id": row["owner_id"],
        "owner": row["owner_public_id"],
        "workspace": row["workspace_id"],
        "title": row["title"],
        "pocket": row["pocket"],
        "group": row["group"],
        "agent": row["agent"],
        "metadata": row["metadata"],
        "message_count": row["message_count"],
        "tokens": row["tokens"],
        "version": row["version"],
        "last_activity": time_of(row["last_activity"]),
        "created_at": time_of(row["created_at"]),
        "updated_at": time_of(row["updated_at"]),
        "deleted_at": deleted_at and time_of(deleted_at),
    }


def message_shape(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of a deleted message what `since_version` shows. Needs `session__session_id` beside the columns."""
    if row["deleted_at"]:
        return {"id": row["id"], "position": row["position"], "version": row["version"], "deleted": True}
    return {
        "id": row["id"],
        "session_id": row["session_id"],
        "session": row["session__session_id"],
        "position": row["position"],
        "role": row["role"],
        "content": row["content"],
        "tool_name": row["tool_name"],
        "trace_id": row["trace_id"],
        "span_id": row["span_id"],
        "tokens": row["tokens"],
        "metadata": row["metadata"],
        "status": row["status"],
        "version": row["version"],
        "created_at": time_of(row["created_at"]),
        "updated_at": time_of(row["updated_at"]),
    }
