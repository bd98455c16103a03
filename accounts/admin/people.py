"""People, as staff see them.

Whoever may reset a person's password or issue a token for them can become them. So staff who are not
superusers may act only on people who hold no powers (`manageable_by`).
"""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth import admin as auth
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Lower
from django.db.models.lookups import Exact
from django.http import HttpRequest

from accounts.admin.history import log_changes
from accounts.models import Identity, User
from chatstore.bounded_admin import BoundedAdmin, ReadOnly
from chatstore.ids import uuid_of

POWERS = ("is_staff", "is_superuser", "groups", "user_permissions")
ASKED_OF_NEW_USERS = ("username", "name", "email", "usable_password", "password1", "password2")


def may_manage(staff: Any, user: User) -> bool:
    """`manageable_by` for one user. Remembered on the instance: a page of the admin asks many times."""
    if "manageable" not in vars(user):
        vars(user)["manageable"] = User.objects.filter(pk=user.pk).manageable_by(staff).exists()
    return bool(vars(user)["manageable"])


class IdentityInline(ReadOnly, admin.TabularInline):
    model = Identity
    fields = readonly_fields = ("issuer", "subject", "created_at")
    verbose_name_plural = "identities"


@admin.register(User)
class UserAdmin(BoundedAdmin, auth.UserAdmin):
    """People are deactivated, never deleted: their sessions would go with them (`manage.py eraseuser`)."""

    list_display = ("username", "name", "email", "is_active", "is_staff", "is_superuser", "date_joined")
    list_filter = ()
    search_fields = ("email", "username", "public_id")
    search_help_text = "Exact: an email address in any case, a user name, or a public id."
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Personal info", {"fields": ("name", "email", "public_id")}),
        ("Permissions", {"fields": ("is_active", *POWERS)}),
        ("Important dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"classes": ("wide",), "fields": ASKED_OF_NEW_USERS}),)
    readonly_fields = ("public_id", "last_login", "date_joined")
    inlines = (IdentityInline,)
    actions = ("activate", "deactivate")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or may_manage(request.user, obj))

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False

    def get_inlines(self, request: HttpRequest, obj: User | None) -> Any:
        return self.inlines if obj else ()

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Powers are seen and given by superusers only."""
        fieldsets = super().get_fieldsets(request, obj)
        if cast(User, request.user).is_superuser:
            return fieldsets
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name not in POWERS]})
            for title, options in fieldsets
        ]

    def search(self, request: HttpRequest, queryset: QuerySet[User], term: str) -> QuerySet[User]:
        found = Q(username=term) | Q(Exact(Lower("email"), Lower(Value(term))))
        if public_id := uuid_of(term):
            found |= Q(public_id=public_id)
        return queryset.filter(found)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not change:
            obj.personal_workspace()

    @admin.action(permissions=["change"], description="Activate selected users")
    def activate(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.set_active(request, queryset, True)

    @admin.action(permissions=["change"], description="Deactivate selected users")
    def deactivate(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.set_active(request, queryset, False)

    def set_active(self, request: HttpRequest, queryset: QuerySet[User], active: bool) -> None:
        """Nobody locks themselves out, and staff pass over those on whom they may not act."""
        chosen = queryset.filter(is_active=not active)
        wanted = set(chosen.values_list("pk", flat=True))
        word = "activated" if active else "deactivated"
        with transaction.atomic():
            ours = User.objects.filter(pk__in=wanted).manageable_by(request.user)
            changed = list(ours.exclude(pk=cast(User, request.user).pk))
            User.objects.filter(pk__in=[user.pk for user in changed]).update(is_active=active)
            log_changes(request, changed, f"{word.capitalize()}.")
        said = f"{len(changed)} {word}."
        if left := len(wanted) - len(changed):
            said += f" {left} left as they are: you yourself, or people on whom only a superuser may act."
        self.message_user(request, said, messages.WARNING if left else messages.SUCCESS)


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(BoundedAdmin, auth.GroupAdmin):
    """Superusers alone: whoever changes a group gives themselves its permissions."""

    ordering = ("name",)
    search_fields = ("name",)

    def search(self, request: HttpRequest, queryset: QuerySet[Group], term: str) -> QuerySet[Group]:
        return queryset.filter(name__icontains=term)  # Groups are few.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return cast(User, request.user).is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return self.has_add_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return self.has_add_permission(request)
