"""The viewsets of sessions and messages (contract 2 and 3): look up, authorise, validate, hand to services."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from django.conf import settings
from django.db.models import QuerySet
from django.utils.cache import get_conditional_response
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Workspace
from chatstore.http.bodies import body_of
from chatstore.http.conditional import tag_of
from chatstore.http.idempotency import REPLAYED, retry_of
from chatstore.http.openapi import IDEMPOTENCY_KEY, SESSION_REF
from chatstore.http.pagination import KeysetPagination, Read
from chatstore.http.problems import Invalid
from chatstore.http.viewsets import StrictViewSet
from chatstore.ids import row_id_of
from conversations import services
from conversations.api import examples, queries
from conversations.api.filters import ORDERS, MessageFilter, SessionFilter
from conversations.api.permissions import MessagePermission, SessionPermission, workspace_administered
from conversations.api.serializers import (
    BatchSerializer,
    DeletedMessageSerializer,
    MessageSerializer,
    SessionRestoreSerializer,
    SessionSerializer,
    SessionUpdateSerializer,
    by_column,
    shape_of,
)
from conversations.api.viewsets import MESSAGE_GONE, ConversationViewSet
from conversations.models import Message, Session, Turn
from conversations.shapes import MESSAGE_COLUMNS, SESSION_COLUMNS, message_shape, session_shape

# As tracing systems write them; the filter set says what is wrong with others.
SANE_TRACE_ID = re.compile(r"[!-~]{1,255}")


def created(data: Any, new: bool) -> Response:
    """201, the first time and in every replay (contract 1, retry)."""
    return Response(data, status.HTTP_201_CREATED, headers=None if new else {REPLAYED: "true"})


class SessionPagination(KeysetPagination):
    default_limit, max_limit = 50, 200


class SessionViewSet(ConversationViewSet):
    serializer_class = SessionSerializer
    permission_classes = (*StrictViewSet.permission_classes, SessionPermission)
    pagination_class = SessionPagination
    filterset_class = SessionFilter
    queryset = Session.objects.none()
    keyset = ("-updated_at", "-id")

    @extend_schema(operation_id="sessions_list", summary="List my sessions", tags=["sessions"])
    def list(self, request: Request) -> Response:
        """The caller's own, newest `updated_at` first. With `workspace` and `owner`, an admin of the
        workspace lists other people's."""
        return self.get_paginated_response(self.page_of(self.rows(), session_shape))

    def rows(self) -> QuerySet[Any, Any] | Read:
        if self.is_plain():
            self.check_query()
            return queries.own_page(self.caller)
        sessions = self.listed_sessions()
        self.check_query()
        return self.filter_queryset(sessions).values(*SESSION_COLUMNS)

    def listed_sessions(self) -> QuerySet[Session]:
        workspace = workspace_administered(self.request.query_params, self.caller)
        return queries.sessions_in(workspace) if workspace else queries.own_sessions(self.caller)

    @extend_schema(
        operation_id="sessions_create",
        summary="Create a session",
        tags=["sessions"],
        parameters=[IDEMPOTENCY_KEY],
        examples=examples.SESSION,
    )
    def create(self, request: Request) -> Response:
        """`{}` is enough."""
        self.check_query()
        said = SessionSerializer.validated(body_of(request))
        fields = by_column(said)
        workspace = self.workspace_of(fields.pop("workspace_id", None) or self.caller.confined_to)
        asked = {**said, "workspace_id": str(workspace.public_id)}
        retry = retry_of(request, "sessions", asked)
        session, new = services.create_session(self.caller, workspace, fields, retry)
        return created(session_shape(vars(session)), new)

    def workspace_of(self, public_id: Any) -> Workspace:
        """Where a new session goes: 422 where the caller is no member."""
        if public_id is None:
            return queries.personal_workspace(self.caller)
        workspace, role = queries.workspace_with_role(public_id, self.caller)
        if workspace is None or role is None:
            raise Invalid("body", {"workspace_id": ["You are not a member of such a workspace."]})
        return workspace

    @extend_schema(operation_id="sessions_retrieve", summary="Read a session", tags=["sessions"])
    def retrieve(self, request: Request, ref: str) -> Response:
        """By integer id or UUID."""
        session = self.session_named(ref)
        self.check_query()
        return Response(session_shape(vars(session)))

    @extend_schema(
        operation_id="sessions_update",
        summary="Change a session",
        tags=["sessions"],
        request=SessionUpdateSerializer(partial=True),
        responses=SessionSerializer,
    )
    def partial_update(self, request: Request, ref: str) -> Response:
        """`title`, `pocket_id` (null unlinks) and `metadata` (replaced whole). An admin of the workspace
        may rename other people's."""
        session = self.session_named(ref)
        self.check_query()
        said = SessionUpdateSerializer.validated(body_of(request), partial=True)
        changes = present(by_column(said), clearable=("pocket",))
        refuse_change("workspace_id", changes.pop("workspace_id", None), session.workspace_id)
        refuse_change("group_id", changes.pop("group", None), session.group)
        refuse_change("agent_id", changes.pop("agent", None), session.agent)
        if set(changes) - {"title"} and not session.is_owned_by(self.caller):
            raise PermissionDenied("Only the owner changes anything but the title.")
        return Response(session_shape(vars(services.change_session(session, changes))))

    @extend_schema(
        operation_id="sessions_delete",
        summary="Move a session to the trash",
        tags=["sessions"],
        responses={204: None},
    )
    def destroy(self, request: Request, ref: str) -> Response:
        """Gone from every read path at once; `restore` brings it back until it is purged."""
        session = self.session_named(ref)
        self.check_query()
        services.trash_session(session)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="sessions_restore",
        summary="Restore a session",
        tags=["sessions"],
        request=None,
        responses=SessionSerializer,
    )
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, ref: str) -> Response:
        """As it was before it was deleted. One that is not deleted stays as it is."""
        session = self.session_named(ref, deleted_too=True)
        self.check_query()
        SessionRestoreSerializer.validated(body_of(request))
        return Response(session_shape(vars(services.restore_session(session))))


