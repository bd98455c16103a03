from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from django.contrib.admin.models import CHANGE, LogEntry
from django.db import models
from django.http import HttpRequest

from accounts.models import User


def log_changes(request: HttpRequest, rows: Sequence[models.Model], message: str) -> None:
    """What an action did, in each row's history."""
    LogEntry.objects.log_actions(cast(User, request.user).pk, rows, CHANGE, change_message=message)
