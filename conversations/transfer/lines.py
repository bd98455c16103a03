"""The lines of a store's file: JSON objects of known kinds, with the same fields in the same order everywhere.

The first line, of the kind `store`, says how many there are of each other kind. Then come users, who made them,
workspaces, memberships, and each session followed by its messages and turns. Rows are named by what is the same in
every store: UUIDs, positions, issuers and subjects. No integer id, password, token or power over a site is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from accounts.models import Membership, User
from chatstore.http.bodies import refuse_constant, refuse_duplicates
from chatstore.http.fields import MAX_METADATA_BYTES, UNSTORABLE, compact_json, metadata_fault
from chatstore.http.times import moment_of
from chatstore.ids import MAX_BIGINT, uuid_of
from conversations.models import Message, Turn

FORMAT: Final = 1
MAX_CONTENT_BYTES: Final = settings.ENVIRONMENT.max_content_bytes
MAX_INTEGER: Final = 2**31 - 1
# From here on Python writes a whole float with an exponent, and PostgreSQL gives it back as an integer.
WRITTEN_WITH_EXPONENT: Final = 1e16
MOST_IDENTITIES: Final = 100
DIGEST: Final = re.compile("[0-9a-f]{64}")
OVER: Final = tuple(status for status in Turn.Status.values if status != Turn.Status.RUNNING)
FINISHED: Final = tuple(status for status in Message.Status.values if status != Message.Status.STREAMING)

Rule = Callable[[Any], Any]

# A session's UUID stands in each line that follows it, and most messages were never changed.
known_uuid = lru_cache(16)(uuid_of)
known_moment = lru_cache(16)(moment_of)


class Fault(Exception):
    """What is wrong with a line, for a person to read. It never repeats what the line says."""


class Line(NamedTuple):
    """A line that was read. Its weight is what it takes of memory and of a transaction, in messages of a kilobyte;
    its values stand in the order of `FIELDS`."""

    number: int
    kind: str
    weight: int
    values: tuple[Any, ...]

    @property
    def fields(self) -> dict[str, Any]:
        return dict(zip(FIELDS[self.kind], self.values, strict=True))


# What a field may hold. Each rule gives what is stored, or raises Fault.


def text(longest: int, shortest: int = 0) -> Rule:
    def rule(value: Any) -> Any:
        if type(value) is not str:
            raise Fault("must be a string")
        if not shortest <= len(value) <= longest:
            raise Fault(f"must have {shortest} to {longest} characters")
        if UNSTORABLE.search(value):
            raise Fault("holds a NUL or a lone surrogate, which is not text")
        return value

    return rule


def content(value: Any) -> Any:
    if type(value) is not str:
        raise Fault("must be a string")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Fault("holds a lone surrogate, which is not text") from None
    if "\0" in value:
        raise Fault("holds a NUL, which is not text")
    if size > MAX_CONTENT_BYTES:
        raise Fault(f"is longer than {MAX_CONTENT_BYTES} bytes of UTF-8 (MAX_CONTENT_BYTES)")
    return value


def whole(lowest: int, highest: int) -> Rule:
    def rule(value: Any) -> Any:
        if type(value) is not int:
            raise Fault("must be an integer")
        if not lowest <= value <= highest:
            raise Fault(f"must be {lowest} to {highest}")
        return value

    return rule


def one_of(*choices: str) -> Rule:
    def rule(value: Any) -> Any:
        if type(value) is not str or value not in choices:
            raise Fault(f"must be one of {', '.join(choices)}")
        return value

    return rule


def optional(given: Rule) -> Rule:
    def rule(value: Any) -> Any:
        return None if value is None else given(value)

    return rule


def boolean(value: Any) -> Any:
    if type(value) is not bool:
        raise Fault("must be true or false")
    return value


def uuid(value: Any) -> Any:
    found = known_uuid(value) if type(value) is str else None
    if found is None:
        raise Fault("must be a dashed UUID")
    return found


def time(value: Any) -> Any:
    found = known_moment(value) if type(value) is str else None
    if found is None:
        raise Fault("must be a point in time in ISO 8601")
    return found


def metadata(value: Any) -> Any:
    if type(value) is not dict:
        raise Fault("must be an object")
    if fault := metadata_fault(value):
        raise Fault(fault[:1].lower() + fault[1:].rstrip("."))
    if len(compact_json(value).encode()) > MAX_METADATA_BYTES:
        raise Fault(f"is larger than {MAX_METADATA_BYTES} bytes as JSON")
    return value


def digest(value: Any) -> Any:
    if type(value) is not str or not DIGEST.fullmatch(value):
        raise Fault("must be 64 hex digits")
    return value


username_text = text(150, 1)
email_text = text(254)


def username(value: Any) -> Any:
    value = username_text(value)
    try:
        User.username_validator(value)
    except ValidationError:
        raise Fault("is no user name") from None
    if User.normalize_username(value) != value:
        raise Fault("must be in the normal form NFKC")
    return value


def email(value: Any) -> Any:
    if email_text(value):
        try:
            validate_email(value)
        except ValidationError:
            raise Fault("is no email address") from None
    return value


def identities(value: Any) -> Any:
    """As tuples of created_at, issuer and subject."""
    if type(value) is not list or len(value) > MOST_IDENTITIES:
        raise Fault(f"must be a list of at most {MOST_IDENTITIES}")
    found = [tuple(values_of(IDENTITY, item)) for item in value]
    if len({identity[1:] for identity in found}) < len(found):
        raise Fault("names one twice")
    return found


# The kinds of lines. The fields stand in the order of their names, as they are written.

name = text(255)
link = optional(name)
count = whole(0, MAX_BIGINT)
number = whole(1, MAX_BIGINT)

IDENTITY: Final[dict[str, Rule]] = {"created_at": time, "issuer": text(255, 1), "subject": text(255, 1)}
COUNTED: Final = ("user", "creation", "workspace", "membership", "session", "message", "turn")
FIELDS: Final[dict[str, dict[str, Rule]]] = {
    "store": {"counts": lambda value: dict(zip(COUNTED, values_of(COUNTS, value), strict=True)), "format": number},
    "user": {
        "created_at": time,
        "email": email,
        "identities": identities,
        "is_active": boolean,
        "name": name,
        "public_id": uuid,
        "username": username,
    },
    "creation": {
        "created_by": uuid,
        "idempotency_digest": optional(digest),
        "idempotency_key": optional(text(255, 1)),
        "user": uuid,
    },
    "workspace": {"created_at": time, "name": name, "personal_of": optional(uuid), "public_id": uuid},
    "membership": {
        "created_at": time,
        "role": one_of(*Membership.Role.values),
        "user": uuid,
        "workspace": uuid,
    },
    "session": {
        "agent": link,
        "created_at": time,
        "deleted_at": optional(time),
        "group": link,
        "idempotency_digest": optional(digest),
        "idempotency_key": optional(text(255, 1)),
        "last_activity": time,
        "last_position": count,
        "message_count": count,
        "metadata": optional(metadata),
        "owner": uuid,
        "pocket": link,
        "session_id": uuid,
        "title": text(500, 1),
        "titled": boolean,
        "tokens": count,
        "updated_at": time,
        "version": number,
        "workspace": uuid,
    },
    "message": {
        "content": content,
        "created_at": time,
        "deleted_at": optional(time),
        "idempotency_digest": optional(digest),
        "idempotency_index": whole(0, MAX_INTEGER),
        "idempotency_key": optional(text(255, 1)),
        "metadata": optional(metadata),
        "position": number,
        "role": one_of(*Message.Role.values),
        "session": uuid,
        "span_id": link,
        "status": one_of(*FINISHED),
        "tokens": whole(0, MAX_INTEGER),
        "tool_name": link,
        "trace_id": link,
        "updated_at": time,
        "version": number,
    },
    "turn": {
        "answer": number,
        "finished_at": optional(time),
        "question": number,
        "session": uuid,
        "started_at": time,
        "status": one_of(*OVER),
        "trace_id": link,
    },
}
COUNTS: Final[dict[str, Rule]] = dict.fromkeys(COUNTED, count)
WEIGHTS: Final = {"session": 12}


def half_a_key(found: Mapping[str, Any]) -> bool:
    return (found["idempotency_key"] is None) != (found["idempotency_digest"] is None)


def says_nothing(found: Mapping[str, Any]) -> bool:
    unfinished = found["role"] == Message.Role.ASSISTANT and found["status"] != Message.Status.COMPLETE
    return not (found["content"] or found["deleted_at"] or unfinished)


def is_deleted_in_part(found: Mapping[str, Any]) -> bool:
    left = found["content"] or found["metadata"] is not None or found["tool_name"] is not None
    return found["deleted_at"] is not None and bool(left)


KEY_RULE: Final = (half_a_key, "must have both of idempotency_key and idempotency_digest, or none")
# What must hold between the fields of a line.
AGREE: Final[dict[str, list[tuple[Callable[[Mapping[str, Any]], bool], str]]]] = {
    "creation": [KEY_RULE],
    "session": [KEY_RULE],
    "message": [
        KEY_RULE,
        (says_nothing, "content must not be empty"),
        (is_deleted_in_part, "is deleted, and must hold no content, metadata and tool_name"),
    ],
    "turn": [(lambda found: found["answer"] < found["question"], "answer must not be before question")],
}


def places_of(kind: str) -> dict[str, int]:
    """Where each field stands in a line's values."""
    return {field: place for place, field in enumerate(FIELDS[kind])}


