"""Times on the wire: ISO 8601, UTC, `Z`, six digits of a second (contract 1)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

from django.utils.dateparse import parse_datetime
from rest_framework import serializers

# Python's parser also takes the digits of other scripts, what follows a NUL, and any character before the hour: a
# number of twenty digits would be a point in time.
WRITTEN_IN = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}([Tt ][0-9Zz:.,+ -]{1,30})?")


def wire_time(value: datetime) -> str:
    """`value` (aware, in UTC as the database gives it) as the API writes it."""
    return value.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def moment_of(text: str) -> datetime | None:
    """The point in time, in UTC, that `text` spells in ISO 8601; without an offset it is UTC already.

    None where it spells none, or one that does not exist in UTC (year 0 or 10000).
    """
    try:
        found = parse_datetime(text) if WRITTEN_IN.fullmatch(text) else None
        if found is None:
            return None
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def day_of(text: str) -> date | None:
    """The day that `text` spells as YYYY-MM-DD. None where it spells none."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if text == day.isoformat() else None


class DayField(serializers.DateField):
    """A day, and nothing that a day would have to be cut out of."""

    def to_internal_value(self, value: Any) -> date:
        found = day_of(value) if isinstance(value, str) else None
        if found is None:
            raise serializers.ValidationError("Must be a day as YYYY-MM-DD.", code="invalid")
        return found


class TimeField(serializers.DateTimeField):
    """A point in time; one without an offset is UTC."""

    def to_internal_value(self, value: Any) -> datetime:
        found = moment_of(value) if isinstance(value, str) else None
        if found is None:
            raise serializers.ValidationError("Must be a point in time in ISO 8601.", code="invalid")
        return found

    def to_representation(self, value: datetime) -> str:
        return wire_time(value)
