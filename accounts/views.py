from __future__ import annotations

from typing import cast

from django.conf import settings
from django.db.models import Prefetch, QuerySet, prefetch_related_objects
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services
from accounts.authentication import event_cookie
from accounts.authentication.credentials import Credential
from accounts.models import ApiToken, Membership, User
from accounts.permissions import InPerson, UserPermission
from accounts.serializers import (
    ApiTokenSerializer,
    IssuedApiTokenSerializer,
    MeSerializer,
    UserSerializer,
)
from chatstore.http.bodies import body_of
from chatstore.http.idempotency import REPLAYED, retry_of
from chatstore.http.openapi import IDEMPOTENCY_KEY
from chatstore.http.pagination import KeysetPagination
from chatstore.http.problems import Invalid, Refused
from chatstore.http.viewsets import StrictViewSet
from chatstore.ids import row_id_of


def caller(request: Request) -> User:
    return cast(User, request.user)


class MeViewSet(StrictViewSet):
    serializer_class = MeSerializer

    @extend_schema(operation_id="me", summary="Who am I?", tags=["me"])
    def retrieve(self, request: Request) -> Response:
        """The caller, with identities, and workspaces with the caller's role in each."""
        self.check_query()
        user = caller(request)
        memberships = Membership.objects.of(user).select_related("workspace").order_by("id")
        prefetch_related_objects([user], Prefetch("memberships", memberships))
        return Response(MeSerializer(user).data)


class ApiTokenViewSet(StrictViewSet):
    """One's own API tokens."""

    serializer_class = ApiTokenSerializer
    permission_classes = (*StrictViewSet.permission_classes, InPerson)
    pagination_class = KeysetPagination
    keyset = ("id",)
    queryset = ApiToken.objects.none()

    def get_queryset(self) -> QuerySet[ApiToken]:
        return ApiToken.objects.filter(user=caller(self.request))

    @extend_schema(operation_id="me_tokens_list", summary="List my API tokens", tags=["me"])
    def list(self, request: Request) -> Response:
        self.check_query()
        page = self.paginate_queryset(self.get_queryset().values())
        return self.get_paginated_response(ApiTokenSerializer(page, many=True).data)

    @extend_schema(
        operation_id="me_tokens_create",
        summary="Make an API token",
        tags=["me"],
        parameters=[IDEMPOTENCY_KEY],
        responses={201: IssuedApiTokenSerializer},
    )
    def create(self, request: Request) -> Response:
        """The answer holds the token itself, this once: it is stored as a digest. A replay cannot show it."""
        self.check_query()
        if not settings.ENVIRONMENT.api_tokens:
            raise Refused("This installation takes no API tokens.", code="api_tokens_off")
        said = ApiTokenSerializer.validated(body_of(request))
        retry = retry_of(request, "me/tokens", said)
        try:
            token, text = services.issue_token(caller(request), said, retry)
        except services.ExpiryPassed:
            raise Invalid("body", {"expires_at": ["Must be in the future."]}) from None
        body = ApiTokenSerializer(token).data | {"token": text}
        headers = {REPLAYED: "true"} if text is None else None
        return Response(body, status.HTTP_201_CREATED, headers=headers)

    @extend_schema(
        operation_id="me_tokens_revoke",
        summary="Revoke one of my API tokens",
        tags=["me"],
        responses={204: None},
    )
    def destroy(self, request: Request, ref: str) -> Response:
        """It opens nothing from the next request on. Revoking it again changes nothing."""
        token = self.get_queryset().filter(pk=row_id_of(ref) or 0).first()
        if token is None:
            raise NotFound
        self.check_query()
        token.revoke()
        return Response(status=status.HTTP_204_NO_CONTENT)


