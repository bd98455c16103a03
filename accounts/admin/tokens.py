"""API tokens and service tokens: issued and revoked, never changed or deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, cast

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.text import capfirst

from accounts.admin.fields import WorkspaceSelect
from accounts.admin.history import log_changes
from accounts.models import ApiToken, ServiceToken, Token, User
from chatstore.bounded_admin import BoundedAdmin
from chatstore.ids import row_id_of, uuid_of


class NewTokenForm(forms.ModelForm):
    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not name.isprintable():
            raise forms.ValidationError("Must be printable characters on one line.", code="unprintable")
        return name

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("This time is past.", code="past")
        return expires_at


class TokenAdmin(BoundedAdmin):
    """What a subclass says: its lists and search, and in `asked` the fields of the form that issues one."""

    asked: ClassVar[tuple[str, ...]]
    form = NewTokenForm
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: Token | None = None) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self.fields) if obj else self.asked

    def has_change_permission(self, request: HttpRequest, obj: Token | None = None) -> bool:
        return super().has_change_permission(request, obj) and obj is None

    def has_delete_permission(self, request: HttpRequest, obj: Token | None = None) -> bool:
        return False

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        only_save = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **only_save})

    def save_model(self, request: HttpRequest, obj: Token, form: Any, change: bool) -> None:
        vars(obj)["text"] = obj.generate()
        obj.save(force_insert=True)

    def response_add(self, request: HttpRequest, obj: Token, post_url_continue: Any = None) -> HttpResponse:
        """The one page that shows the token: the answer itself, since a message for the next page would lie
        in a cookie. Rendered after the commit."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"{capfirst(self.opts.verbose_name)} issued",
            "opts": self.opts,
            "token": obj,
            "text": vars(obj)["text"],
        }
        headers = {"Cache-Control": "no-store"}
        return TemplateResponse(request, "admin/accounts/token_issued.html", context, headers=headers)

    def revocable(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset

    @admin.action(permissions=["change"], description="Revoke selected tokens")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        tokens = list(self.revocable(request, queryset.filter(revoked_at=None)))
        with transaction.atomic():
            for token in tokens:
                token.revoke()
            log_changes(request, tokens, "Revoked.")
        self.message_user(request, f"{len(tokens)} revoked.", messages.SUCCESS)


@admin.register(ApiToken)
class ApiTokenAdmin(TokenAdmin):
    list_display = ("prefix", "user", "name", "created_at", "expires_at", "last_used_at", "revoked_at")
    list_select_related = ("user",)
    list_defer = ("digest", "idempotency_digest", "user__password")
    search_fields = ("id", "user")
    search_help_text = "Exact: a token's id, or its user's email address, user name or public id."
    fields = ("user", "name", "prefix", "created_at", "expires_at", "last_used_at", "revoked_at")
    asked = ("user", "name", "expires_at")
    autocomplete_fields = ("user",)

    def search(self, request: HttpRequest, queryset: QuerySet[ApiToken], term: str) -> QuerySet[ApiToken]:
        found = Q(user__in=self.keys_found(request, User, term))
        if row_id := row_id_of(term):
            found |= Q(pk=row_id)
        return queryset.filter(found)

    def revocable(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> QuerySet[ApiToken]:
        """Of those on whom the caller may act."""
        return queryset.filter(user__in=User.objects.manageable_by(request.user))

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = User.objects.filter(is_active=True).manageable_by(request.user)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


@admin.register(ServiceToken)
class ServiceTokenAdmin(TokenAdmin):
    """Superusers alone issue and revoke them: such a token acts for everybody who holds no powers."""

    list_display = (
        "prefix", "name", "scope", "workspace", "created_at", "expires_at", "last_used_at", "revoked_at",
    )  # fmt: skip
    list_select_related = ("workspace",)
    list_defer = ("digest",)
    search_fields = ("id", "name", "workspace")
    search_help_text = "Exact: a token's id or name, or its workspace's public id."
    fields = list_display
    asked = ("name", "scope", "workspace", "expires_at")
    autocomplete_fields = ("workspace",)

    def search(self, request: HttpRequest, queryset: QuerySet[ServiceToken], term: str) -> QuerySet[ServiceToken]:
        found = Q(name=term)  # No index knows the name: services are few.
        if row_id := row_id_of(term):
            found |= Q(pk=row_id)
        if public_id := uuid_of(term):
            found |= Q(workspace=public_id)
        return queryset.filter(found)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return cast(User, request.user).is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Token | None = None) -> bool:
        return super().has_change_permission(request, obj) and self.has_add_permission(request)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        widget = WorkspaceSelect(db_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **{**kwargs, "widget": widget})
