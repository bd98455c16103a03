"""How ids are made, and how they are read from text (contract 1, ids)."""

from __future__ import annotations

import re
import uuid

import uuid_utils.compat as uuids

ROW_ID = re.compile(r"[1-9][0-9]{0,18}")
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
MAX_BIGINT = 2**63 - 1


def new_uuid() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): it sorts by time, so that its index grows at one end."""
    return uuids.uuid7()


def row_id_of(text: str) -> int | None:
    """The integer id that `text` spells: [1-9][0-9]*, below 2^63. None where it spells none."""
    return int(text) if ROW_ID.fullmatch(text) and int(text) <= MAX_BIGINT else None


def uuid_of(text: str) -> uuid.UUID | None:
    """The UUID that `text` spells with dashes, in either case. None where it spells none."""
    return uuid.UUID(text) if UUID_TEXT.fullmatch(text) else None
