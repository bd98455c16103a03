"""The contract's JSON of a session and a message, from a row: a mapping of columns (contract 2 and 3).

UUIDs and times stay what they are where `json_bytes` writes them as the contract has them; a full second is
spelled here, since orjson leaves out digits that are zero. A page's rows come as tuples: to name their columns
first would take longer than all the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

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


def session_shape(row: Mapping[str, Any]) -> dict[str, Any]:
    return session_json(*(row[name] for name in SESSION_COLUMNS))


def message_shape(row: Mapping[str, Any], session: UUID | None = None) -> dict[str, Any]:
    """Where `session` is not given, `session__session_id` must stand beside the columns."""
    return message_json(session or row["session__session_id"], *(row[name] for name in MESSAGE_COLUMNS))


def session_json(
    id: int, session_id: UUID, owner_id: int, owner_public_id: UUID, workspace_id: UUID, title: str,
    pocket: str | None, group: str | None, agent: str | None, metadata: dict[str, Any] | None,
    message_count: int, tokens: int, version: int, last_activity: datetime, created_at: datetime,
    updated_at: datetime, deleted_at: datetime | None,
) -> dict[str, Any]:  # fmt: skip
    """Takes SESSION_COLUMNS in their order."""
    return {
        "id": id,
        "session_id": session_id,
        "user_id": owner_id,
        "owner": owner_public_id,
        "workspace": workspace_id,
        "title": title,
        "pocket": pocket,
        "group": group,
        "agent": agent,
        "metadata": metadata,
        "message_count": message_count,
        "tokens": tokens,
        "version": version,
        "last_activity": last_activity if last_activity.microsecond else wire_time(last_activity),
        "created_at": created_at if created_at.microsecond else wire_time(created_at),
        "updated_at": updated_at if updated_at.microsecond else wire_time(updated_at),
        "deleted_at": deleted_at and (deleted_at if deleted_at.microsecond else wire_time(deleted_at)),
    }


def message_json(
    session: UUID, id: int, session_id: int, position: int, role: str, content: str, tool_name: str | None,
    trace_id: str | None, span_id: str | None, tokens: int, metadata: dict[str, Any] | None, status: str,
    version: int, created_at: datetime, updated_at: datetime, deleted_at: datetime | None,
) -> dict[str, Any]:  # fmt: skip
    """Takes the session's UUID, and MESSAGE_COLUMNS in their order. Of a deleted message it shows less."""
    if deleted_at:
        return {"id": id, "position": position, "version": version, "deleted": True}
    return {
        "id": id,
        "session_id": session_id,
        "session": session,
        "position": position,
        "role": role,
        "content": content,
        "tool_name": tool_name,
        "trace_id": trace_id,
        "span_id": span_id,
        "tokens": tokens,
        "metadata": metadata,
        "status": status,
        "version": version,
        "created_at": created_at if created_at.microsecond else wire_time(created_at),
        "updated_at": updated_at if updated_at.microsecond else wire_time(updated_at),
    }
