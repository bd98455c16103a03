"""What the API reads: whole rows for one thing, JSON or plain columns for a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from django.db.models import F, Model, QuerySet
from django.db.models.functions import Coalesce

from accounts.models import Membership, User, Workspace
from chatstore.compiled import CompiledQuery, Parameter, columns_of, instance_of
from chatstore.http.pagination import Read, beyond
from chatstore.ids import row_id_of, uuid_of
from conversations.models import Message, MessageQuerySet, Session, SessionQuerySet
from conversations.shapes import MESSAGE_COLUMNS, SESSION_COLUMNS, message_json, session_json

TRACED_COLUMNS = ("session__session_id", *MESSAGE_COLUMNS)
NEWEST_FIRST = ("-updated_at", "-id")


class Caller(Parameter):
    """Stands for a caller, whom a service may confine to a workspace."""

    def __init__(self) -> None:
        super().__init__("caller", Membership, "user")
        # Of memberships: the one workspace, or whichever a row has.
        self.confined_to = Coalesce(Parameter("confined_to", Workspace, "public_id"), F("workspace_id"))


def by(caller: User) -> dict[str, Any]:
    """The parameters that a `Caller` stands for."""
    return {"caller": caller.pk, "confined_to": caller.confined_to}


def of(model: type[Model], field: str) -> Any:
    """Stands for a value of this column."""
    return Parameter(field, model, field)


# What every request asks, compiled once. The rest of this module says the same of any filter.


def whole(sessions: SessionQuerySet) -> QuerySet[Any, Any]:
    return sessions.live().with_role_of(Caller()).values(*columns_of(Session), "role_of_caller")  # type: ignore[arg-type]


def own_rows() -> QuerySet[Any, Any]:
    sessions = Session.objects.owned_by(Caller()).live()  # type: ignore[arg-type]
    return sessions.order_by(*NEWEST_FIRST).values(*SESSION_COLUMNS)


def said_in() -> MessageQuerySet:
    return Message.objects.filter(session=of(Message, "session"), deleted_at=None)


def traced() -> MessageQuerySet:
    named = Message.objects.visible_to(Caller())  # type: ignore[arg-type]
    return named.filter(trace_id=of(Message, "trace_id"), deleted_at=None)


def numbered() -> QuerySet[Any, Any]:
    role = Membership.objects.role_of(Caller(), "session__workspace_id")  # type: ignore[arg-type]
    found = Message.objects.live().filter(pk=of(Message, "id")).annotate(role_of_caller=role)
    of_session = (f"session__{name}" for name in columns_of(Session))
    return found.values(*columns_of(Message), *of_session, "role_of_caller")


def with_role() -> QuerySet[Any, Any]:
    role = Membership.objects.role_of(Caller(), "public_id")  # type: ignore[arg-type]
    found = Workspace.objects.filter(public_id=of(Workspace, "public_id")).annotate(role=role)
    return found.values(*columns_of(Workspace), "role")


BY_ID = CompiledQuery(lambda: whole(Session.objects.filter(pk=of(Session, "id"))))
BY_UUID = CompiledQuery(lambda: whole(Session.objects.filter(session_id=of(Session, "session_id"))))
NUMBERED = CompiledQuery(numbered)
WITH_ROLE = CompiledQuery(with_role)
PERSONAL = CompiledQuery(
    lambda: Workspace.objects.filter(personal_of=Caller(), memberships__user=Caller()).values(
        *columns_of(Workspace)
    )
)
# Planned for each owner: most have so few sessions that a plan for anybody would sort them all.
OWN = CompiledQuery(own_rows, prepare=False)
OWN_BEYOND = CompiledQuery(
    lambda: own_rows().filter(beyond(NEWEST_FIRST, [of(Session, "updated_at"), of(Session, "id")])),
    prepare=False,
)


def rows_in_order(messages: Callable[[], MessageQuerySet], order: str, columns: Sequence[str]) -> CompiledQuery:
    return CompiledQuery(lambda: messages().order_by(order).values(*columns))


def rows_beyond(messages: Callable[[], MessageQuerySet], order: str, columns: Sequence[str]) -> CompiledQuery:
    last = [of(Message, order.lstrip("-"))]
    return rows_in_order(lambda: messages().filter(beyond((order,), last)), order, columns)


SAID = {order: rows_in_order(said_in, order, MESSAGE_COLUMNS) for order in ("position", "-position")}
SAID_BEYOND = {order: rows_beyond(said_in, order, MESSAGE_COLUMNS) for order in SAID}
TRACED = {order: rows_in_order(traced, order, TRACED_COLUMNS) for order in ("id", "-id")}
TRACED_BEYOND = {order: rows_beyond(traced, order, TRACED_COLUMNS) for order in TRACED}


def own_page(caller: User) -> Read:
    """The caller's own live sessions, newest first, as JSON."""

    def read(last: Sequence[Any] | None, skip: int, limit: int) -> list[dict[str, Any]]:
        if last is None:
            rows = OWN.tuples(**by(caller), skip=skip, limit=limit)
        else:
            rows = OWN_BEYOND.tuples(**by(caller), updated_at=last[0], id=last[1], skip=skip, limit=limit)
        return [session_json(*row) for row in rows]

    return read


