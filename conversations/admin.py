"""Sessions and messages as staff see them: to find and read, never to change.

Stored text is hostile: it reaches a page only through `format_html` or the template's escaping.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, cast

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.admin.views.main import ChangeList
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from accounts.models import User
from chatstore.bounded_admin import BoundedAdmin, BoundedChangeList, ReadOnly
from chatstore.http.pagination import beyond
from chatstore.ids import row_id_of, uuid_of
from conversations import search
from conversations.models import AccessRecord, Message, Session, Turn
from conversations.staff import access, filters
from conversations.staff.links import transcript_url
from conversations.staff.powers import SessionPowers
from conversations.staff.transcript import Transcript

# Of what was searched for, in the access log.
LONGEST_TERM: Final = 200
WHERE: Final = ("session", "owner", "workspace", "day", "until")


def as_sent(text: str) -> SafeString:
    """Text with its spaces and line ends. `wrap` because the content security policy forbids a style; the
    line end is the one that HTML drops after <pre>."""
    return format_html('<pre wrap dir="auto">\n{}</pre>', text)


def indented_json(value: Any) -> SafeString | None:
    return None if value is None else as_sent(json.dumps(value, indent=2, ensure_ascii=False))


class StoredList(BoundedChangeList):
    """A filter that no index serves looks at the newest rows alone of what the others leave, and says so."""

    among = ""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        rows = super().get_queryset(request, exclude_parameters)
        if refining := [spec for spec in self.filter_specs if getattr(spec, "refines", False)]:
            rows = self.newest(request, rows)
            for spec in refining:
                rows = cast(filters.Narrowing, spec).refine(rows)
        return rows

    def get_results(self, request: HttpRequest) -> None:
        """Whose conversations were looked for is what the log is there to tell."""
        if term := self.query.strip():
            self.record(request, term)
        super().get_results(request)

    def record(self, request: HttpRequest, term: str) -> None:
        detail = f"{self.opts.verbose_name_plural}: {term[:LONGEST_TERM]}"
        access.record(request, AccessRecord.Action.SEARCH, detail=detail)

    def newest(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        raise NotImplementedError

    def say_among(self) -> None:
        self.among = f"Filtered among the newest {filters.NEWEST:,}. Older ones were not looked at."


class StoredAdmin(ReadOnly, BoundedAdmin):
    """Rows that change through the API alone, whose transactions keep counters, order and versions."""

    when_empty = "They come through the API; `manage.py seed` makes some to look at."

    class Media:
        css = {"all": ["conversations/lists.css"]}

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """The filters read their own values, and say what is wrong with them."""
        names = {spec.parameter_name for spec in cast("Sequence[type[filters.Narrowing]]", self.list_filter)}
        return super().lookup_allowed(lookup, value, request) or lookup in names - set(self.exact_filters)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return flatten_fieldsets(self.fieldsets or [])

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Django says "no action selected" to whoever asks by hand for an action that is not offered to them."""
        offered = self.get_actions(request) if request.method == "POST" else {}
        for action in request.POST.getlist("action"):
            if action and action not in offered:
                access.refuse(action if action in (self.actions or ()) else "unknown")
        return super().changelist_view(request, extra_context)

    @admin.display(description="metadata")
    def metadata_as_json(self, row: Session | Message) -> SafeString | None:
        return indented_json(row.metadata)


class SessionList(StoredList):
    def newest(self, request: HttpRequest, rows: QuerySet[Session]) -> QuerySet[Session]:
        beyond_them = rows.values_list("updated_at", "pk")[filters.NEWEST : filters.NEWEST + 1]
        for key in beyond_them:
            self.say_among()
            return rows.filter(beyond(("updated_at", "id"), key))
        return rows


