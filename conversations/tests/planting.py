"""Rows of one person in every model there is, with a marker in every text, to be found again or not."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

from django.apps import apps
from django.contrib.auth import SESSION_KEY
from django.contrib.contenttypes.models import ContentType
from django.db.models import (
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    Field,
    IntegerField,
    JSONField,
    Model,
    TextField,
    UUIDField,
)
from django.utils import timezone

from accounts.models import Membership, User, Workspace

# What Django keeps of logins, by its table: the word Session is ours.
LoginSession: Any = apps.get_model("sessions", "Session")
# Rows that are about nobody.
NOBODYS = {
    "auth.Group",
    "auth.Permission",
    "contenttypes.ContentType",
    "conversations.UsageMark",
    "conversations.UsageTotal",  # Days with what was busiest on them, counted again when messages are removed.
    "conversations.UsageState",
    "conversations.Maintenance",
}
TEXT = (CharField, TextField, JSONField, UUIDField)


def everything() -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    models = apps.get_models(include_auto_created=True)
    return {model._meta.label: list(model._default_manager.order_by("pk").values()) for model in models}


def login_of(user: Any, key: str) -> Any:
    """A login of this user, as the admin's log in makes it; not saved."""
    data = LoginSession.get_session_store_class()().encode({SESSION_KEY: str(user.pk)})
    return LoginSession(session_key=key, session_data=data, expire_date=timezone.now())


class Planting:
    """Rows of one person in every model, with a marker in every text and ids to be recognised by."""

    def __init__(self, user: User) -> None:
        self.marker = secrets.token_hex(6)
        self.sought = {self.marker}
        self.rows: dict[type[Model], Model] = {
            User: user,
            Workspace: user.personal_workspace(),
            Membership: user.memberships.get(),
            ContentType: ContentType.objects.get_for_model(User),
        }
        for model in list(self.rows)[:3]:
            self.mark(model)
        while missing := [model for model in personal_models() if model not in self.rows]:
            ready = [model for model in missing if all(needed in self.rows for needed in needs(model))]
            assert ready, f"rows of {missing} need rows that nobody makes"
            self.make(ready[0])

    def make(self, model: type[Model]) -> None:
        fields = [field for field in model._meta.concrete_fields if not is_automatic(field)]
        self.rows[model] = model(**{field.name: self.value_of(field) for field in fields})
        if model is LoginSession:
            self.rows[model] = login_of(self.rows[User], self.marker)
        self.rows[model].save(force_insert=True)

    def mark(self, model: type[Model]) -> None:
        """A row that came with the user."""
        texts = [field for field in model._meta.concrete_fields if is_free_text(field)]
        marked = {f.name: self.value_of(f) for f in texts if not isinstance(f, UUIDField)}
        model._default_manager.filter(pk=self.rows[model].pk).update(**marked)
        self.sought |= {str(getattr(self.rows[model], f.name)) for f in texts if isinstance(f, UUIDField)}

    def value_of(self, field: Field[Any, Any]) -> Any:
        if field.related_model:
            return None if field.related_model is field.model else self.rows[field.related_model]
        if field.null and isinstance(field, DateTimeField):
            return None  # Deleted, revoked, expired: never.
        if field.choices:
            return next(iter(field.choices))[0]
        return next(make(self) for kind, make in VALUES.items() if isinstance(field, kind))

    def new_id(self) -> UUID:
        made = uuid4()
        self.sought.add(str(made))
        return made

    def found(self) -> set[str]:
        """Where anything sought is, as app.Model.field."""
        spelled = self.sought | {text.replace("-", "") for text in self.sought}
        return {
            f"{label}.{name}"
            for label, rows in everything().items()
            for row in rows
            for name, value in row.items()
            if any(text in str(value) for text in spelled)
        }


VALUES: dict[type[Field[Any, Any]], Callable[[Planting], Any]] = {
    JSONField: lambda planting: {planting.marker: [planting.marker]},
    UUIDField: Planting.new_id,
    CharField: lambda planting: planting.marker,
    TextField: lambda planting: planting.marker,
    DateTimeField: lambda planting: timezone.now(),
    DateField: lambda planting: timezone.now().date(),
    IntegerField: lambda planting: 1,
    BooleanField: lambda planting: False,
}


def personal_models() -> list[type[Model]]:
    return [model for model in apps.get_models() if model._meta.label not in NOBODYS and model._meta.managed]


def needs(model: type[Model]) -> Iterator[type[Model]]:
    for field in model._meta.concrete_fields:
        if field.related_model and field.related_model is not model:
            yield field.related_model


def is_automatic(field: Field[Any, Any]) -> bool:
    return field.primary_key and not isinstance(field, TEXT)


def is_free_text(field: Field[Any, Any]) -> bool:
    return isinstance(field, TEXT) and not field.choices
