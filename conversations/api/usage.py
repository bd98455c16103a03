"""What was used: GET /api/usage/."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, timedelta
from typing import Any, Final

from django.db.models import QuerySet
from django.http import QueryDict
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from chatstore.http.fields import StrictCharField, StrictChoiceField
from chatstore.http.parameters import check_query
from chatstore.http.problems import Invalid
from chatstore.http.times import DayField, TimeField, wire_time
from chatstore.ids import uuid_of
from conversations.api import examples
from conversations.api.filters import EVERYBODY, OWNER
from conversations.api.permissions import workspace_administered
from conversations.api.serializers import PublicIdField
from conversations.api.viewsets import ConversationViewSet
from conversations.exact_usage import By, Group, Used, used
from conversations.models import Session, Usage

MOST_DAYS: Final = 366
# What adds up over days. Sessions do not.
SUMS: Final = ("messages", "tokens", "interrupted", "failed")


class OwnerField(StrictCharField):
    """A public id, or `all`."""

    schema = {"pattern": OWNER}
    default_error_messages = {"not_an_owner": "Must be an owner's public id, or all."}

    def to_internal_value(self, data: Any) -> Any:
        text = super().to_internal_value(data)
        found = text if text == EVERYBODY else uuid_of(text)
        if found is None:
            self.fail("not_an_owner")
        return found


class UsageQuerySerializer(serializers.Serializer[Any]):
    """The query: whose, when, and by what. `from` is `first` and `to` is `last` in what is validated."""

    to = DayField(source="last", required=False, help_text="The last UTC day; today by default.")
    group_by = StrictChoiceField(choices=[*By], default=By.DAY.value)
    workspace = PublicIdField(required=False, help_text="A workspace's public id.")
    owner = OwnerField(
        required=False,
        help_text="For admins of `workspace`, which must be given: a member's public id, or `all`.",
    )

    def get_fields(self) -> dict[str, Any]:
        first = DayField(
            source="first",
            required=False,
            help_text=f"The first UTC day; of the month of `to` by default. {MOST_DAYS} days at most.",
        )
        return {"from": first, **super().get_fields()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        last = attrs.setdefault("last", timezone.now().astimezone(UTC).date())
        first = attrs.setdefault("first", last.replace(day=1))
        if first > last:
            raise serializers.ValidationError({"from": ["Must not be after to."]})
        if last - first >= timedelta(days=MOST_DAYS):
            raise serializers.ValidationError({"from": [f"Must be within {MOST_DAYS} days of to."]})
        return attrs


class UsageGroupSerializer(serializers.Serializer[Any]):
    """Of day, role, agent and workspace it has the one that `group_by` names."""

    day = serializers.DateField(required=False)
    role = serializers.CharField(required=False)
    agent = serializers.CharField(required=False, allow_null=True, help_text="Null for sessions without one.")
    workspace = serializers.UUIDField(required=False, help_text="The workspace's public id.")
    messages = serializers.IntegerField()
    tokens = serializers.IntegerField()
    interrupted = serializers.IntegerField(help_text="Messages that were not finished.")
    failed = serializers.IntegerField(help_text="Messages that failed.")
    sessions = serializers.IntegerField(required=False, help_text="By day alone: over days they do not add up.")


class UsageSerializer(serializers.Serializer[Any]):
    """What was used in a range of UTC days, both included; deleted messages are in it."""

    to = serializers.DateField()
    as_of = TimeField(help_text="Whatever was stored by then is counted.")
    group_by = serializers.ChoiceField(choices=[*By])
    messages = serializers.IntegerField(help_text="Of the whole range, as all sums beside it.")
    tokens = serializers.IntegerField()
    interrupted = serializers.IntegerField()
    failed = serializers.IntegerField()
    groups = UsageGroupSerializer(many=True)

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.DateField(), **super().get_fields()}


def usage_shape(first: date, last: date, by: By, found: Used) -> dict[str, Any]:
    return {
        "from": first.isoformat(),
        "to": last.isoformat(),
        "as_of": wire_time(found.as_of),
        "group_by": by.value,
        **{name: sum(getattr(group, name) for group in found.groups) for name in SUMS},
        "groups": [group_shape(by, group) for group in found.groups],
    }


def group_shape(by: By, group: Group) -> dict[str, Any]:
    shape = {by.value: group.key or None, **{name: getattr(group, name) for name in SUMS}}
    return {**shape, "sessions": group.sessions} if by == By.DAY else shape


def validated(query: QueryDict) -> dict[str, Any]:
    """What the query asks for; 422 where it cannot be understood."""
    serializer = UsageQuerySerializer(data=query.dict())
    check_query(query, serializer.fields)
    if not serializer.is_valid():
        raise Invalid("query", serializer.errors)
    return serializer.validated_data


def narrowed(rows: QuerySet[Any], asked: Mapping[str, Any]) -> QuerySet[Any]:
    """Those of one workspace, or of one owner, where that is asked for."""
    if "workspace" in asked:
        rows = rows.filter(workspace=asked["workspace"])
    owner = asked.get("owner", EVERYBODY)
    return rows if owner == EVERYBODY else rows.filter(owner__public_id=owner)


class UsageViewSet(ConversationViewSet):
    serializer_class = UsageSerializer

    @extend_schema(
        operation_id="usage",
        summary="What was used?",
        tags=["usage"],
        parameters=[UsageQuerySerializer],
        examples=examples.USAGE,
    )
    def retrieve(self, request: Request) -> Response:
        """By the caller, in workspaces they are a member of; this month and by day, where nothing else is asked
        for. With `workspace` and `owner`, an admin of the workspace asks for other people's. Days come in order,
        other groups by most messages; what nobody used has no group."""
        of_both = self.sessions_and_usage()
        asked = validated(request.query_params)
        sessions, stored = (narrowed(rows, asked) for rows in of_both)
        first, last, by = asked["first"], asked["last"], By(asked["group_by"])
        return Response(usage_shape(first, last, by, used(first, last, by, sessions, stored)))

    def sessions_and_usage(self) -> tuple[QuerySet[Any], QuerySet[Any]]:
        """The caller's own rows; or all of the workspace that they administer, where they ask for others'."""
        workspace = workspace_administered(self.request.query_params, self.caller)
        if workspace is None:
            return Session.objects.owned_by(self.caller), Usage.objects.owned_by(self.caller)
        return Session.objects.filter(workspace=workspace), Usage.objects.filter(workspace=workspace)
