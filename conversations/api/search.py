"""Search of one's own messages: `GET /api/search/?q=`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.db.models.functions import Left
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from chatstore.http.fields import NOT_BLANK
from chatstore.http.openapi import SESSION_REF
from chatstore.http.pagination import KeysetPagination
from chatstore.http.parameters import MomentFilter, UUIDFilter
from chatstore.http.problems import Invalid, Unavailable
from chatstore.http.times import TimeField, wire_time
from chatstore.http.viewsets import StrictViewSet
from conversations import search
from conversations.api.permissions import MessagePermission
from conversations.api.viewsets import ConversationViewSet
from conversations.models import Message, MessageQuerySet, Session, SessionQuerySet, Turn
from conversations.search_index import SEARCHED

PARTIAL = "Search-Partial"
TOO_MUCH = "The newest messages are too long to be looked through in time; narrow the search."
COLUMNS = ("id", "session_id", "session__session_id", "session__title", "position", "role", "status", "created_at")


class WordsField(forms.CharField):
    """1 to 255 characters after trimming, of ten words at most."""

    def clean(self, value: Any) -> list[str]:
        words = search.words_of(super().clean(value))
        if len(words) > search.MOST_WORDS:
            raise ValidationError(f"At most {search.MOST_WORDS} words.", code="too_many_words")
        return words


class WordsFilter(filters.CharFilter):
    """Read by the view, which looks no further than it must."""

    schema = {"minLength": 1, "maxLength": 255, "pattern": NOT_BLANK}
    field_class = WordsField

    def filter(self, qs: QuerySet[Any], value: Any) -> QuerySet[Any]:
        return qs


class PlaceFilter(UUIDFilter):
    """Read by the view: it narrows sessions."""

    def filter(self, qs: QuerySet[Any], value: Any) -> QuerySet[Any]:
        return qs


class SearchFilter(filters.FilterSet):
    q = WordsFilter(
        required=True,
        max_length=255,
        help_text="Each word must be there, in any case, at the beginning of a word: ten words at most.",
    )
    workspace = PlaceFilter(help_text="A workspace's public id.")
    role = filters.ChoiceFilter(choices=Message.Role.choices)
    since = MomentFilter(field_name="created_at", lookup_expr="gte", help_text="Said then or later; ISO 8601.")
    until = MomentFilter(field_name="created_at", lookup_expr="lt", help_text="Said before; ISO 8601.")


class PartSerializer(serializers.Serializer[Any]):
    text = serializers.CharField(help_text="Plain text, as it was sent.")
    match = serializers.BooleanField(help_text="Whether it is a word that was searched for.")


class FoundSerializer(serializers.Serializer[Any]):
    """A message that was found, and where to read it: `position` in the session."""

    id = serializers.IntegerField()
    session_id = serializers.IntegerField(help_text="The session's integer id.")
    session = serializers.UUIDField(help_text="The session's UUID.")
    title = serializers.CharField(help_text="The session's title.")
    position = serializers.IntegerField(help_text="In the session; `after=` one less begins a list with it.")
    role = serializers.ChoiceField(choices=Message.Role.choices)
    status = serializers.ChoiceField(choices=Message.Status.choices)
    created_at = TimeField()
    excerpts = serializers.ListField(
        child=PartSerializer(many=True), help_text="One to three; the parts of each, in order."
    )


def found_shape(row: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "session_id": row["session_id"],
        "session": str(row["session__session_id"]),
        "title": row["session__title"],
        "position": row["position"],
        "role": row["role"],
        "status": row["status"],
        "created_at": wire_time(row["created_at"]),
        "excerpts": search.excerpts(row["searched"], words),
    }


class SearchPagination(KeysetPagination):
    default_limit, max_limit = 20, 100


class SearchViewSet(ConversationViewSet):
    serializer_class = FoundSerializer
    permission_classes = (*StrictViewSet.permission_classes, MessagePermission)
    pagination_class = SearchPagination
    filterset_class = SearchFilter
    queryset = Message.objects.none()
    keyset = ("-id",)
    object_parameters = ("session_id",)

    @extend_schema(
        operation_id="search",
        summary="Search my messages",
        tags=["messages"],
        parameters=[OpenApiParameter("session_id", SESSION_REF, description="A session, by integer id or UUID.")],
        responses=OpenApiResponse(
            FoundSerializer(many=True),
            description="`Search-Partial: true` where older messages were not looked at: narrow the search.",
        ),
    )
    def list(self, request: Request) -> Response:
        """The caller's own messages that say all the words, newest first; or those of a session that they may
        read. Of a message the first 200,000 characters are searched."""
        session = self.session_in_query()
        self.check_query()
        messages, asked = self.narrowed()
        sessions = self.sessions(session, asked)
        is_partial = False

        def read(last: Sequence[Any] | None, skip: int, limit: int) -> list[dict[str, Any]]:
            nonlocal is_partial
            before = last[0] if last else None
            try:
                found = search.find(messages, sessions, asked["q"], before=before, skip=skip, limit=limit)
            except search.TooMuchToRead:
                raise Unavailable(TOO_MUCH) from None
            is_partial = found.is_partial
            return [{"id": key} for key in found.keys]

        keys = [row["id"] for row in self.page_of(read)]
        answer = self.get_paginated_response([found_shape(row, asked["q"]) for row in rows_of(keys)])
        if is_partial:
            answer[PARTIAL] = "true"
        return answer

    def narrowed(self) -> tuple[MessageQuerySet, dict[str, Any]]:
        """The messages of the right role and time, and what was asked for, by parameter."""
        filterset = SearchFilter(self.request.query_params, Message.objects.filter(deleted_at=None))
        if not filterset.is_valid():
            raise Invalid("query", {name: list(said) for name, said in filterset.errors.items()})
        return cast(MessageQuerySet, filterset.qs), filterset.form.cleaned_data

    def sessions(self, session: Session | None, asked: Mapping[str, Any]) -> SessionQuerySet:
        """Where to look: nothing is said in a session before it begins, or after its last change."""
        if session is not None:
            sessions = Session.objects.filter(pk=session.pk).live()
        else:
            sessions = Session.objects.owned_by(self.caller).live()
        bounds = {
            "workspace": asked["workspace"],
            "updated_at__gte": asked["since"],
            "created_at__lt": asked["until"],
        }
        return sessions.filter(**{name: value for name, value in bounds.items() if value is not None})


def rows_of(keys: Sequence[int]) -> list[dict[str, Any]]:
    """What a page shows of these messages, newest first; without those that were deleted meanwhile."""
    rows = Message.objects.live().filter(pk__in=keys).order_by("-pk")
    return Turn.objects.shown(list(rows.values(*COLUMNS, searched=Left("content", SEARCHED))))
