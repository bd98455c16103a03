"""Members of staff by group, what they ask for, and what is written down about it."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client

from accounts.models import User
from conversations.models import AccessRecord, Message, Session

SESSIONS = "/admin/conversations/session/"
MESSAGES = "/admin/conversations/message/"
FIND = "/admin/find/"

staff_groups: Any = importlib.import_module("conversations.migrations.0004_staff_groups")
HERE: Any = SimpleNamespace(connection=connection)


def of_group(name: str) -> Client:
    user = User.objects.create_user(name.lower(), is_staff=True)
    user.groups.add(Group.objects.get(name=name))
    client = Client()
    client.force_login(user)
    return client


def holding(*codenames: str) -> Client:
    """A member of staff in no group, with these permissions alone."""
    user = User.objects.create_user("vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def chosen(client: Client, action: str, *sessions: Session, **more: str) -> Any:
    form = {"action": action, "_selected_action": [session.pk for session in sessions], "index": "0"}
    return client.post(SESSIONS, form | more)


def logged(*fields: str) -> list[Any]:
    rows = AccessRecord.objects.order_by("pk").values_list(*fields, flat=len(fields) == 1)
    return list(rows)


def said_in(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    lines: list[Any] = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [line for line in lines if line["event"] == event]


def places(message: Message) -> list[str]:
    session = message.session
    return [
        f"{SESSIONS}{session.pk}/transcript/?from=1",
        f"{SESSIONS}{session.pk}/export/md/",
        f"{MESSAGES}{message.pk}/change/",
        f"{SESSIONS}{session.pk}/change/",
    ]


def body(answer: Any) -> str:
    return (b"".join(answer.streaming_content) if answer.streaming else answer.content).decode()
