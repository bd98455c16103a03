"""What a caller may do with one session or message (contract 2, workspace). What exists but is not for
them is 403; whether it exists at all is asked first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.models import Membership, User, Workspace
from chatstore.http.problems import Invalid
from chatstore.ids import uuid_of
from conversations.api import queries
from conversations.models import Message, Session


def session_of(obj: Session | Message) -> Session:
    return obj.session if isinstance(obj, Message) else obj


class SessionPermission(BasePermission):
    """The owner, while a member, and an admin of the workspace: both see, change, delete and restore."""

    message = "You may not use this session."

    def has_object_permission(self, request: Request, view: APIView, obj: Session) -> bool:
        user = cast(User, request.user)
        return obj.is_owned_by(user) or obj.is_administered_by(user)


class MessagePermission(BasePermission):
    """Whoever may see the session reads its messages; only its owner adds, changes and deletes them."""

    message = "You may not do this with this session's messages."

    def has_object_permission(self, request: Request, view: APIView, obj: Session | Message) -> bool:
        user, session = cast(User, request.user), session_of(obj)
        if request.method in SAFE_METHODS:
            return session.is_owned_by(user) or session.is_administered_by(user)
        return session.is_owned_by(user)


def workspace_administered(query: Mapping[str, str], caller: User) -> Workspace | None:
    """The workspace in which the caller, its admin, asks for other people's with `owner`; None without `owner`."""
    if "owner" not in query:
        return None
    if (public_id := uuid_of(query.get("workspace", ""))) is None:
        raise Invalid("query", {"workspace": ["A workspace's public id must go with owner."]})
    workspace, role = queries.workspace_with_role(public_id, caller)
    if workspace is None:
        raise NotFound("There is no such workspace.")
    if role != Membership.Role.ADMIN:
        raise PermissionDenied("Only an admin of the workspace sees what is other people's.")
    return workspace
