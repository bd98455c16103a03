from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission, IsAuthenticated
from rest_framework.request import Request

from accounts.models import ServiceToken, User

if TYPE_CHECKING:  # It reads its permission classes from here.
    from rest_framework.views import APIView

VERBS = {
    "list": "accounts.view_user",
    "create": "accounts.add_user",
    "retrieve": "accounts.view_user",
    "partial_update": "accounts.change_user",
    "destroy": "accounts.delete_user",
}
# Everybody reads and changes themselves; nobody deactivates themselves without the permission.
ON_ONESELF = {"retrieve", "partial_update"}


class WithinScope(IsAuthenticated):
    """Somebody is calling; a service, as far as its token's scope goes."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        needed = "read" if request.method in SAFE_METHODS else "write"
        if isinstance(request.auth, ServiceToken) and needed not in request.auth.scope.split():
            raise PermissionDenied(f"The service's token lacks the scope {needed}.", code="insufficient_scope")
        return super().has_permission(request, view)


class InPerson(BasePermission):
    """Not a service on somebody's behalf: what it made would outlive its own token."""

    message = "A service cannot do this on behalf of a user."

    def has_permission(self, request: Request, view: APIView) -> bool:
        return not isinstance(request.auth, ServiceToken)


class UserPermission(BasePermission):
    """Django's permission for the verb, or oneself (contract 6). To change people it must also be one of those
    on whom the caller may act. A person is nothing of a workspace's: a service of one changes nobody."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        action = view.action  # type: ignore[attr-defined]
        return action not in ("list", "create") or request.user.has_perm(VERBS[action])

    def has_object_permission(self, request: Request, view: APIView, obj: User) -> bool:
        action = view.action  # type: ignore[attr-defined]
        if obj.pk == request.user.pk and action in ON_ONESELF:
            return action == "retrieve" or not request.user.confined_to
        if not request.user.has_perm(VERBS[action]):
            return False
        return action == "retrieve" or User.objects.filter(pk=obj.pk).manageable_by(request.user).exists()