class EventCookieViewSet(StrictViewSet):
    """For a browser's EventSource, which cannot send headers (contract 5)."""

    permission_classes = (*StrictViewSet.permission_classes, InPerson)
    serializer_class = None

    @extend_schema(
        operation_id="event_cookie_set",
        summary="Get the cookie that opens event streams",
        tags=["me"],
        request=None,
        responses={204: None},
    )
    def create(self, request: Request) -> Response:
        """Ten minutes, or as long as the token lives; it opens the GETs of event streams and nothing else. It
        ends with the token that it was got with."""
        self.check_query()
        response = Response(status=status.HTTP_204_NO_CONTENT)
        event_cookie.put(response, caller(request), cast(Credential, request.auth))
        return response

    @extend_schema(
        operation_id="event_cookie_clear",
        summary="Clear the cookie that opens event streams",
        tags=["me"],
        responses={204: None},
    )
    def destroy(self, request: Request) -> Response:
        self.check_query()
        response = Response(status=status.HTTP_204_NO_CONTENT)
        event_cookie.clear(response)
        return response


class UserViewSet(StrictViewSet):
    """People, for callers who hold Django's permission for the verb; everybody else has themselves."""

    serializer_class = UserSerializer
    permission_classes = (*StrictViewSet.permission_classes, UserPermission)
    pagination_class = KeysetPagination
    keyset = ("id",)
    queryset = User.objects.order_by("id")

    def user_of(self, ref: str) -> User:
        user = self.get_queryset().filter(pk=row_id_of(ref) or 0).first()
        if user is None:
            raise NotFound
        self.check_object_permissions(self.request, user)
        self.check_query()
        return cast(User, user)

    @extend_schema(operation_id="users_list", summary="List users", tags=["users"])
    def list(self, request: Request) -> Response:
        """Needs Django's permission to view users."""
        self.check_query()
        columns = ("id", "public_id", "username", "name", "email", "is_active", "date_joined")
        page = self.paginate_queryset(self.get_queryset().values(*columns))
        return self.get_paginated_response(UserSerializer(page, many=True).data)

    @extend_schema(
        operation_id="users_create", summary="Make a user", tags=["users"], parameters=[IDEMPOTENCY_KEY]
    )
    def create(self, request: Request) -> Response:
        """Needs Django's permission to add users. The user has no password and a personal workspace."""
        self.check_query()
        said = UserSerializer.validated(body_of(request))
        retry = retry_of(request, "users", said)
        try:
            user, created = services.make_user(caller(request), said, retry)
        except services.UsernameTaken:
            raise Invalid("body", {"username": ["Is taken."]}) from None
        headers = None if created else {REPLAYED: "true"}
        return Response(UserSerializer(user).data, status.HTTP_201_CREATED, headers=headers)

    @extend_schema(operation_id="users_retrieve", summary="Read a user", tags=["users"])
    def retrieve(self, request: Request, ref: str) -> Response:
        """Oneself, or anybody with Django's permission to view users."""
        return Response(UserSerializer(self.user_of(ref)).data)

    @extend_schema(operation_id="users_update", summary="Change a user", tags=["users"])
    def partial_update(self, request: Request, ref: str) -> Response:
        """One's own name and email; with Django's permission to change users anybody's, and `is_active`."""
        user = self.user_of(ref)
        changes = UserSerializer.validated(body_of(request), partial=True)
        if changes.pop("username", user.username) != user.username:
            raise Invalid("body", {"username": ["Cannot change."]})
        if "is_active" in changes and not caller(request).has_perm("accounts.change_user"):
            raise PermissionDenied("Needs the permission to change users.")
        User.objects.filter(pk=user.pk).update(**changes)
        user.refresh_from_db()
        return Response(UserSerializer(user).data)

    @extend_schema(
        operation_id="users_deactivate", summary="Deactivate a user", tags=["users"], responses={204: None}
    )
    def destroy(self, request: Request, ref: str) -> Response:
        """Needs Django's permission to delete users. The user's tokens open nothing from then on; what they
        own stays. `manage.py eraseuser` is the way to delete a person and everything of theirs."""
        user = self.user_of(ref)
        User.objects.filter(pk=user.pk).update(is_active=False)
        return Response(status=status.HTTP_204_NO_CONTENT)