@admin.register(Session)
class SessionAdmin(SessionPowers, StoredAdmin):
    list_display = (
        "id",
        "title",
        "transcript_link",
        "owner_name",
        "workspace_id",
        "message_count",
        "tokens",
        "updated_at",
        "deleted_at",
        "session_id",
    )
    list_select_related = ("owner",)
    list_filter = filters.SESSION_FILTERS
    list_defer = ("metadata", "owner__password")
    search_fields = ("id", "session_id", "owner")
    search_help_text = (
        "Exact: a session's id or UUID; or its owner's public id, user name, or email address in any case."
    )
    fieldsets = (
        (
            None,
            {"fields": ("id", "session_id", "transcript_link", "messages_link", "title", "owner", "workspace")},
        ),
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

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return SessionList

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """The order of the index that is read: a workspace's, the trash's, or else the newest first."""
        if request.GET.get("workspace"):
            return ("-updated_at", "-id")
        return ("-deleted_at", "-id") if request.GET.get("deleted") == "yes" else ("-id",)

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

    @admin.display(description="owner")
    def owner_name(self, session: Session) -> str:
        return session.owner.get_full_name()

    @admin.display(description="transcript")
    def transcript_link(self, session: Session) -> SafeString:
        url = reverse("admin:conversations_session_transcript", args=[session.pk])
        return format_html('<a href="{}">Transcript</a>', url)

    def get_urls(self) -> list[URLPattern]:
        # cacheable: the page says itself that nobody stores it.
        view = self.admin_site.admin_view(self.transcript, cacheable=True)
        return [
            path("<str:object_id>/transcript/", view, name="conversations_session_transcript"),
            *super().get_urls(),
        ]

    @method_decorator(require_safe)
    def transcript(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A session as one reads it. What a message says is shown only to who may view messages."""
        if not (self.has_view_permission(request) and request.user.has_perm("conversations.view_message")):
            access.refuse(AccessRecord.Action.TRANSCRIPT)
        rows = Session.objects.select_related("owner", "workspace").defer("metadata", "owner__password")
        session = get_object_or_404(rows, pk=row_id_of(object_id))
        if asking := access.asked_for_reason(request, session):
            return asking
        access.record(request, AccessRecord.Action.TRANSCRIPT, session=session)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": session.title,
            "session": session,
            "transcript": Transcript(session, request.GET),
            "may_view_users": request.user.has_perm("accounts.view_user"),
            "may_view_workspaces": request.user.has_perm("accounts.view_workspace"),
        }
        headers = {"Cache-Control": "private, no-store"}
        return TemplateResponse(request, "admin/conversations/session/transcript.html", context, headers=headers)


class MessageList(StoredList):
    def newest(self, request: HttpRequest, rows: QuerySet[Message]) -> QuerySet[Message]:
        """Of a session, and where words are looked for. What else a search or a day leaves is all looked at."""
        if "session" not in request.GET:
            return self.newest_to_search(request, rows) if self.words else rows
        session = Session.objects.named(request.GET["session"])
        last = session.values_list("last_position", flat=True).first() or 0
        if last <= filters.NEWEST:
            return rows
        self.say_among()
        return rows.filter(position__gt=last - filters.NEWEST)

    @property
    def words(self) -> list[str]:
        """What is looked for in the messages' text."""
        chosen = [spec.chosen for spec in self.filter_specs if isinstance(spec, filters.MessageText)]
        return chosen[0] or [] if chosen else []

    def newest_to_search(self, request: HttpRequest, rows: QuerySet[Message]) -> QuerySet[Message]:
        if filters.is_searched(request):
            return rows
        if request.GET.get("day"):
            beyond_them = rows.values_list("created_at", "pk")[filters.NEWEST : filters.NEWEST + 1]
            for key in beyond_them:
                self.say_among()
                return rows.filter(beyond(("created_at", "id"), key))
            return rows
        newest, is_partial = search.newest_in(filters.places(request), filters.NEWEST)
        if is_partial:
            self.say_among()
        return rows.filter(newest).order_by(search.BY_NO_INDEX)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        Turn.objects.shown([vars(message) for message in self.result_list])
        if self.words:
            self.record_words(request)
            self.quote()

    def record_words(self, request: HttpRequest) -> None:
        """The words and where they were looked for, once for each session that is shown."""
        named = [f"{name} {request.GET[name].strip()}" for name in WHERE if request.GET.get(name)]
        # The words first: a record has no room for everything.
        detail = f"messages: {' '.join(self.words)}; {', '.join(named)}"
        found = Session.objects.filter(pk__in={message.session_id for message in self.result_list})
        if sessions := list(found.only("pk", "session_id")):
            access.record_each(request, AccessRecord.Action.SEARCH, sessions, detail=detail)
        else:
            access.record(request, AccessRecord.Action.SEARCH, detail=detail)

    def quote(self) -> None:
        """Excerpts are reading, which asks for a reason where one is wanted: the transcript does."""
        if settings.ENVIRONMENT.access_reason_required:
            return
        said = search.said_by([message.pk for message in self.result_list])
        for message in self.result_list:
            message.excerpts = search.excerpts(said.get(message.pk, ""), self.words)


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
    list_filter = filters.MESSAGE_FILTERS
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

    def get_list_display(self, request: HttpRequest) -> tuple[Any, ...]:
        is_quoted = request.GET.get("text") and not settings.ENVIRONMENT.access_reason_required
        return (*self.list_display, "excerpt") if is_quoted else self.list_display

    @admin.display(description="what was said")
    def excerpt(self, message: Message) -> SafeString:
        url = transcript_url(message.session_id, message.pk, message.position)
        parts = [part for excerpt in vars(message)["excerpts"] for part in excerpt]
        marks = {True: "<mark>{}</mark>", False: "{}"}
        said = format_html_join("", "{}", [(format_html(marks[part["match"]], part["text"]),) for part in parts])
        return format_html('<a href="{}" dir="auto">{}</a>', url, said)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Message | None:
        message = super().get_object(request, object_id, from_field)
        Turn.objects.shown([vars(message)] if message else [])
        return message

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """A message is read here as it is in a transcript: for a reason, and recorded."""
        message: Message = context["original"]
        session = message.session = get_object_or_404(Session, pk=message.session_id)
        if asking := access.asked_for_reason(request, session):
            return asking
        access.record(request, AccessRecord.Action.VIEW, session=session, detail=f"message {message.pk}")
        return super().render_change_form(request, context, *args, **kwargs)

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Newest first; the messages of one session as they were said, which is the order of its index.

        Those of a day by their time: by id, PostgreSQL may read the whole table backwards to come to an old day.
        """
        if "session" in request.GET:
            return ("session_id", "position")
        return ("-created_at", "-id") if request.GET.get("day") else ("-id",)

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


@admin.register(AccessRecord)
class AccessRecordAdmin(ReadOnly, BoundedAdmin):
    """What staff did, for those who look after them: found by person, session and action."""

    when_empty = "A record comes with the first transcript, search or export."

    class Media:
        css = {"all": ["conversations/lists.css"]}

    list_display = ("id", "created_at", "who", "action", "session_id", "detail", "address", "reason")
    list_select_related = ("user",)
    list_defer = ("user__password",)
    list_filter = ("action",)
    exact_filters = {
        "user_public_id": uuid_of,
        "session_id": row_id_of,
        "action__exact": dict(AccessRecord.Action.choices).get,
    }
    search_fields = ("user", "session_id")
    search_help_text = (
        "Exact: a session's id or UUID; or a public id, user name, or email address in any case of who did it."
    )
    fields = ("id", "created_at", "who", "user_public_id", "action", "session_link", "session_uuid", "detail",
              "address", "reason")  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.fields

    def search(self, request: HttpRequest, queryset: QuerySet[AccessRecord], term: str) -> QuerySet[AccessRecord]:
        """A session that is purged is still found by its id, a person who is erased by their public id."""
        people: list[Any] = list(
            User.objects.filter(pk__in=self.keys_found(request, User, term)).values_list("public_id", flat=True)
        )
        if public_id := uuid_of(term):
            people.append(public_id)
        found = Q(user_public_id__in=people)
        if row_id := row_id_of(term):
            found |= Q(session_id=row_id)
        if session_uuid := uuid_of(term):
            found |= Q(session_uuid=session_uuid)
        return queryset.filter(found)

    @admin.display(description="who")
    def who(self, record: AccessRecord) -> str:
        return str(record.user) if record.user else f"{record.user_public_id} (erased)"

    @admin.display(description="session")
    def session_link(self, record: AccessRecord) -> str | None:
        if record.session_id is None:
            return None
        url = reverse("admin:conversations_session_change", args=[record.session_id])
        return format_html('<a href="{}">{}</a>', url, record.session_id)
