"""What the API reads: whole rows for one thing, plain columns for a page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet

from accounts.models import Membership, User, Workspace
from conversations.models import Message, Session, SessionQuerySet


def session_named(ref: str, caller: User, *, deleted_too: bool = False) -> Session | None:
    """The session that `ref` names by either id, with the caller's role in its workspace."""
    sessions = Session.objects.all() if deleted_too else Session.objects.live()
    return sessions.named(ref).with_role_of(caller).first()


def message_numbered(row_id: int, caller: User) -> Message | None:
    """A live message with its session, which knows the caller's role."""
    role = Membership.objects.role_of(caller, "session__workspace_id")
    messages = Message.objects.live().select_related("session").annotate(role_of_caller=role)
    message = messages.filter(pk=row_id).first()
    if message is not None:
        message.session.role_of_caller = vars(message)["role_of_caller"]
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


def with_session(rows: Iterable[dict[str, Any]], session: Session) -> list[dict[str, Any]]:
    """Rows of one session, each with the session's UUID: known already, so not joined."""
    return [{**row, "session__session_id": session.session_id} for row in rows]


def workspace_with_role(public_id: Any, caller: User) -> tuple[Workspace | None, str | None]:
    """A workspace and the caller's role in it, None for a stranger."""
    role = Membership.objects.role_of(caller, "public_id")
    workspace = Workspace.objects.filter(public_id=public_id).annotate(role=role).first()
    return workspace, vars(workspace)["role"] if workspace else None