# Reading

decode = json.JSONDecoder(parse_constant=refuse_constant, object_pairs_hook=refuse_duplicates).decode


def read(number: int, line: bytes) -> Line:
    """The line with this number. Raises Fault."""
    found = parsed(line)
    kind = found.pop("type", None) if type(found) is dict else None
    if type(kind) is not str or kind not in FIELDS:
        raise Fault(f"must be an object whose type is one of {', '.join(FIELDS)}")
    values = tuple(values_of(FIELDS[kind], found))
    for broken, said in AGREE.get(kind, []):
        if broken(found):
            raise Fault(said)
    return Line(number, kind, (len(line) >> 10) + WEIGHTS.get(kind, 1), values)


def parsed(line: bytes) -> Any:
    """What the line says. One that is spelled as exportjsonl spells it says nothing twice; of others that is
    looked into, which takes longer."""
    try:
        found = orjson.loads(line)
        if orjson.dumps(found) == line.rstrip(b"\n"):
            return found
    except ValueError:
        pass  # What is wrong with it is said below.
    return carefully_parsed(line)


def carefully_parsed(line: bytes) -> Any:
    try:
        return decode(line.decode())
    except UnicodeDecodeError:
        raise Fault("is not UTF-8") from None
    except RecursionError:
        raise Fault("the JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Fault(f"is not JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:
        said = str(error).rstrip(".")
        raise Fault("a number is too long" if said.startswith("Exceeds") else said) from None


def values_of(fields: Mapping[str, Rule], found: Any) -> list[Any]:
    """The values of these fields and no other. Names that nobody knows are not repeated: they may be anything."""
    if type(found) is not dict:
        raise Fault("must be an object")
    values = []
    for field, rule in fields.items():
        try:
            values.append(rule(found[field]))
        except KeyError:
            raise Fault(f"{field} is missing") from None
        except Fault as fault:
            raise Fault(f"{field} {fault}") from None
    if len(found) != len(fields):
        raise Fault("has a field that nobody knows")
    return values


# Writing


def line_of(values: Mapping[str, Any]) -> bytes:
    """The line of values that stand in order. A lone surrogate, which no store should hold, is escaped."""
    try:
        return orjson.dumps(values) + b"\n"
    except TypeError:
        return f"{compact_json(values)}\n".encode(errors="backslashreplace")


def plain(value: Any) -> Any:
    """A metadata value as every database gives it back: names in order, no -0.0, and no exponent where none is
    needed."""
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) >= WRITTEN_WITH_EXPONENT else value + 0.0
    return value
