"""The routes of chat and history (contract 4), in the shapes of the service that their clients know."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

from django.conf import settings
from django.db import connections
from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication.bearer import BearerAuthentication
from accounts.authentication.credentials import Credential
from accounts.authentication.event_cookie import EventCookieAuthentication
from accounts.models import Membership, User, Workspace
from chatstore.http.bodies import body_of
from chatstore.http.idempotency import REPLAYED, retry_of
from chatstore.http.openapi import IDEMPOTENCY_KEY, event_stream
from chatstore.http.pagination import KeysetPagination
from chatstore.http.parameters import check_query, integer_of
from chatstore.http.problems import Conflict, Invalid, Refused, Unavailable
from chatstore.http.times import wire_time
from chatstore.http.viewsets import StrictViewSet
from chatstore.retries import Retry
from conversations import services
from conversations.chat import records, stored
from conversations.chat.assistants import Asked, Assistant, assistant_at
from conversations.chat.events import EVENT_ID, Events, Place, place_of
from conversations.chat.feed import Watcher
from conversations.chat.keeper import KEEPER
from conversations.chat.serializers import (
    ChatAnswerSerializer,
    ChatSerializer,
    ConversationDetailSerializer,
    ConversationMessageSerializer,
    ConversationSerializer,
)
from conversations.chat.sse import HEARTBEAT_SECONDS, EventStream, frame, slot_taken
from conversations.chat.turn import RunningTurn, Told
from conversations.models import Session, Turn

STOP_SECONDS = 1
OF_A_TURN = ("text_delta", "tool_call_started", "tool_call_completed", "message_created", "done", "error")
OF_A_SESSION = (
    "message_created",
    "message_updated",
    "message_deleted",
    "session_updated",
    "session_deleted",
    "text_delta",
    "tool_call_started",
    "tool_call_completed",
    "done",
)
NOT_FOUND = "Conversation not found or you don't have access"


class AssistantFailed(APIException):
    status_code = status.HTTP_502_BAD_GATEWAY
    default_detail = "The assistant failed."
    default_code = "assistant_failed"


class TurnIsRunning(Conflict):
    """A 409 that says which."""

    def __init__(self, turn: Turn) -> None:
        super().__init__("A reply is being written in this conversation.", code="turn_running")
        started = wire_time(turn.started_at)
        self.members = {"turn": {"id": turn.pk, "conversation_id": turn.session_id, "started_at": started}}


ANSWERS: dict[type[Exception], APIException] = {
    services.SessionGone: NotFound(NOT_FOUND),
    services.MessageGone: NotFound(NOT_FOUND),
    services.QuotaReached: Refused("You have as many sessions as you may.", code="session_quota_reached"),
}


class ChatWingViewSet(StrictViewSet):
    """Unknown fields and parameters are ignored on these routes (contract 1, validation)."""

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, records.TurnRunning):
            exc = TurnIsRunning(exc.turn)
        return super().handle_exception(ANSWERS.get(type(exc), exc))

    @property
    def caller(self) -> User:
        return cast(User, self.request.user)


class ChatViewSet(ChatWingViewSet):
    serializer_class = ChatSerializer

    @extend_schema(
        operation_id="chat",
        summary="Say something, and get the reply",
        tags=["chat"],
        parameters=[IDEMPOTENCY_KEY],
        responses={200: ChatAnswerSerializer},
    )
    def create(self, request: Request) -> HttpResponseBase:
        """Answers when the reply is complete; with `Accept: text/event-stream` as `/api/chat/stream` does. The
        message is stored before the assistant is asked; a client that leaves does not stop the reply. 409 while
        another reply is being written."""
        if "text/event-stream" in request.headers.get("Accept", ""):
            return self.stream(request)
        with slot_taken() as slot:
            begun, running = self.begun(request)
            connections.close_all()
            for _ in events_of(begun.turn, running):
                pass  # Until the last.
            slot.give_back()
        headers = None if begun.is_new else {REPLAYED: "true"}
        return Response(self.answer(begun, running), headers=headers)

    @extend_schema(
        operation_id="chat_stream",
        summary="Say something, and watch the reply",
        tags=["chat"],
        parameters=[IDEMPOTENCY_KEY],
        responses={(200, "text/event-stream"): event_stream(*OF_A_TURN)},
    )
    def stream(self, request: Request) -> HttpResponseBase:
        """Server-sent events without names, one `data:` line of JSON each: `text_delta`, `tool_call_started`,
        `tool_call_completed`, `message_created`, and last `done` or `error`."""
        with slot_taken() as slot:
            begun, running = self.begun(request)
            events = events_of(begun.turn, running)
            response = EventStream(request, (b"".join(map(frame, fresh)) for fresh in events), slot)
        if not begun.is_new:
            response.headers[REPLAYED] = "true"
        return response

    def begun(self, request: Request) -> tuple[records.Begun, RunningTurn | None]:
        """The turn that this request begins or joins; and as it runs, where it runs in this process."""
        if not KEEPER.has_room:
            raise Unavailable("This server takes no more replies now; try again.")
        assistant = assistant_at(settings.ENVIRONMENT.assistant)
        serializer = ChatSerializer(data=body_of(request))
        serializer.is_valid(raise_exception=True)
        said = serializer.validated_data
        retry = retry_of(request, "chat", {**said, "workspace": str(self.caller.confined_to or "")})
        session = self.session_for(said.get("conversation_id"), retry)
        begun = records.begin(session, said["message"], KEEPER.worker, retry)
        return begun, start(begun.turn, session, assistant) if begun.is_new else KEEPER.find(begun.turn)

    def session_for(self, ref: str | None, retry: Retry | None) -> Session:
        """The caller's own session, or a new one. An admin of the workspace does not append to other people's."""
        if ref is not None:
            session = Session.objects.live().owned_by(self.caller).named(ref).first()
            if session is None:
                raise NotFound(NOT_FOUND)
            return session
        title = f"Chat - {datetime.now(UTC):%Y-%m-%d %H:%M}"
        fields = {"title": title, "titled": False}
        return services.create_session(self.caller, self.workspace(), fields, retry)[0]

    def workspace(self) -> Workspace:
        confined_to = self.caller.confined_to
        if confined_to is None:
            return self.caller.personal_workspace()
        membership = Membership.objects.of(self.caller).select_related("workspace").first()
        assert membership is not None
        return membership.workspace

    def answer(self, begun: records.Begun, running: RunningTurn | None) -> dict[str, Any]:
        """What the turn has come to: an interrupted reply as far as it came."""
        turn = Turn.objects.filter(pk=begun.turn.pk).select_related("session").first()
        if turn is None or turn.session.deleted_at:
            raise NotFound(NOT_FOUND)
        if turn.status == Turn.Status.FAILED:
            raise AssistantFailed
        rows = stored.rows_of(turn)
        texts = [row for row in rows if row["role"] == "assistant"]
        shown = ConversationMessageSerializer()
        question = stored.message_at(turn.session, turn.question)
        return {
            "conversation_id": turn.session_id,
            "user_message": question and shown.to_representation(question),
            "assistant_message": shown.to_representation(texts[-1]) if texts else None,
            "operations": list(running.operations.values()) if running else stored.operations_of(rows),
        }


def start(turn: Turn, session: Session, assistant: Assistant) -> RunningTurn:
    """Ask the assistant; in a thread of the turn's own. Where that cannot be, the turn has failed."""
    try:
        asked = Asked(str(session.session_id), stored.history(session, turn.question))
        running = RunningTurn(turn, assistant, asked)
        KEEPER.keep(running)
    except Exception:
        records.finish(turn, Turn.Status.FAILED, {}, None)
        raise
    return running


