from __future__ import annotations

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.models import User

VERBS = {
    "list": "accounts.view_user",
    "create": "accounts.add_user",
    "retrieve": "accounts.view_user",
    "partial_update": "accounts.change_user",
    "destroy": "accounts.delete_user",
}
# Everybody reads and changes themselves; nobody deactivates themselves without the permission.
ON_ONESELF = {"retrieve", "partial_update"}


class UserPermission(BasePermission):
    """Django's permission for the verb, or oneself (contract 6). To change people it must also be one of those
    on whom the caller may act."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        action = view.action  # type: ignore[attr-defined]
        return action not in ("list", "create") or request.user.has_perm(VERBS[action])

    def has_object_permission(self, request: Request, view: APIView, obj: User) -> bool:
        action = view.action  # type: ignore[attr-defined]
        if obj.pk == request.user.pk and action in ON_ONESELF:
            return True
        if not request.user.has_perm(VERBS[action]):
            return False
        return action == "retrieve" or User.objects.filter(pk=obj.pk).manageable_by(request.user).exists()
