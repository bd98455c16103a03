"""The query parameters that narrow a list (contract 2 and 3)."""

from __future__ import annotations

import re
import uuid
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django_filters import rest_framework as filters

from chatstore.http.parameters import IntegerFilter, MomentFilter, TextFilter, UUIDFilter
from chatstore.ids import UUID_TEXT, uuid_of
from conversations.models import Message

EVERYBODY = "all"
ORDERS = ("asc", "desc")
OWNER = f"^({EVERYBODY}|{UUID_TEXT.pattern})$"


class TrashFilter(filters.ChoiceFilter):
    """`true` lists the trash; anything else what is live."""

    def filter(self, qs: Any, value: str) -> Any:
        return qs.deleted() if value == "true" else qs.live()


class OwnerField(forms.Field):
    def to_python(self, value: Any) -> uuid.UUID | str | None:
        if value in self.empty_values:
            return None
        if (found := value if value == EVERYBODY else uuid_of(value)) is None:
            raise ValidationError("Must be an owner's public id, or all.", code="invalid")
        return found


class OwnerFilter(filters.Filter):
    schema = {"type": "string", "pattern": OWNER}
    field_class = OwnerField

    def filter(self, qs: Any, value: Any) -> Any:
        return qs if value in (None, EVERYBODY) else qs.filter(owner_public_id=value)


class ContainedFilter(TextFilter):
    """Text contained in any case. By regular expression, since SQLite's LIKE knows the cases of ASCII only."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        return qs.filter(**{f"{self.field_name}__iregex": re.escape(value)}) if value else qs


class SessionFilter(filters.FilterSet):
    workspace = UUIDFilter(help_text="A workspace's public id.")
    owner = OwnerFilter(
        help_text="For admins of `workspace`, which must be given: a member's public id, or `all`."
    )
    pocket = TextFilter()
    group = TextFilter()
    agent = TextFilter()
    deleted = TrashFilter(choices=[("true", "true"), ("false", "false")], help_text="`true` lists the trash.")
    updated_since = MomentFilter(field_name="updated_at", lookup_expr="gte", help_text="ISO 8601.")
    title = ContainedFilter(help_text="Contained in the title, in any case.")


class SinceVersionFilter(IntegerFilter):
    """Rows changed after a version, deleted ones too; without it, rows that are there."""

    def filter(self, qs: QuerySet[Any], value: int | None) -> QuerySet[Any]:
        return qs.filter(deleted_at=None) if value is None else qs.filter(version__gt=value)


class OrderFilter(filters.ChoiceFilter):
    """Read by the view, which pages in that order."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        return qs


class MessageFilter(filters.FilterSet):
    role = filters.ChoiceFilter(choices=Message.Role.choices)
    trace_id = TextFilter(help_text="Exactly as it was sent.")
    span_id = TextFilter(help_text="Exactly as it was sent.")
    tool_name = TextFilter()
    after = IntegerFilter(field_name="position", lookup_expr="gt", help_text="A position; needs a session.")
    before = IntegerFilter(field_name="position", lookup_expr="lt", help_text="A position; needs a session.")
    since_version = SinceVersionFilter(
        field_name="version",
        help_text="Rows changed after this version of the session, deleted ones as "
        '`{"id", "position", "version", "deleted": true}`; needs a session.',
    )
    order = OrderFilter(choices=[(order, order) for order in ORDERS], help_text="`asc` by default.")
