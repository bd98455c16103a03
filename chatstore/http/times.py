"""Times on the wire: ISO 8601, UTC, `Z`, six digits of a second (contract 1)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.utils.dateparse import parse_datetime
from rest_framework import serializers


def wire_time(value: datetime) -> str:
    """`value` (aware, in UTC as the database gives it) as the API writes it."""
    return value.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


class TimeField(serializers.DateTimeField):
    """A point in time; one without an offset is UTC."""

    def to_internal_value(self, value: Any) -> datetime:
        found = None
        if isinstance(value, str):
            try:
                found = parse_datetime(value)
                found = found and (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
            except (ValueError, OverflowError):
                found = None
        if found is None:
            raise serializers.ValidationError("Must be a point in time in ISO 8601.", code="invalid")
        return found

    def to_representation(self, value: datetime) -> str:
        return wire_time(value)
