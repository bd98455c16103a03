"""People, their workspaces and their tokens, as staff see them.

Whoever may reset a person's password or issue a token for them can become them. So staff who are not
superusers may act only on people who hold no powers (`manageable_by`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import admin as auth
from django.contrib.auth.models import Group
from django.db import models, transaction
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Lower
from django.db.models.lookups import Exact
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from accounts.models import ApiToken, Identity, Membership, User, Workspace
from chatstore.bounded_admin import MOST_RESOLVED, BoundedAdmin, ReadOnly
from chatstore.ids import row_id_of, uuid_of

POWERS = ("is_staff", "is_superuser", "groups", "user_permissions")
ASKED_OF_NEW_USERS = ("username", "name", "email", "usable_password", "password1", "password2")
MEMBERS_SHOWN = 100


def may_manage(staff: Any, user: User) -> bool:
    """The same for one user. Remembered on the instance: a page of the admin asks many times."""
    if "manageable" not in vars(user):
        vars(user)["manageable"] = User.objects.filter(pk=user.pk).manageable_by(staff).exists()
    return bool(vars(user)["manageable"])


def log_changes(request: HttpRequest, rows: Sequence[models.Model], message: str) -> None:
    """What an action did, in each row's history."""
    LogEntry.objects.log_actions(cast(User, request.user).pk, rows, CHANGE, change_message=message)


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
        return super().get_deleted_objects(objs, request)

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
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class NewTokenForm(forms.ModelForm):
    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("This time is past.", code="past")
        return expires_at


@admin.register(ApiToken)
class ApiTokenAdmin(BoundedAdmin):
    """Tokens are issued and revoked, never changed or deleted."""

    list_display = ("prefix", "user", "name", "created_at", "expires_at", "last_used_at", "revoked_at")
    list_select_related = ("user",)
    list_defer = ("digest", "idempotency_digest", "user__password")
    search_fields = ("id", "user")
    search_help_text = "Exact: a token's id, or its user's email address, user name or public id."
    fields = ("user", "name", "prefix", "created_at", "expires_at", "last_used_at", "revoked_at")
    autocomplete_fields = ("user",)
    form = NewTokenForm
    actions = ("revoke",)

    def search(self, request: HttpRequest, queryset: QuerySet[ApiToken], term: str) -> QuerySet[ApiToken]:
        found = Q(user__in=self.keys_found(request, User, term))
        if row_id := row_id_of(term):
            found |= Q(pk=row_id)
        return queryset.filter(found)

    def get_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        return self.fields if obj else ("user", "name", "expires_at")

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return super().has_change_permission(request, obj) and obj is None

    def has_delete_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = User.objects.filter(is_active=True).manageable_by(request.user)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        only_save = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **only_save})

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        vars(obj)["text"] = obj.generate()
        obj.save(force_insert=True)

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: Any = None) -> HttpResponse:
        """The one page that shows the token: the answer itself, since a message for the next page would lie
        in a cookie. Rendered after the commit."""
        context = {
            **self.admin_site.each_context(request),
            "title": "API token issued",
            "opts": self.opts,
            "token": obj,
            "text": vars(obj)["text"],
        }
        headers = {"Cache-Control": "no-store"}
        return TemplateResponse(request, "admin/accounts/apitoken/issued.html", context, headers=headers)

    @admin.action(permissions=["change"], description="Revoke selected tokens")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        tokens = list(queryset.filter(revoked_at=None))
        with transaction.atomic():
            for token in tokens:
                token.revoke()
            log_changes(request, tokens, "Revoked.")
        self.message_user(request, f"{len(tokens)} revoked.", messages.SUCCESS)
