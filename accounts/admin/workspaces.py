"""Workspaces and who is in them, as staff see them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from accounts.admin.fields import WorkspaceSelect
from accounts.models import Membership, ServiceToken, User, Workspace
from chatstore.bounded_admin import MOST_RESOLVED, BoundedAdmin
from chatstore.ids import uuid_of

MEMBERS_SHOWN = 100


def is_shared(workspace: Workspace | None) -> bool:
    """Whether people may join and leave it: a personal workspace keeps its one member."""
    return workspace is None or workspace.personal_of_id is None


class MembersInline(admin.TabularInline):
    """Those who are members: their role can change, they can leave."""

    model = Membership
    verbose_name_plural = "members"
    fields = ("user", "role", "created_at")
    readonly_fields = ("user", "created_at")
    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return super().get_queryset(request).select_related("user").order_by("pk")

    def has_add_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        return super().has_change_permission(request, obj) and is_shared(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        return super().has_delete_permission(request, obj) and is_shared(obj)


class NewMemberForm(forms.ModelForm):
    def clean(self) -> None:
        """Django leaves a constraint over the parent's key unchecked in an inline's form."""
        known = Membership.objects.filter(user=self.cleaned_data.get("user"), workspace=self.instance.workspace_id)
        if known.exists():
            raise forms.ValidationError("This user is a member already.", code="member")


class NewMembersFormSet(forms.BaseInlineFormSet):
    @classmethod
    def get_default_prefix(cls) -> str:
        return "new_members"


class NewMembersInline(admin.TabularInline):
    """Those who join. A form of its own, so that a list of members has no search box in each row."""

    model = Membership
    form = NewMemberForm
    formset = NewMembersFormSet
    verbose_name = "new member"
    fields = ("user", "role")
    autocomplete_fields = ("user",)
    extra = 1

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return super().get_queryset(request).none()

    def has_view_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        return self.has_add_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        return super().has_add_permission(request, obj) and is_shared(obj)

    def has_change_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        return False


class KindFilter(admin.SimpleListFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("shared", "Shared"), ("personal", "Personal")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Workspace]) -> QuerySet[Workspace]:
        return queryset.filter(personal_of__isnull=self.value() == "shared") if self.value() else queryset


@admin.register(Workspace)
class WorkspaceAdmin(BoundedAdmin):
    list_display = ("name", "public_id", "personal_of", "created_at")
    list_select_related = ("personal_of",)
    list_filter = (KindFilter,)
    exact_filters = {"kind": {"shared": True, "personal": True}.get}
    search_fields = ("public_id", "name", "memberships")
    search_help_text = (
        "A shared workspace's name in part; or exact: a public id, or a member's email address or user name."
    )
    fields = ("name", "public_id", "personal_of", "created_at", "members_link")
    readonly_fields = ("public_id", "personal_of", "created_at", "members_link")
    actions = None

    def search(self, request: HttpRequest, queryset: QuerySet[Workspace], term: str) -> QuerySet[Workspace]:
        members = Membership.objects.filter(user__in=self.keys_found(request, User, term))
        public_ids: list[Any] = list(members.values_list("workspace", flat=True)[:MOST_RESOLVED])
        if public_id := uuid_of(term):
            public_ids.append(public_id)
        # Shared workspaces are few, and an index knows them; the personal ones are as many as the users.
        return queryset.filter(Q(public_id__in=public_ids) | Q(personal_of=None, name__icontains=term))

    def get_fields(self, request: HttpRequest, obj: Workspace | None = None) -> tuple[str, ...]:
        return self.fields if obj else ("name",)

    def get_inlines(self, request: HttpRequest, obj: Workspace | None) -> Any:
        """Members are edited in place while they are few; many have a list of their own (`members_link`)."""
        few = obj is not None and obj.memberships.all()[: MEMBERS_SHOWN + 1].count() <= MEMBERS_SHOWN
        return (MembersInline, NewMembersInline) if few else (NewMembersInline,)

    def has_delete_permission(self, request: HttpRequest, obj: Workspace | None = None) -> bool:
        return super().has_delete_permission(request, obj) and is_shared(obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Says what is in the way without loading it, which can be a million sessions."""
        if held := held_by(objs[0]):
            return [], {}, set(), [f"{name.capitalize()} that are kept in it" for name in held]
        found, counts, permissions_needed, protected = super().get_deleted_objects(objs, request)
        if request.user.is_superuser:  # The workspace's tokens, which nobody deletes by themselves, go with it.
            permissions_needed.discard(ServiceToken._meta.verbose_name)
        return found, counts, permissions_needed, protected

    @admin.display(description="all members")
    def members_link(self, workspace: Workspace) -> str:
        url = reverse("admin:accounts_membership_changelist", query={"workspace": workspace.public_id})
        return format_html('<a href="{}">List of members</a>', url)


def held_by(workspace: Workspace) -> list[str]:
    """What keeps a workspace from being deleted ("sessions"). Found among the relations, and not imported:
    accounts know nothing of what is kept in a workspace."""
    relations: list[Any] = Workspace._meta.get_fields(include_hidden=True)
    return [
        str(relation.related_model._meta.verbose_name_plural)
        for relation in relations
        if getattr(relation, "on_delete", None) is models.RESTRICT
        and relation.related_model._base_manager.filter(**{relation.field.name: workspace}).exists()
    ]


@admin.register(Membership)
class MembershipAdmin(BoundedAdmin):
    """The members of a workspace that has too many for its own page."""

    list_display = ("id", "user", "workspace", "role", "created_at")
    list_select_related = ("user", "workspace")
    exact_filters = {"workspace": uuid_of}
    search_fields = ("user", "workspace")
    search_help_text = "Exact: a user's email address, user name or public id, or a workspace's public id."
    fields = ("user", "workspace", "role")
    autocomplete_fields = ("user", "workspace")

    def search(self, request: HttpRequest, queryset: QuerySet[Membership], term: str) -> QuerySet[Membership]:
        found = Q(user__in=self.keys_found(request, User, term))
        if public_id := uuid_of(term):
            found |= Q(workspace=public_id)
        return queryset.filter(found)

    def get_readonly_fields(self, request: HttpRequest, obj: Membership | None = None) -> tuple[str, ...]:
        return ("user", "workspace") if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Membership | None = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or is_shared(obj.workspace))

    def has_delete_permission(self, request: HttpRequest, obj: Membership | None = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or is_shared(obj.workspace))

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "workspace":
            kwargs["queryset"] = Workspace.objects.filter(personal_of=None)
            kwargs["widget"] = WorkspaceSelect(db_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)
