"""What the JSON of people and tokens looks like."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts.models import Membership, User
from chatstore.http.fields import StrictBooleanField, StrictCharField, StrictSerializer
from chatstore.http.times import TimeField


class IdentitySerializer(serializers.Serializer[Any]):
    issuer = serializers.CharField()
    subject = serializers.CharField()


class MemberOfSerializer(serializers.Serializer[Any]):
    """A workspace, seen by one of its members."""

    id = serializers.UUIDField(source="workspace.public_id", help_text="The workspace's public id.")
    name = serializers.CharField(source="workspace.name")
    role = serializers.ChoiceField(choices=Membership.Role.choices)
    personal = serializers.SerializerMethodField()

    def get_personal(self, membership: Membership) -> bool:
        return membership.workspace.personal_of_id == membership.user_id


class UsernameField(StrictCharField):
    """As Django stores it: in the normal form NFKC, which can be longer than what was sent."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        found = super().run_validation(data)
        return super().run_validation(User.normalize_username(found))


class EmailField(StrictCharField, serializers.EmailField):
    """A string that is an email address, its domain in lower case; the empty string takes it away."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        found = super().run_validation(data)
        return super().run_validation(User.objects.normalize_email(found))


class UserSerializer(StrictSerializer):
    """A person or program."""

    id = serializers.IntegerField(read_only=True)
    public_id = serializers.UUIDField(read_only=True)
    username = UsernameField(
        required=False,
        max_length=150,
        validators=[User.username_validator],
        help_text="Unique. The public id where none is given; cannot change later.",
    )
    name = StrictCharField(required=False, allow_blank=True, max_length=255)
    email = EmailField(required=False, allow_blank=True, max_length=254)
    is_active = StrictBooleanField(required=False, help_text="Changes with Django's permission to change users.")
    created_at = TimeField(source="date_joined", read_only=True)


class MeSerializer(UserSerializer):
    """The caller, with what issuers call them and where they are a member."""

    identities = IdentitySerializer(many=True, read_only=True)
    workspaces = MemberOfSerializer(source="memberships", many=True, read_only=True)


class ApiTokenSerializer(StrictSerializer):
    """A bearer token; its text is shown once, when it is made."""

    id = serializers.IntegerField(read_only=True)
    name = StrictCharField(required=False, allow_blank=True, max_length=255, default="")
    prefix = serializers.CharField(read_only=True, help_text="The first characters, to tell tokens apart.")
    created_at = TimeField(read_only=True)
    expires_at = TimeField(required=False, allow_null=True, default=None)
    last_used_at = TimeField(read_only=True, allow_null=True)
    revoked_at = TimeField(read_only=True, allow_null=True)


class IssuedApiTokenSerializer(ApiTokenSerializer):
    """A token just made, or found again by its idempotency key."""

    token = serializers.CharField(
        read_only=True, allow_null=True, help_text="The token itself, this once. Null in a replay."
    )