def page_of(session: Session, order: str) -> Read:
    """The live messages of a session as JSON, by `position` or `-position`."""

    def read(last: Sequence[Any] | None, skip: int, limit: int) -> list[dict[str, Any]]:
        if last is None:
            rows = SAID[order].tuples(session=session.pk, skip=skip, limit=limit)
        else:
            rows = SAID_BEYOND[order].tuples(session=session.pk, position=last[0], skip=skip, limit=limit)
        return [message_json(session.session_id, *row) for row in rows]

    return read


def of_trace(trace_id: str, caller: User, order: str) -> Read:
    """The live messages of a trace that the caller may see, as JSON, by `id` or `-id`."""

    def read(last: Sequence[Any] | None, skip: int, limit: int) -> list[dict[str, Any]]:
        named = {**by(caller), "trace_id": trace_id}
        if last is None:
            rows = TRACED[order].tuples(**named, skip=skip, limit=limit)
        else:
            rows = TRACED_BEYOND[order].tuples(**named, id=last[0], skip=skip, limit=limit)
        return [message_json(*row) for row in rows]

    return read


def session_named(ref: str, caller: User, *, deleted_too: bool = False) -> Session | None:
    """The session that `ref` names by either id, with the caller's role in its workspace."""
    if deleted_too:
        return Session.objects.named(ref).with_role_of(caller).first()
    if session_id := uuid_of(ref):
        row = BY_UUID.row(session_id=session_id, **by(caller))
    else:
        row = BY_ID.row(id=row_id, **by(caller)) if (row_id := row_id_of(ref)) else None
    if row is None:
        return None
    session = instance_of(Session, row)
    session.role_of_caller = row["role_of_caller"]
    return session


def message_numbered(row_id: int, caller: User) -> Message | None:
    """A live message with its session, which knows the caller's role."""
    row = NUMBERED.row(id=row_id, **by(caller))
    if row is None:
        return None
    message = instance_of(Message, row)
    message.session = instance_of(Session, row, "session__")
    message.session.role_of_caller = row["role_of_caller"]
    return message


def own_sessions(caller: User) -> SessionQuerySet:
    """The caller's own, live and deleted."""
    return Session.objects.owned_by(caller)


def sessions_in(workspace: Workspace) -> SessionQuerySet:
    """Everybody's in a workspace, live and deleted."""
    return Session.objects.filter(workspace=workspace)


def messages_of(session: Session) -> QuerySet[Message]:
    """All messages of one session, deleted ones too: the filter set leaves them out or asks for them."""
    return Message.objects.filter(session=session)


def messages_visible_to(caller: User) -> QuerySet[Message]:
    return Message.objects.visible_to(caller)


def personal_workspace(caller: User) -> Workspace:
    """The caller's own workspace, made where it is missing."""
    row = PERSONAL.row(caller=caller.pk)
    return instance_of(Workspace, row) if row else caller.personal_workspace()


def workspace_with_role(public_id: UUID, caller: User) -> tuple[Workspace | None, str | None]:
    """A workspace and the caller's role in it, None for a stranger."""
    row = WITH_ROLE.row(public_id=public_id, **by(caller))
    return (instance_of(Workspace, row), row["role"]) if row else (None, None)