def events_of(turn: Turn, running: RunningTurn | None) -> Iterator[list[Told]]:
    """The turn's events from the first on, as they run in this process, or as they are stored."""
    return running.watch(HEARTBEAT_SECONDS) if running else stored.watch(turn, HEARTBEAT_SECONDS)


class StopViewSet(StrictViewSet):
    """Stops the running reply of a session."""

    @extend_schema(
        operation_id="sessions_stop",
        summary="Stop the reply that is being written",
        tags=["chat"],
        request=None,
        responses={202: None},
    )
    def create(self, request: Request, ref: str) -> Response:
        """What was written stays, as `interrupted`, at the latest a second or two later. Nothing happens where no
        reply is being written."""
        session = session_of(request, ref)
        if not session.is_owned_by(caller(request)):
            raise PermissionDenied("You may not use this session.")
        self.check_query()
        turn = records.ask_to_stop(session)
        if turn and (running := KEEPER.find(turn)):
            connections.close_all()  # The turn may need one, to come to its end.
            running.interrupt_soon()
            running.is_over.wait(STOP_SECONDS)
        return Response(status=status.HTTP_202_ACCEPTED)


A_PLACE: dict[str, Any] = {"type": "string", "pattern": f"^({EVENT_ID.pattern})$"}
A_PLACE_OR_NONE = A_PLACE | {"pattern": f"^({EVENT_ID.pattern})?$"}
LAST_EVENT_ID = [
    OpenApiParameter("Last-Event-ID", A_PLACE_OR_NONE, OpenApiParameter.HEADER, description="Where to go on."),
    OpenApiParameter("last_event_id", A_PLACE, description="The same, where the header is not sent."),
]