def present(fields: Mapping[str, Any], clearable: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a change: null is as good as absent (contract 1), but where it clears."""
    return {name: value for name, value in fields.items() if value is not None or name in clearable}


def refuse_change(name: str, wanted: Any, current: Any) -> None:
    if wanted is not None and wanted != current:
        raise Invalid("body", {name: ["Cannot change after creation."]}, code="immutable_field")


class MessagePagination(KeysetPagination):
    default_limit, max_limit = 100, 500


MESSAGES = PolymorphicProxySerializer(
    component_name="MessageOrDeleted",
    serializers=[MessageSerializer, DeletedMessageSerializer],
    resource_type_field_name=None,
    many=True,
)
SESSION_ID = OpenApiParameter("session_id", SESSION_REF, description="A session, by integer id or UUID.")


class MessageViewSet(ConversationViewSet):
    """Messages, of a session named in the query; `SessionMessageViewSet` takes it from the path."""

    serializer_class = MessageSerializer
    permission_classes = (*StrictViewSet.permission_classes, MessagePermission)
    pagination_class = MessagePagination
    filterset_class = MessageFilter
    queryset = Message.objects.none()
    object_parameters: tuple[str, ...] = ("session_id",)
    of_session = ("after", "before", "since_version")

    def session(self) -> Session | None:
        """The session that the request names; None where it names none."""
        return self.session_in_query()

    def session_to_write(self) -> Session:
        session = self.session()
        if session is None:
            raise Invalid("query", {"session_id": ["This parameter is required."]})
        return session

    @property
    def keyset(self) -> tuple[str]:
        """By position in a session, by id across sessions."""
        column = "id" if self.of_one is None else "position"
        return (f"-{column}" if self.request.query_params.get("order") == "desc" else column,)

    @extend_schema(
        operation_id="messages_list",
        summary="List messages of a session, or of a trace",
        tags=["messages"],
        parameters=[SESSION_ID],
        responses=MESSAGES,
    )
    def list(self, request: Request, **kwargs: str) -> Response:
        """Of one session in order of position; or, by `trace_id` or `span_id`, of all that the caller may
        see, in order of id."""
        self.of_one = self.session()
        self.check_query()
        if self.of_one is None:
            self.check_search()
            found = self.page_of(self.rows(None), message_shape)
            return self.get_paginated_response(Turn.objects.shown(found))
        tag = self.tag_of_page(self.of_one)
        # Nobody holds the tag of a page that cannot be; `*` would match it.
        is_named = request.META.get("HTTP_IF_NONE_MATCH", "").strip() != "*"
        if is_named and (unchanged := get_conditional_response(request._request, tag)) is not None:
            unchanged["ETag"] = tag
            return cast(Response, unchanged)
        found = self.page_of(self.rows(self.of_one), partial(message_shape, session=self.of_one.session_id))
        # A text that is being written grows without a new version.
        final = all(message.get("status") != Message.Status.STREAMING for message in found)
        response = self.get_paginated_response(Turn.objects.shown(found))
        if final:
            response["ETag"] = tag
        return response

    def tag_of_page(self, session: Session) -> str:
        """What a page of this session looks like changes with the session's version, for one caller; an import may
        add messages of old versions, which the counters tell."""
        state = (session.pk, session.version, session.message_count, session.tokens, session.last_position)
        request = self.request._request
        return tag_of(*state, self.caller.pk, request.path, request.META["QUERY_STRING"], *MESSAGE_COLUMNS)

    def rows(self, session: Session | None) -> QuerySet[Any, Any] | Read:
        (order,) = self.keyset
        ordered = ("order",) if self.request.query_params.get("order") in ORDERS else ()
        if session is None:
            trace_id = self.request.query_params.get("trace_id", "")
            if SANE_TRACE_ID.fullmatch(trace_id) and self.is_plain("trace_id", *ordered):
                return queries.of_trace(trace_id, self.caller, order)
            found = self.filter_queryset(queries.messages_visible_to(self.caller))
            return found.values(*MESSAGE_COLUMNS, "session__session_id")
        if self.is_plain("session_id", *ordered):
            return queries.page_of(session, order)
        return self.filter_queryset(queries.messages_of(session)).values(*MESSAGE_COLUMNS)

    def check_search(self) -> None:
        """What a list without a session needs, and what it cannot take."""
        query = self.request.query_params
        if "trace_id" not in query and "span_id" not in query:
            raise Invalid("query", {"session_id": ["One of session_id, trace_id and span_id is required."]})
        if misplaced := [name for name in self.of_session if name in query]:
            raise Invalid("query", {name: ["Needs a session_id."] for name in misplaced})

    @extend_schema(
        operation_id="messages_create",
        summary="Append a message",
        tags=["messages"],
        parameters=[
            OpenApiParameter("session_id", SESSION_REF, required=True, description=SESSION_ID.description),
            IDEMPOTENCY_KEY,
        ],
        examples=examples.MESSAGE,
    )
    def create(self, request: Request, **kwargs: str) -> Response:
        """Takes the next position of its session."""
        session = self.session_to_write()
        self.check_query()
        message = MessageSerializer.validated(body_of(request))
        retry = retry_of(request, "messages", message)
        messages, new = services.append(session, [message], retry)
        return created(shape_of(messages[0]), new)

    def message_numbered(self, ref: str) -> Message:
        row_id = row_id_of(ref)
        message = queries.message_numbered(row_id, self.caller) if row_id else None
        if message is None:
            raise NotFound(MESSAGE_GONE)
        self.check_object_permissions(self.request, message)
        self.check_query()
        return message

    @extend_schema(operation_id="messages_retrieve", summary="Read a message", tags=["messages"])
    def retrieve(self, request: Request, ref: str) -> Response:
        (message,) = Turn.objects.shown([shape_of(self.message_numbered(ref))])
        return Response(message)

    @extend_schema(operation_id="messages_update", summary="Change a message", tags=["messages"])
    def partial_update(self, request: Request, ref: str) -> Response:
        """`content`, `metadata` (replaced whole), `tokens`, `tool_name`, `trace_id`, `span_id`."""
        message = self.message_numbered(ref)
        changes = present(MessageSerializer.validated(body_of(request), partial=True))
        refuse_change("role", changes.pop("role", None), message.role)
        return Response(shape_of(services.change_message(message, changes)))

    @extend_schema(
        operation_id="messages_delete", summary="Delete a message", tags=["messages"], responses={204: None}
    )
    def destroy(self, request: Request, ref: str) -> Response:
        """Final. Its position stays empty."""
        services.delete_message(self.message_numbered(ref))
        return Response(status=status.HTTP_204_NO_CONTENT)


class SessionMessageViewSet(MessageViewSet):
    """The messages of the session in the path."""

    object_parameters = ()

    def session(self) -> Session:
        return self.session_named(self.kwargs["session_ref"])

    def body_limit(self) -> int:
        return int(settings.MAX_BATCH_BODY_BYTES) if self.action == "batch" else super().body_limit()

    @extend_schema(
        operation_id="session_messages_list",
        summary="List messages of a session",
        tags=["messages"],
        responses=MESSAGES,
    )
    def list(self, request: Request, **kwargs: str) -> Response:
        """In order of position."""
        return super().list(request, **kwargs)

    @extend_schema(
        operation_id="session_messages_create",
        summary="Append a message",
        tags=["messages"],
        parameters=[IDEMPOTENCY_KEY],
        examples=examples.MESSAGE,
    )
    def create(self, request: Request, **kwargs: str) -> Response:
        """Takes the next position of its session."""
        return super().create(request, **kwargs)

    @extend_schema(
        operation_id="session_messages_batch",
        summary="Append messages",
        tags=["messages"],
        parameters=[IDEMPOTENCY_KEY],
        request=BatchSerializer,
        filters=False,
        responses={201: MessageSerializer(many=True)},
    )
    def batch(self, request: Request, **kwargs: str) -> Response:
        """All or none, in order, at consecutive positions."""
        session = self.session()
        self.check_query()
        batch = BatchSerializer.validated(body_of(request))["messages"]
        retry = retry_of(request, "messages/batch", batch)
        messages, new = services.append(session, batch, retry)
        return created([shape_of(message) for message in messages], new)
