"""What GET /api/usage/ answers, and the same counted over the rows themselves, in Python."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.utils import timezone

from conftest import Caller, new_message
from conversations.models import Message, Session

DAY = timedelta(days=1)
GROUPINGS = ("day", "role", "agent", "workspace")


def today() -> date:
    return timezone.now().astimezone(UTC).date()


def ago(days: int) -> date:
    return today() - DAY * days


def said(session: Session, at: datetime | date, **fields: Any) -> Message:
    """A message of that moment, or of noon of that day, as it was appended then; of now, where that is to come."""
    moment = at if isinstance(at, datetime) else datetime.combine(at, time(12), UTC)
    message = new_message(session, **fields)
    moment = min(moment, message.created_at)
    Message.objects.filter(pk=message.pk).update(created_at=moment)
    message.created_at = moment
    return message


def rollup() -> None:
    call_command("rollup", stdout=StringIO(), verbosity=0)


def asked(who: Caller, first: date, last: date, by: str = "day", query: str = "") -> dict[str, Any]:
    """The answer without its moment, which is now."""
    before = timezone.now()
    answer = who.get(f"/api/usage/?from={first}&to={last}&group_by={by}{query}")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    moment = body.pop("as_of")
    assert moment == f"{datetime.fromisoformat(moment):%Y-%m-%dT%H:%M:%S.%fZ}"
    assert before <= datetime.fromisoformat(moment) <= timezone.now()
    return body


def over_the_rows(first: date, last: date, by: str, is_asked_for: Callable[[Session], bool]) -> dict[str, Any]:
    """The same, message by message."""
    rows = [
        (message.created_at.astimezone(UTC).date(), message)
        for message in Message.objects.select_related("session")
        if is_asked_for(message.session)
    ]
    rows = [(day, message) for day, message in rows if first <= day <= last]
    groups: dict[Any, list[Message]] = {}
    for day, message in rows:
        groups.setdefault(key_of(by, day, message), []).append(message)
    shown = [{by: key, **added_up(group)} for key, group in groups.items()]
    if by == "day":
        for group in shown:
            group["sessions"] = len({message.session_id for message in groups[group["day"]]})
    order = (lambda group: group["day"]) if by == "day" else (lambda group: (-group["messages"], group[by] or ""))
    return {
        "from": str(first),
        "to": str(last),
        "group_by": by,
        **added_up([message for _, message in rows]),
        "groups": sorted(shown, key=order),
    }


def key_of(by: str, day: date, message: Message) -> str | None:
    session = message.session
    of = {"day": str(day), "role": message.role, "agent": session.agent, "workspace": str(session.workspace_id)}
    return of[by]


def added_up(messages: list[Message]) -> dict[str, int]:
    return {
        "messages": len(messages),
        "tokens": sum(message.tokens for message in messages),
        "interrupted": sum(message.status == "interrupted" for message in messages),
        "failed": sum(message.status == "failed" for message in messages),
    }


def check(who: Caller, first: date | None = None, last: date | None = None) -> None:
    """That every grouping of what `who` used is what their rows say."""
    first, last = first or ago(40), last or today()
    for by in GROUPINGS:
        own = over_the_rows(first, last, by, lambda session: session.owner_id == who.user.pk)
        assert asked(who, first, last, by) == own
