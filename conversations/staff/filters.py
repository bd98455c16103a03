"""The filters beside the lists of sessions and messages, none of which makes a page read a table.

A filter either is the end of an index (a workspace, the trash, a day of messages), or it narrows what such a one
leaves: then it is offered there alone, and looks at no more rows than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final, cast
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import CharField, OuterRef, Q, QuerySet, Subquery, UUIDField, Value
from django.db.models.functions import NullIf
from django.http import HttpRequest
from django.utils import timezone

from chatstore.ids import row_id_of, uuid_of
from conversations import search
from conversations.models import Message, MessageQuerySet, Session, SessionQuerySet

# Of a range that an index serves, filters without an index look at so many rows.
NEWEST: Final = 50_000
DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
DAYS_OFFERED: Final = 7
# From the first to the last day: each is read whole.
MOST_DAYS: Final = 7
LONGEST: Final = 255
VALUES_OFFERED: Final = 10
NIL: Final = UUID(int=0)


def is_searched(request: HttpRequest) -> bool:
    term = request.GET.get("q", "").strip()
    return bool(term) and "\0" not in term  # The search box takes no NUL, and then searches nothing.


class Narrowing(SimpleListFilter):
    """One value, read strictly: what is malformed, repeated or out of place is answered with what is wrong.

    `read` makes of the text what `condition` asks for, or None where it is malformed. A subclass for one model
    says what narrows its list already (`is_narrowed`), and whether the filter then narrows further (`refines`).
    """

    template = "admin/conversations/narrowing.html"
    input_type = ""
    expected: ClassVar[str] = "one of those offered"
    within: ClassVar[str] = ""
    hint: ClassVar[str] = ""
    # Parameters of filters that stand on this one, and leave with it.
    carries: ClassVar[Sequence[str]] = ()

    def __init__(self, request: HttpRequest, params: dict[str, list[str]], model: Any, model_admin: Any) -> None:
        texts = params.get(self.parameter_name or "", [])
        super().__init__(request, params, model, model_admin)
        if texts == [""]:  # The field was emptied.
            self.used_parameters.clear()
        self.text = self.value() or ""
        self.chosen: Any = self.read(self.text) if self.text else None
        if len(texts) > 1 or (self.text and self.chosen is None):
            self.refuse(f"Filter by {self.title}: give {self.expected}.")
        if self.chosen is not None and not self.is_offered():
            self.refuse(f"Filter by {self.title} {self.within}: choose that first.")

    def refuse(self, why: str) -> None:
        """The list without filters (`?e=1`, as Django does), and on it the reason."""
        messages.error(self.request, why)
        raise IncorrectLookupParameters(why)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def has_output(self) -> bool:
        return self.is_offered()

    def is_narrowed(self) -> bool:
        raise NotImplementedError

    def is_offered(self) -> bool:
        return self.is_narrowed()

    @property
    def refines(self) -> bool:
        return self.chosen is not None

    def read(self, text: str) -> Any:
        return text if text in dict(self.lookup_choices) else None

    def condition(self) -> Q:
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """What an index serves. The rest is for `refine`, on what the list says is near enough to look at."""
        return queryset if self.chosen is None or self.refines else self.refine(queryset)

    def refine(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(self.condition())

    def values_shown(self, rows: Sequence[Any]) -> list[str]:
        """Values on the page itself, to be chosen by a click."""
        return []

    def choices(self, changelist: Any) -> Iterator[Any]:
        remove = [self.parameter_name, *self.carries]
        kept = [(name, value) for name, value in changelist.params.items() if name != self.parameter_name]
        yield {
            "selected": self.chosen is None,
            "query_string": changelist.get_query_string(remove=remove),
            "display": "All",
            "kept": kept,
        }
        offered = self.lookup_choices or [(value, value) for value in self.values_shown(changelist.result_list)]
        for value, display in offered:
            yield {
                "selected": self.text == value,
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": display,
            }


class TextNarrowing(Narrowing):
    """An exact text, typed or chosen among those on the page."""

    input_type = "text"
    expected = f"at most {LONGEST} characters, exactly as stored"

    def read(self, text: str) -> Any:
        return text if len(text) <= LONGEST and "\0" not in text else None

    def values_shown(self, rows: Sequence[Any]) -> list[str]:
        found = {vars(row).get(self.column) for row in rows}
        return sorted(str(value) for value in found if value)[:VALUES_OFFERED]

    @property
    def column(self) -> str:
        """The column on the page's rows that holds such values."""
        return ""


class WorkspaceNarrowing(TextNarrowing):
    title = "workspace"
    parameter_name = "workspace"
    expected = "a workspace's public id"
    column = "workspace_id"

    def read(self, text: str) -> UUID | None:
        return uuid_of(text.strip())


