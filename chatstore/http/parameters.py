"""Query parameters: nothing unknown, nothing twice, nothing empty, nothing coerced (contract 1, validation)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import QueryDict
from django_filters import rest_framework as filters
from rest_framework.request import Request
from rest_framework.views import APIView

from chatstore.http.fields import printable
from chatstore.http.problems import Invalid
from chatstore.http.times import moment_of
from chatstore.ids import MAX_BIGINT, UUID_TEXT, uuid_of

INTEGER = re.compile(r"0|[1-9][0-9]{0,18}")


def integer_of(
    query: Mapping[str, str], name: str, default: int, low: int, high: int, errors: dict[str, list[str]]
) -> int:
    """The integer parameter `name`; a fault is added to `errors`."""
    text = query.get(name)
    if text is None:
        return default
    if INTEGER.fullmatch(text) and low <= int(text) <= high:
        return int(text)
    errors[name] = [f"Must be an integer from {low} to {high}."]
    return default


def check_query(query: QueryDict, known: Collection[str]) -> None:
    """422 for a parameter that nobody knows, that stands twice, or that is empty."""
    errors = {}
    for name, values in query.lists():
        if name not in known:
            errors[printable(name)] = ["No such parameter."]
        elif len(values) > 1:
            errors[name] = ["Given more than once."]
        elif values[0] == "":
            errors[name] = ["Must not be empty."]
    if errors:
        raise Invalid("query", errors)


class IntegerField(forms.Field):
    """A whole number from 0 to 2^63 - 1, in ASCII digits."""

    def to_python(self, value: Any) -> int | None:
        if value in self.empty_values:
            return None
        if not INTEGER.fullmatch(value) or int(value) > MAX_BIGINT:
            raise ValidationError("Must be an integer from 0 to 2^63 - 1.", code="invalid")
        return int(value)


class UUIDField(forms.Field):
    def to_python(self, value: Any) -> uuid.UUID | None:
        if value in self.empty_values:
            return None
        if (found := uuid_of(value)) is None:
            raise ValidationError("Must be a dashed UUID.", code="invalid")
        return found


class MomentField(forms.Field):
    """ISO 8601, brought to UTC here: PostgreSQL refuses offsets beyond 15:59 that Python takes."""

    def to_python(self, value: Any) -> datetime | None:
        if value in self.empty_values:
            return None
        if (found := moment_of(value)) is None:
            raise ValidationError("Must be a point in time in ISO 8601.", code="invalid")
        return found


class IntegerFilter(filters.NumberFilter):
    schema = {"type": "integer", "minimum": 0, "maximum": MAX_BIGINT}
    field_class = IntegerField


class UUIDFilter(filters.UUIDFilter):
    schema = {"pattern": f"^{UUID_TEXT.pattern}$"}
    field_class = UUIDField


class MomentFilter(filters.IsoDateTimeFilter):
    field_class = MomentField


class TextFilter(filters.CharFilter):
    """Text of up to 255 characters, compared as it was sent."""

    schema = {"minLength": 1, "maxLength": 255}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **({"max_length": 255, "strip": False} | kwargs))


class StrictFilterBackend(filters.DjangoFilterBackend):
    """django-filter, with its errors as this API tells them."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: APIView) -> QuerySet[Any]:
        filterset = self.get_filterset(request, queryset, view)
        if filterset is None:
            return queryset
        if not filterset.is_valid():
            raise Invalid("query", {name: list(said) for name, said in filterset.errors.items()})
        return filterset.qs