class EventViewSet(StrictViewSet):
    """The live events of a session. EventSource cannot send a header: `/auth/session` gives it a cookie. No HEAD:
    an answer without a body would never end, and hold its place."""

    http_method_names = ["get"]
    authentication_classes = (BearerAuthentication, EventCookieAuthentication)
    object_parameters = ("last_event_id",)

    @extend_schema(
        operation_id="sessions_events",
        summary="Watch a session",
        tags=["chat"],
        parameters=LAST_EVENT_ID,
        responses={(200, "text/event-stream"): event_stream(*OF_A_SESSION)},
    )
    def retrieve(self, request: Request, ref: str) -> HttpResponseBase:
        """Server-sent events, named as well as typed: `message_created`, `message_updated`, `message_deleted`,
        `session_updated`, `session_deleted`, `text_delta`, `tool_call_started`, `tool_call_completed`, `done`.
        Whoever comes back with `Last-Event-ID` misses nothing; whoever joins late gets a running reply from its
        beginning."""
        session = session_of(request, ref)
        if not (session.is_owned_by(caller(request)) or session.is_administered_by(caller(request))):
            raise PermissionDenied("You may not use this session.")
        check_query(request.query_params, {"last_event_id"})
        credential = cast(Credential, request.auth)
        watcher = Watcher(session.pk, caller(request).pk, credential, caller(request).confined_to)
        with slot_taken() as slot:
            frames = Events(session, watcher, place_in(request)).frames(HEARTBEAT_SECONDS)
            return EventStream(request, frames, slot)


def place_in(request: Request) -> Place | None:
    """Where the client has read up to: what the header says counts, then the query. None where neither does."""
    said, asked = request.headers.get("Last-Event-ID", ""), request.query_params.get("last_event_id", "")
    if said and place_of(said) is None:
        raise Invalid("header", {"Last-Event-ID": ["Is not the id of an event."]})
    if asked and place_of(asked) is None:
        raise Invalid("query", {"last_event_id": ["Is not the id of an event."]})
    return place_of(said or asked)


def caller(request: Request) -> User:
    return cast(User, request.user)


def session_of(request: Request, ref: str) -> Session:
    """A live session with the caller's role in its workspace; 404 where there is none."""
    session = Session.objects.live().named(ref).with_role_of(caller(request)).first()
    if session is None:
        raise NotFound("There is no such session.")
    return session


class ConversationPagination(KeysetPagination):
    default_limit = max_limit = 1000


MESSAGES_OF_PAGE = [
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": 1000},
        description="The newest messages; 1,000 by default and at most.",
    ),
    OpenApiParameter(
        "offset",
        {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        description="Newest messages to leave out.",
    ),
]


class ConversationViewSet(ChatWingViewSet):
    """The caller's sessions as conversations."""

    serializer_class = ConversationSerializer
    pagination_class = ConversationPagination
    queryset = Session.objects.none()
    keyset = ("-updated_at", "-id")

    @extend_schema(operation_id="conversations_list", summary="List my conversations", tags=["chat"])
    def list(self, request: Request) -> Response:
        """Newest first."""
        own = Session.objects.live().owned_by(self.caller)
        page = self.paginate_queryset(own.values("id", "title", "created_at", "updated_at"))
        return self.get_paginated_response(ConversationSerializer(page, many=True).data)

    @extend_schema(
        operation_id="conversations_retrieve",
        summary="Read a conversation",
        tags=["chat"],
        parameters=MESSAGES_OF_PAGE,
        responses=ConversationDetailSerializer,
    )
    def retrieve(self, request: Request, ref: str) -> Response:
        """With its messages in order: the newest `limit`, but for the newest `offset`."""
        session = Session.objects.live().visible_to(self.caller).named(ref).first()
        if session is None:
            raise NotFound(NOT_FOUND)
        limit, offset = page_of(request)
        newest = stored.live_messages(session).order_by("-position").values(*stored.COLUMNS)
        rows = list(newest[offset : offset + limit])[::-1]
        body = {
            **ConversationSerializer().to_representation(vars(session)),
            "messages": ConversationMessageSerializer(rows, many=True).data,
            "has_more": offset + len(rows) < session.message_count,
            "total_count": session.message_count,
        }
        return Response(body)


def page_of(request: Request) -> tuple[int, int]:
    errors: dict[str, list[str]] = {}
    query = request.query_params
    limit = integer_of(query, "limit", 1000, 1, 1000, errors)
    offset = integer_of(query, "offset", 0, 0, 2**31 - 1, errors)
    if errors:
        raise Invalid("query", errors)
    return limit, offset
