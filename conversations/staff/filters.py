"""The filters beside the lists of sessions and messages, none of which makes a page read a table.

A filter either is the end of an index (a workspace, the trash, a day of messages), or it narrows what such a one
leaves: then it is offered there alone, and looks at no more rows than that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import CharField, OuterRef, Q, QuerySet, Subquery, UUIDField, Value
from django.db.models.functions import NullIf
from django.http import HttpRequest
from django.utils import timezone

from chatstore.ids import row_id_of, uuid_of
from conversations.models import Message, Session

# Of a range that an index serves, filters without an index look at so many rows.
NEWEST: Final = 50_000
DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
DAYS_OFFERED: Final = 7
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
    carries = ("role", "tool", "status", "workspace", "agent", "deleted")

    def is_offered(self) -> bool:
        return True

    @property
    def refines(self) -> bool:
        return self.chosen is not None and bool(self.request.GET.get("session"))


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


class MessageWorkspace(WorkspaceNarrowing, OfMessages):
    def refine(self, queryset: QuerySet[Message]) -> QuerySet[Message]:
        return queryset.alias(place=of_session("workspace_id", UUIDField())).filter(place=self.chosen)


class MessageAgent(TextNarrowing, OfMessages):
    title = "agent"
    parameter_name = "agent"

    def refine(self, queryset: QuerySet[Message]) -> QuerySet[Message]:
        return queryset.alias(agent=of_session("agent", CharField())).filter(agent=self.chosen)


class MessageDeleted(DeletedNarrowing, OfMessages):
    pass


MESSAGE_FILTERS: Final = (
    MessageSession,
    MessageDay,
    MessageRole,
    MessageTool,
    MessageStatus,
    MessageWorkspace,
    MessageAgent,
    MessageDeleted,
)
