"""What a caller may do with one session or message (contract 2, workspace). What exists but is not for
them is 403; whether it exists at all is asked first."""

from __future__ import annotations

from typing import cast

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.models import User
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