class DayNarrowing(Narrowing):
    title = "day (UTC)"
    parameter_name = "day"
    input_type = "date"
    expected = "a day as YYYY-MM-DD"
    column: ClassVar[str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        today = timezone.now().astimezone(UTC).date()
        days = [str(today - timedelta(days=back)) for back in range(DAYS_OFFERED)]
        return [(day, day) for day in days]

    def read(self, text: str) -> datetime | None:
        try:
            day = date.fromisoformat(text) if DAY.fullmatch(text) else date.max
            return datetime(day.year, day.month, day.day, tzinfo=UTC) if day < date.max else None
        except ValueError:
            return None

    def condition(self) -> Q:
        until = self.chosen + timedelta(days=1)
        return Q(**{f"{self.column}__gte": self.chosen, f"{self.column}__lt": until})


class DeletedNarrowing(Narrowing):
    title = "deleted"
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Deleted"), ("no", "Not deleted")]

    def read(self, text: str) -> bool | None:
        return {"yes": True, "no": False}.get(text)

    def condition(self) -> Q:
        return Q(deleted_at__isnull=not self.chosen)


# Sessions


class OfSessions(Narrowing):
    """Narrowed by a workspace or a search, whose indexes are in the order of the last update."""

    within = "within a workspace or a search"

    def is_narrowed(self) -> bool:
        return is_searched(self.request) or bool(self.request.GET.get("workspace"))


class SessionWorkspace(WorkspaceNarrowing, OfSessions):
    hint = "Agent, day and not deleted narrow within a workspace or a search."
    carries = ("agent", "day", "deleted")

    def is_offered(self) -> bool:
        return True

    @property
    def refines(self) -> bool:
        return self.chosen is not None and is_searched(self.request)

    def refine(self, queryset: QuerySet[Session]) -> QuerySet[Session]:
        if not self.refines:
            return queryset.filter(workspace=self.chosen)
        # In an expression that no index serves: PostgreSQL might read the workspace in the place of what the
        # search found.
        place = NullIf("workspace_id", Value(NIL, UUIDField()), output_field=UUIDField())
        return queryset.alias(place=place).filter(place=self.chosen)


class SessionDeleted(DeletedNarrowing, OfSessions):
    """The trash has an index; what is not in it has none of its own."""

    def is_offered(self) -> bool:
        return self.chosen is not False or self.is_narrowed()

    @property
    def refines(self) -> bool:
        return self.chosen is not None and self.is_narrowed()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return super().lookups(request, model_admin)[: 2 if self.is_narrowed() else 1]


class SessionAgent(TextNarrowing, OfSessions):
    title = "agent"
    parameter_name = "agent"
    column = "agent"

    def condition(self) -> Q:
        return Q(agent=self.chosen)


class SessionDay(DayNarrowing, OfSessions):
    """The indexes of owners and workspaces go on with the last update."""

    title = "day of the last update (UTC)"
    column = "updated_at"
    refines = False


SESSION_FILTERS: Final = (SessionWorkspace, SessionAgent, SessionDay, SessionDeleted)


# Messages


class OfMessages(Narrowing):
    """Narrowed by a session, a search or a day."""

    within = "within a session, a search or a day"

    def is_narrowed(self) -> bool:
        given = self.request.GET
        return is_searched(self.request) or bool(given.get("session")) or bool(given.get("day"))

    @property
    def is_said(self) -> bool:
        """Whether messages are looked for by what they say."""
        return bool(self.request.GET.get("text", "").strip())


class MessageSession(OfMessages):
    """Reached by the link on a session; here to be seen and to be left."""

    title = "session"
    parameter_name = "session"
    expected = "a session's id"
    refines = False

    def has_output(self) -> bool:
        return self.chosen is not None

    def read(self, text: str) -> int | None:
        return row_id_of(text)

    def condition(self) -> Q:
        return Q(session=self.chosen)

    def values_shown(self, rows: Sequence[Any]) -> list[str]:
        return [self.text]


class MessageDay(DayNarrowing, OfMessages):
    """Messages are stored in the order of their time, which its index lives on. A long session has no index of
    its days."""

    column = "created_at"
    hint = "Role, tool, status, workspace, agent and deleted narrow within a day, a session or a search."
    carries = ("until", "role", "tool", "status", "workspace", "owner", "agent", "deleted", "text")

    def is_offered(self) -> bool:
        return True

    @property
    def refines(self) -> bool:
        return self.chosen is not None and bool(self.request.GET.get("session"))

    def condition(self) -> Q:
        last = self.read(self.request.GET.get("until", "")) or self.chosen
        return Q(created_at__gte=self.chosen, created_at__lt=last + timedelta(days=1))


class MessageUntil(DayNarrowing, OfMessages):
    """The last of some days, the first of which is `day`, which reads it."""

    title = "last day (UTC)"
    parameter_name = "until"
    expected = f"a day as YYYY-MM-DD, of {MOST_DAYS} days at most"
    within = "within days"
    refines = False

    def is_offered(self) -> bool:
        return bool(self.request.GET.get("day"))

    def has_output(self) -> bool:
        return self.chosen is not None

    def read(self, text: str) -> datetime | None:
        last, first = super().read(text), super().read(self.request.GET.get("day", ""))
        if last is None or first is None:
            return last
        return last if timedelta() <= last - first < timedelta(days=MOST_DAYS) else None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset


class MessageRole(OfMessages):
    title = "role"
    parameter_name = "role"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return Message.Role.choices

    def condition(self) -> Q:
        return Q(role=self.chosen)


class MessageStatus(OfMessages):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return Message.Status.choices

    def condition(self) -> Q:
        return Q(status=self.chosen)


class MessageTool(TextNarrowing, OfMessages):
    title = "tool"
    parameter_name = "tool"
    column = "tool_name"

    def condition(self) -> Q:
        return Q(tool_name=self.chosen)


def of_session(column: str, field: Any) -> Subquery:
    """A look into the session's row for each message. Of a join PostgreSQL may read all sessions."""
    return Subquery(Session.objects.filter(pk=OuterRef("session_id")).values(column), output_field=field)


class OfSession(WorkspaceNarrowing, OfMessages):
    """What is stored with the session. Where words are looked for, it may be all that narrows."""

    stored: ClassVar[str]

    def is_offered(self) -> bool:
        return self.is_narrowed() or self.is_said

    def refine(self, queryset: QuerySet[Message]) -> QuerySet[Message]:
        if not self.is_narrowed():
            return queryset  # The newest in `places` were taken already.
        return queryset.alias(**{self.stored: of_session(self.stored, UUIDField())}).filter(
            **{self.stored: self.chosen}
        )


class MessageWorkspace(OfSession):
    stored = "workspace_id"


class MessageOwner(OfSession):
    title = "owner"
    parameter_name = "owner"
    expected = "an owner's public id"
    stored = "owner_public_id"


class MessageAgent(TextNarrowing, OfMessages):
    title = "agent"
    parameter_name = "agent"

    def refine(self, queryset: QuerySet[Message]) -> QuerySet[Message]:
        return queryset.alias(agent=of_session("agent", CharField())).filter(agent=self.chosen)


class MessageDeleted(DeletedNarrowing, OfMessages):
    pass


class MessageText(TextNarrowing, OfMessages):
    """Words that a message says (`search.py`)."""

    title = "what was said"
    parameter_name = "text"
    template = "admin/conversations/said.html"
    expected = f"at most {search.MOST_WORDS} words and {LONGEST} characters"
    within = "within a session, an owner, a workspace or days"

    def is_offered(self) -> bool:
        return self.is_narrowed() or any(self.request.GET.get(name) for name in ("owner", "workspace"))

    def has_output(self) -> bool:
        return True

    def read(self, text: str) -> list[str] | None:
        words = search.words_of(text) if super().read(text) else []
        return words if 0 < len(words) <= search.MOST_WORDS else None

    def refine(self, queryset: QuerySet[Message]) -> QuerySet[Message]:
        return search.matching(cast(MessageQuerySet, queryset), self.chosen)

    def choices(self, changelist: Any) -> Iterator[Any]:
        """The fields of the form, and what goes along."""
        named = ("owner", "workspace", "day", "until")
        kept = [(name, value) for name, value in changelist.params.items() if name not in (*named, "text")]
        fields = {name: changelist.params.get(name, "") for name in named}
        yield {
            "selected": self.chosen is None,
            "query_string": changelist.get_query_string(remove=["text"]),
            "kept": kept,
            "fields": fields,
        }


def places(request: HttpRequest) -> SessionQuerySet:
    """The sessions of the chosen owner and workspace."""
    chosen = {"owner__public_id": request.GET.get("owner"), "workspace": request.GET.get("workspace")}
    return Session.objects.filter(**{name: uuid_of(text.strip()) for name, text in chosen.items() if text})


MESSAGE_FILTERS: Final = (
    MessageSession,
    MessageDay,
    MessageUntil,
    MessageRole,
    MessageTool,
    MessageStatus,
    MessageWorkspace,
    MessageOwner,
    MessageAgent,
    MessageDeleted,
    MessageText,
)
