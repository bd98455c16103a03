"""What the JSON of chat and history looks like (contract 4; the shapes of the service that its clients know)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from chatstore.http.fields import StrictCharField
from chatstore.http.openapi import SESSION_REF
from chatstore.http.times import TimeField, wire_time
from chatstore.ids import MAX_BIGINT, row_id_of, uuid_of
from conversations.models import Message

# What a client of this API calls the roles.
ROLES = {Message.Role.TOOL_CALL.value: "tool"}


@extend_schema_field({"oneOf": [{"type": "integer", "minimum": 1, "maximum": MAX_BIGINT}, SESSION_REF]})
class SessionRefField(serializers.Field[str, Any, Any, Any]):
    """A session by its integer id, as a number or a string, or its UUID."""

    default_error_messages = {"malformed": "Must be an integer id or a UUID."}

    def to_internal_value(self, data: Any) -> str:
        ref = str(data) if isinstance(data, str | int) and not isinstance(data, bool) else ""
        if uuid_of(ref) is None and row_id_of(ref) is None:
            self.fail("malformed")
        return ref

    def to_representation(self, value: Any) -> Any:
        return value


class ChatSerializer(serializers.Serializer[Any]):
    """What somebody says. Fields that nobody knows are ignored here (contract 1, validation)."""

    message = StrictCharField(max_bytes=settings.ENVIRONMENT.max_content_bytes)
    conversation_id = SessionRefField(required=False, allow_null=True)


class ConversationSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    title = serializers.CharField()
    created_at = TimeField()
    updated_at = TimeField()

    def to_representation(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": instance["id"],
            "title": instance["title"],
            "created_at": wire_time(instance["created_at"]),
            "updated_at": wire_time(instance["updated_at"]),
        }


class ConversationMessageSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    role = serializers.CharField(help_text="`tool` for the marker of a tool call.")
    content = serializers.CharField()
    message_metadata = serializers.DictField(allow_null=True)
    created_at = TimeField()

    def to_representation(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": instance["id"],
            "role": ROLES.get(instance["role"], instance["role"]),
            "content": instance["content"],
            "message_metadata": instance["metadata"],
            "created_at": wire_time(instance["created_at"]),
        }


class ConversationDetailSerializer(ConversationSerializer):
    messages = ConversationMessageSerializer(many=True)
    has_more = serializers.BooleanField(help_text="Whether there are older ones.")
    total_count = serializers.IntegerField()


class OperationSerializer(serializers.Serializer[Any]):
    tool_name = serializers.CharField()
    status = serializers.CharField()
    details = serializers.CharField()


class ChatAnswerSerializer(serializers.Serializer[Any]):
    conversation_id = serializers.IntegerField()
    user_message = ConversationMessageSerializer()
    assistant_message = ConversationMessageSerializer(allow_null=True)
    operations = OperationSerializer(many=True)
