"""Every field that a client can fill in: found by walking what the URL resolver, the serializers and the filter
sets make of the OpenAPI document, and what each of them must say to a hostile value.

The verdict is computed from the kind of the field, so that it is one for both databases and holds for a field that
nobody has thought of here.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_plus

from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from chatstore.http.viewsets import StrictViewSet
from chatstore.tests.test_matrix import spelled
from conversations.tests import hostile

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
INTEGER = re.compile("0|[1-9][0-9]{0,18}")
MEBIBYTE = 1024 * 1024
METADATA_BYTES = 64 * 1024


class Operation(NamedTuple):
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Field(NamedTuple):
    """`where` is path, query, header or body; `name` leads to it in the body."""

    operation: Operation
    where: str
    name: tuple[str | int, ...]
    schema: dict[str, Any]
    validator: Draft202012Validator


# The walk


def walked() -> list[Field]:
    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return [
        field
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for field in fields_of(document, Operation(method.upper(), path), operation)
    ]


def fields_of(document: Any, operation: Operation, described: Any) -> Iterator[Field]:
    for parameter in described.get("parameters", ()):
        schema = resolved(document, parameter["schema"])
        yield Field(operation, parameter["in"], (parameter["name"],), schema, Draft202012Validator(schema))
    if "requestBody" in described:
        schema = described["requestBody"]["content"]["application/json"]["schema"]
        yield from leaves(document, operation, schema, ())


def leaves(document: Any, operation: Operation, schema: Any, name: tuple[str | int, ...]) -> Iterator[Field]:
    schema = resolved(document, schema)
    if "properties" in schema:
        for key, inner in schema["properties"].items():
            yield from leaves(document, operation, inner, (*name, key))
    elif schema.get("type") == "array":
        yield from leaves(document, operation, schema["items"], (*name, 0))
    else:
        yield Field(operation, "body", name, schema, Draft202012Validator(schema))


def resolved(document: Any, schema: Any) -> Any:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def routes() -> set[Operation]:
    """What the resolver serves of the API, as the document writes it."""
    return {
        Operation(method.upper(), f"/{path}")
        for path, pattern in patterns(get_resolver())
        if issubclass(getattr(pattern.callback, "cls", object), StrictViewSet)
        for method in getattr(pattern.callback, "actions", {})
        if method != "head"
    }


def patterns(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        route = prefix + spelled(str(pattern.pattern))
        if isinstance(pattern, URLPattern):
            yield route.rstrip("/") + "/", pattern
        else:
            yield from patterns(pattern, route)


# Values


class Value(NamedTuple):
    """A value as it is written in JSON; `read` is BROKEN where that is none."""

    name: str
    raw: str
    read: Any


BROKEN = object()
# The largest pages, numbers and ids, and one more.
EDGES = ["0", "1", "100", "101", "200", "201", "500", "501", "1000", "1001"]
EDGES += ["2147483647", "2147483648", "9223372036854775807"]
TEXTS = {**hostile.TEXTS, **hostile.BLANK, **hostile.UNSTORABLE}
BIG = {**hostile.LONG, **hostile.TOO_LONG}


def refuse(_: Any) -> Any:
    raise ValueError


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs) if len(dict(pairs)) == len(pairs) else refuse(pairs)


def reading(raw: str) -> Any:
    """As JSON has it; nesting that a parser may refuse counts as broken."""
    if max(raw.count("["), raw.count("{")) > 100:
        return BROKEN
    try:
        return json.loads(raw, parse_constant=refuse, object_pairs_hook=without_duplicates)
    except ValueError:
        return BROKEN


@cache
def json_values() -> tuple[Value, ...]:
    texts = {name: json.dumps(text) for name, text in TEXTS.items()}
    times = {f"time {time}": json.dumps(unquote_plus(time)) for time in hostile.SOMETIME}
    numbers = {f"number {text}": json.dumps(text) for text in ("0", "1", "1.5", "-1", "1e3")}
    tables = (texts, times, numbers, hostile.VALUES, hostile.REFUSED_VALUES)
    return tuple(Value(name, raw, reading(raw)) for table in tables for name, raw in table.items())


@cache
def url_values() -> tuple[str, ...]:
    """As they are written in a query."""
    texts = [quote(text.encode(errors="surrogatepass"), safe="") for text in TEXTS.values()]
    refs = [ref.replace(";", "%3B") for ref in hostile.REFS.values()]
    long = ["x" * 256, "x" * 501]
    return tuple(
        dict.fromkeys([*texts, *refs, *long, *hostile.NEVER, *hostile.SOMETIME, *hostile.NO_INTEGERS, *EDGES])
    )


# Verdicts


def is_refused(field: Field, value: Any) -> bool:
    """Whether a field of a body must refuse this, by its kind: it is no text, too long, of another type ..."""
    if isinstance(value, float) or (isinstance(value, str) and UNSTORABLE.search(value)):
        return True  # Of what is no metadata, nothing is a fraction.
    if field.name[-1] in ("content", "message") and isinstance(value, str) and len(value.encode()) > MEBIBYTE:
        return True
    if field.name[-1] == "username" and isinstance(value, str):
        return any(breaks(field, text) for text in (value, unicodedata.normalize("NFKC", value)))
    if field.name[-1] == "title" and isinstance(value, str):
        value = value.strip()
    if field.schema.get("format") == "date-time" and value is not None:
        return not (isinstance(value, str) and value.startswith("9999"))
    if field.name[-1] == "email":
        return value != ""
    return breaks(field, value)


def breaks(field: Field, value: Any) -> bool:
    """Whether it is not what the schema says; whose `$` is the end, and not before a last line feed."""
    ends = isinstance(value, str) and value.endswith("\n") and str(field.schema.get("pattern", "")).endswith("$")
    return ends or not field.validator.is_valid(value)


def is_refused_in_query(field: Field, text: str) -> bool:
    kind, form = field.schema.get("type"), field.schema.get("format")
    if text == "" or "\x00" in text or field.name[0] == "cursor" or form == "date":
        return True
    if kind == "integer":
        number = int(text) if INTEGER.fullmatch(text) else None
        return number is None or breaks(field, number)
    if form == "date-time":
        return text not in map(unquote_plus, hostile.SOMETIME)
    if field.name[0] == "session_id" and text.isdecimal() and (len(text) > 19 or int(text) >= 2**63):
        return True
    return breaks(field, text)


def is_refused_in_metadata(value: Value) -> bool:
    if value.name in hostile.REFUSED_VALUES and value.raw == hostile.REFUSED_VALUES[value.name]:
        return True
    text = value.read if isinstance(value.read, str) else ""
    return bool(UNSTORABLE.search(text)) or len(text.encode()) > METADATA_BYTES


def is_refused_as_metadata(value: Value) -> bool:
    if value.name == "32-objects":
        return False  # Too deep where it stands in another.
    return not (value.read is None or isinstance(value.read, dict)) or is_refused_in_metadata(value)


def is_refused_as_key(value: Value) -> bool:
    return bool(UNSTORABLE.search(value.read)) or len(value.read) > 255
