"""Serializer fields that take what the contract takes and coerce nothing (contract 1, validation and text)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from django.core.validators import ProhibitNullCharactersValidator
from django.utils.encoding import force_str
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.utils.serializer_helpers import BindingDict
from rest_framework.validators import ProhibitSurrogateCharactersValidator

# NUL cannot be stored by PostgreSQL and a lone surrogate is no Unicode scalar value: refused on every database.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

# For the OpenAPI document: text with something in it that Python does not trim.
NOT_BLANK = r"[^\s\u001c-\u001f\u0085]"

WALKING = (ProhibitNullCharactersValidator, ProhibitSurrogateCharactersValidator)

MAX_NUMBER = 2**63
MAX_METADATA_BYTES = 64 * 1024
MAX_METADATA_DEPTH = 32
MAX_METADATA_KEY = 255


class StrictCharField(serializers.CharField):
    """Text as it was sent: a JSON string, every Unicode scalar value but NUL, not trimmed.

    `max_bytes` bounds its UTF-8 form, `max_length` its characters.
    """

    default_error_messages = {
        "not_text": "Must be a string.",
        "unstorable": "Holds a NUL or a lone surrogate, which is not text.",
        "max_bytes": "Longer than {max_bytes} bytes of UTF-8.",
    }

    def __init__(self, *, max_bytes: int | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("trim_whitespace", False)
        self.max_bytes = max_bytes
        super().__init__(**kwargs)
        # UNSTORABLE says it of both at once; DRF's own walk through the text a character at a time.
        self.validators = [v for v in self.validators if type(v) not in WALKING]

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str):
            if UNSTORABLE.search(data):
                self.fail("unstorable")
            if self.max_bytes is not None and len(data.encode()) > self.max_bytes:
                self.fail("max_bytes", max_bytes=self.max_bytes)
        elif data is not None and data is not serializers.empty:
            self.fail("not_text")
        return super().run_validation(data)


class StrictIntegerField(serializers.IntegerField):
    """A JSON integer; `"5"`, `true` and `1.5` are none."""

    default_error_messages = {"not_integer": "Must be an integer."}

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("not_integer")
        return data


class StrictBooleanField(serializers.BooleanField):
    """JSON `true` or `false`, nothing that merely means them."""

    default_error_messages = {"not_boolean": "Must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("not_boolean")
        return data


class StrictChoiceField(serializers.ChoiceField):
    """One of the choices, as a string. The message lists them and does not repeat what was sent."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str) or data not in self.choices:
            raise serializers.ValidationError(
                f"Must be one of {', '.join(map(force_str, self.choices))}.", code="invalid_choice"
            )
        return data


def metadata_fault(value: Any, depth: int = 0) -> str | None:
    """What keeps `value` from being stored and read back equal, or None.

    Numbers are bounded because PostgreSQL gives 1e20 back as an integer that JSON encoders of fixed
    width refuse, which would break every later list that holds the row.
    """
    if isinstance(value, str):
        return "Holds a NUL or a lone surrogate, which is not text." if UNSTORABLE.search(value) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        # False for NaN too.
        return None if abs(value) < MAX_NUMBER else "Numbers must be finite and below 2^63 in size."
    if isinstance(value, dict | list):
        return container_fault(value, depth + 1)
    return None


def container_fault(value: dict[str, Any] | list[Any], depth: int) -> str | None:
    if depth > MAX_METADATA_DEPTH:
        return f"Nested deeper than {MAX_METADATA_DEPTH} levels."
    inner = value
    if isinstance(value, dict):
        if any(len(key) > MAX_METADATA_KEY for key in value):
            return f"A key is longer than {MAX_METADATA_KEY} characters."
        if any(UNSTORABLE.search(key) for key in value):
            return "A key holds a NUL or a lone surrogate, which is not text."
        inner = list(value.values())
    return next((fault for item in inner if (fault := metadata_fault(item, depth))), None)


@extend_schema_field(
    {"type": "object", "additionalProperties": {}, "propertyNames": {"maxLength": MAX_METADATA_KEY}}
)
class MetadataField(serializers.DictField):
    """A JSON object that every database stores and gives back equal (contract 1, limits)."""

    default_error_messages = {
        "not_an_object": "Must be an object.",
        "max_bytes": f"Larger than {MAX_METADATA_BYTES} bytes as JSON.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("not_an_object")
        if fault := metadata_fault(data):
            raise serializers.ValidationError(fault, code="invalid_metadata")
        if len(compact_json(data).encode()) > MAX_METADATA_BYTES:
            self.fail("max_bytes")
        return data


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses a field that nobody knows; ignores one that only the answer has (contract 1, validation).

    Its fields know nothing of a request, so all instances share them: DRF copies them for each, which takes longer
    than to validate a message.
    """

    @classmethod
    def validated(cls, data: Any, *, partial: bool = False) -> dict[str, Any]:
        """What a body says, by the names of the fields; ValidationError where it cannot be taken.

        As `is_valid()` of a new serializer, but of one that all requests share: DRF counts all that are made in an
        attribute of a class, and at each change Python forgets what it knows of the attributes of every field.
        """
        said: dict[str, Any] = shared_fields(cls, partial).serializer.run_validation(data)
        return said

    @property
    def fields(self) -> BindingDict:
        return shared_fields(type(self), self.partial)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := set(data) - set(self.fields)):
            raise serializers.ValidationError(
                {printable(name): ["No such field."] for name in unknown}, code="unknown_field"
            )
        return super().to_internal_value(data)


@cache
def shared_fields(kind: type[StrictSerializer], partial: bool) -> BindingDict:
    """Bound to a serializer that says whether values may be missing."""
    owner = kind(partial=partial)
    found = BindingDict(owner)
    for name, field in owner.get_fields().items():
        found[name] = field
    return found


def printable(name: str) -> str:
    """A name that a client sent, safe and short enough to say back."""
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", name)[:100]


def compact_json(value: Any) -> str:
    """`value` in the shortest JSON, keys in order: what is measured against limits and digested.
    UUIDs and times become strings."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
