"""What no write of the product puts into a row: which rows hold such, said in SQL, and how they are mended.

PostgreSQL holds neither NUL nor lone surrogates; SQLite holds any bytes. There the SQL calls functions of ours,
which `prepare` makes known to the connection.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

from django.db import connection
from django.db.models import BinaryField, BooleanField, CharField, F, Func, Q, TextField
from django.db.models.functions import Cast
from django.db.models.lookups import Exact

from chatstore.http.fields import MAX_NUMBER, UNSTORABLE, metadata_fault
from conversations.models import DEFAULT_TITLE, Message

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
TEXTS: Final = {
    "message": ("content", "tool_name", "trace_id", "span_id"),
    "session": ("title", "pocket", "group", "agent"),
}
OF_METADATA: Final = ("shape", "value")
OF_NUMBERS: Final = f'$.** ? (@.type() == "number" && (@ >= {MAX_NUMBER} || @ <= -{MAX_NUMBER}))'
BY_HAND: Final = "The database holds what it should refuse: set it right by SQL, after the schema."

Values = dict[str, Any]


class Fault(NamedTuple):
    """Something that may be wrong with a row, and the values that mend it, where there are any.

    `is_seen`: clients see the mend, so that versions rise.
    """

    name: str
    condition: Q
    sentence: str
    values: Values | None = None
    advice: str = ""
    is_seen: bool = True


# SQLite's functions


def is_unstorable(*texts: bytes | None) -> bool:
    return any(text is not None and replaced(text) != text for text in texts)


def replaced(text: bytes | None) -> bytes | None:
    return None if text is None else UNSTORABLE.sub(REPLACEMENT, text.decode(errors="replace")).encode()


def storable(text: bytes | None) -> str | None:
    found = replaced(text)
    return None if found is None else found.decode()


def kind_of_metadata(stored: bytes | None) -> str | None:
    """What is wrong with it: "shape" where it is no object, "value" for what is in it."""
    if stored is None:
        return None
    try:
        found = json.loads(stored)
    except (ValueError, RecursionError):
        return "shape"
    if not isinstance(found, dict):
        return "shape"
    return "value" if metadata_fault(found) else None


def prepare() -> None:
    """Make the functions known to the connection."""
    connection.ensure_connection()
    if connection.vendor == "sqlite":
        driver: Any = connection.connection
        driver.create_function("chatstore_unstorable", -1, is_unstorable, deterministic=True)
        driver.create_function("chatstore_storable", 1, storable, deterministic=True)
        driver.create_function("chatstore_metadata", 1, kind_of_metadata, deterministic=True)


# The conditions


def raw(name: str) -> Cast:
    return Cast(F(name), BinaryField())


def metadata_is(kind: str, vendor: str) -> Q:
    found = (
        Func(
            F("metadata"),
            template=(
                "(CASE WHEN jsonb_typeof(%(expressions)s) <> 'object' THEN 'shape'"
                f" WHEN jsonb_path_exists(%(expressions)s, '{OF_NUMBERS}') THEN 'value' END)"
            ),
            output_field=CharField(),
        )
        if vendor == "postgresql"
        else Func(raw("metadata"), function="chatstore_metadata", output_field=CharField())
    )
    return Q(metadata__isnull=False) & Q(Exact(found, kind))


def of_texts(names: tuple[str, ...], vendor: str) -> list[Fault]:
    """Texts that are none: on SQLite alone."""
    if vendor == "postgresql":
        return []
    called: Callable[..., Any] = Func
    is_bad = called(*map(raw, names), function="chatstore_unstorable", output_field=BooleanField())
    values = {name: Func(raw(name), function="chatstore_storable", output_field=TextField()) for name in names}
    return [Fault("text", Q(is_bad), "A text holds a NUL, a lone surrogate or what is not UTF-8.", values)]


def of_both(vendor: str) -> list[Fault]:
    """What may be wrong with a session and with a message."""
    has_key, has_digest = Q(idempotency_key__isnull=False), Q(idempotency_digest__isnull=False)
    return [
        Fault(
            "shape",
            metadata_is("shape", vendor),
            "The metadata is no object.",
            advice="PATCH it with an object.",
        ),
        Fault(
            "value",
            metadata_is("value", vendor),
            "The metadata holds what the API refuses: a number beyond 2^63, say.",
            advice="PATCH it with another object.",
        ),
        Fault(
            "key",
            has_key & ~has_digest,
            "There is an idempotency key and no digest: each retry with it is refused.",
            advice="Empty the key by SQL, if a retry may store it once more.",
            is_seen=False,
        ),
        Fault(
            "digest",
            has_digest & ~has_key,
            "There is an idempotency digest and no key.",
            {"idempotency_digest": None},
            is_seen=False,
        ),
    ]


def message_faults() -> list[Fault]:
    return of_message(connection.vendor)


def session_faults() -> list[Fault]:
    return of_session(connection.vendor)


@cache
def of_message(vendor: str) -> list[Fault]:
    deleted = Q(deleted_at__isnull=False)
    left = ~Q(content="") | Q(metadata__isnull=False) | Q(tool_name__isnull=False)
    unfinished = Q(role=Message.Role.ASSISTANT) & ~Q(status=Message.Status.COMPLETE)
    return [
        Fault(
            "left",
            deleted & left,
            "It is deleted, and still holds content, metadata or a tool's name.",
            {"content": "", "metadata": None, "tool_name": None},
            is_seen=False,
        ),
        Fault("empty", Q(content="") & ~deleted & ~unfinished, "It has no content.", advice="PATCH or DELETE it."),
        Fault("role", ~Q(role__in=Message.Role.values), "There is no such role.", advice=BY_HAND),
        Fault("status", ~Q(status__in=Message.Status.values), "There is no such status.", advice=BY_HAND),
        Fault("tokens", Q(tokens__lt=0), "Its tokens are below 0.", advice="PATCH them."),
        *of_both(vendor),
        *of_texts(TEXTS["message"], vendor),
    ]


@cache
def of_session(vendor: str) -> list[Fault]:
    return [
        Fault("title", Q(title=""), "It has no title.", {"title": DEFAULT_TITLE}),
        *of_both(vendor),
        *of_texts(TEXTS["session"], vendor),
    ]


def either(faults: list[Fault]) -> Q:
    found = Q()
    for fault in faults:
        found |= fault.condition
    return found


# Metadata


def mended_metadata(stored: str) -> Values | None:
    """The columns that mend it: numbers that are too large become their text, what is no text a replacement. None
    where that does not make it one that the API takes."""
    try:
        found = with_text(json.loads(stored, parse_int=whole, parse_float=fraction, parse_constant=str))
    except (ValueError, RecursionError):
        return None
    if found is None:
        return {"metadata": None}
    return {"metadata": found} if isinstance(found, dict) and not metadata_fault(found) else None


def whole(digits: str) -> int | str:
    # More digits than these Python would not even read.
    return int(digits) if len(digits) < len(str(MAX_NUMBER)) + 2 and abs(int(digits)) < MAX_NUMBER else digits


def fraction(digits: str) -> float | str:
    found = float(digits)
    return found if math.isfinite(found) and abs(found) < MAX_NUMBER else digits


def with_text(value: Any) -> Any:
    if isinstance(value, str):
        return UNSTORABLE.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [with_text(item) for item in value]
    if isinstance(value, dict):
        return {with_text(key): with_text(item) for key, item in value.items()}
    return value
