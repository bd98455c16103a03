"""Sessions and messages as staff see them: to find and read, never to change.

Stored text is hostile: it reaches a page only through `format_html` or the template's escaping.
"""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.admin.views.main import ChangeList
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import User
from chatstore.bounded_admin import BoundedAdmin, BoundedChangeList, ReadOnly
from chatstore.ids import row_id_of, uuid_of
from conversations.models import Message, Session, Turn


def as_sent(text: str) -> SafeString:
    """Text with its spaces and line ends. `wrap` because the content security policy forbids a style; the
    line end is the one that HTML drops after <pre>."""
    return format_html('<pre wrap dir="auto">\n{}</pre>', text)


def as_json(value: Any) -> SafeString | None:
    return None if value is None else as_sent(json.dumps(value, indent=2, ensure_ascii=False))


class StoredAdmin(ReadOnly, BoundedAdmin):
    """Rows that change through the API alone, whose transactions keep counters, order and versions."""

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return flatten_fieldsets(self.fieldsets or [])

    @admin.display(description="metadata")
    def metadata_as_json(self, row: Session | Message) -> SafeString | None:
        return as_json(row.metadata)


@admin.register(Session)
class SessionAdmin(StoredAdmin):
    list_display = (
        "id",
        "session_id",
        "title",
        "owner",
        "workspace_id",
        "message_count",
        "tokens",
        "updated_at",
        "deleted_at",
    )
    list_select_related = ("owner",)
    list_defer = ("metadata", "owner__password")
    search_fields = ("id", "session_id", "owner")
    search_help_text = (
        "Exact: a session's id or UUID; or its owner's public id, user name, or email address in any case."
    )
    fieldsets = (
        (None, {"fields": ("id", "session_id", "messages_link", "title", "owner", "workspace")}),
        ("What it is about", {"fields": ("pocket", "group", "agent", "metadata_as_json")}),
        ("Counters", {"fields": ("message_count", "tokens", "last_position", "version")}),
        ("Times", {"fields": ("created_at", "updated_at", "last_activity", "deleted_at")}),
        (
            "Internal",
            {
                "fields": ("owner_public_id", "titled", "idempotency_key", "idempotency_digest"),
                "classes": ("collapse",),
            },
        ),
    )

    def search(self, request: HttpRequest, queryset: QuerySet[Session], term: str) -> QuerySet[Session]:
        found = Q(owner__in=self.keys_found(request, User, term))
        if row_id := row_id_of(term):
            found |= Q(pk=row_id)
        if session_id := uuid_of(term):
            found |= Q(session_id=session_id)
        # The order of the owner's index. By id, PostgreSQL may read the whole table backwards for an owner.
        return queryset.filter(found).order_by("-updated_at", "-id")

    @admin.display(description="messages")
    def messages_link(self, session: Session) -> SafeString:
        url = reverse("admin:conversations_message_changelist", query={"session": session.pk})
        return format_html('<a href="{}">Messages of this session</a>', url)


class MessageList(BoundedChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        Turn.objects.shown([vars(message) for message in self.result_list])


@admin.register(Message)
class MessageAdmin(StoredAdmin):
    list_display = (
        "id",
        "session_link",
        "position",
        "role",
        "status",
        "tool_name",
        "tokens",
        "trace_id",
        "created_at",
        "deleted_at",
    )
    list_defer = ("content", "metadata")
    exact_filters = {"session": row_id_of}
    search_fields = ("id", "session", "trace_id", "span_id")
    search_help_text = "Exact: a message's id, a session's id or UUID, a trace id or a span id."
    fieldsets = (
        (None, {"fields": ("id", "session", "position", "role", "status", "content_as_sent", "metadata_as_json")}),
        ("Tool and trace", {"fields": ("tool_name", "trace_id", "span_id", "tokens")}),
        ("Times and version", {"fields": ("created_at", "updated_at", "deleted_at", "version")}),
        (
            "Internal",
            {"fields": ("idempotency_key", "idempotency_index", "idempotency_digest"), "classes": ("collapse",)},
        ),
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return MessageList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Message | None:
        message = super().get_object(request, object_id, from_field)
        Turn.objects.shown([vars(message)] if message else [])
        return message

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Newest first; the messages of one session as they were said, which is the order of its index."""
        return ("session_id", "position") if "session" in request.GET else ("-id",)

    def search(self, request: HttpRequest, queryset: QuerySet[Message], term: str) -> QuerySet[Message]:
        """Ids of tracing systems come in every shape, so whatever else a term is, it may be one of them."""
        found = Q(trace_id=term) | Q(span_id=term)
        if row_id := row_id_of(term):
            found |= Q(pk=row_id) | Q(session=row_id)
        elif session_id := uuid_of(term):
            # Looked up first: an OR with a subquery uses no index.
            named = Session.objects.filter(session_id=session_id)
            found |= Q(session__in=list(named.values_list("pk", flat=True)))
        # + 0: an order that no index serves. Where one does, PostgreSQL may walk the whole table in that
        # order in the hope of meeting the searched id early.
        return queryset.filter(found).order_by(F("session_id") + 0, "position")

    @admin.display(description="session")
    def session_link(self, message: Message) -> SafeString:
        url = reverse("admin:conversations_session_change", args=[message.session_id])
        return format_html('<a href="{}">{}</a>', url, message.session_id)

    @admin.display(description="content")
    def content_as_sent(self, message: Message) -> SafeString:
        return as_sent(message.content)
