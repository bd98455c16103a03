"""The pages that a member of staff opens: every kind of paste, the transcript, the lists with their filters."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import F

from accounts.models import User
from conversations.models import Message, Session

SESSIONS = "/admin/conversations/session/"
MESSAGES = "/admin/conversations/message/"
FIND = "/admin/find/"


def pages() -> dict[str, str]:
    """By what they are; their rows are taken from what is stored, from its middle and its longest session."""
    ids = Message.objects.values_list("pk", flat=True)
    middle = Message.objects.filter(pk__gte=(ids.order_by("pk")[0] + ids.order_by("-pk")[0]) // 2).order_by("pk")
    call = middle.filter(span_id__isnull=False, trace_id__isnull=False).select_related("session__owner")[0]
    session = call.session
    longest = Session.objects.annotate(length=F("last_position") + 0).order_by("-length")[0]
    half = longest.last_position // 2
    day = call.created_at.astimezone(UTC).date()
    trace, span = str(call.trace_id), str(call.span_id)
    transcript = f"{SESSIONS}{longest.pk}/transcript/"
    return {
        **{f"paste {name}": f"{FIND}?{urlencode({'q': text})}" for name, text in pastes(call).items()},
        "transcript, first window": transcript,
        "transcript, a jump": f"{transcript}?from={half}",
        "transcript, the end": f"{transcript}?to={longest.last_position}",
        "transcript of a message": f"{SESSIONS}{session.pk}/transcript/?message={call.pk}&trace={trace}",
        "transcript of a trace": f"{SESSIONS}{session.pk}/transcript/?trace={trace}",
        "session": f"{SESSIONS}{session.pk}/change/",
        "message": f"{MESSAGES}{call.pk}/change/",
        "sessions": SESSIONS,
        "sessions, far": f"{SESSIONS}?p=90",
        "sessions of an owner": f"{SESSIONS}?q={session.owner.public_id}",
        "session by UUID": f"{SESSIONS}?q={session.session_id}",
        "sessions of a workspace": f"{SESSIONS}?workspace={session.workspace_id}",
        "sessions of an agent there": f"{SESSIONS}?workspace={session.workspace_id}&agent=writer",
        "sessions of a day there": f"{SESSIONS}?workspace={session.workspace_id}&day={day}",
        "sessions in the trash": f"{SESSIONS}?deleted=yes",
        "messages": MESSAGES,
        "messages of a session": f"{MESSAGES}?session={longest.pk}",
        "tool calls of a session": f"{MESSAGES}?session={longest.pk}&role=tool_call",
        "failures of a session": f"{MESSAGES}?session={longest.pk}&status=failed",
        "messages by trace": f"{MESSAGES}?q={trace}",
        "messages by span": f"{MESSAGES}?q={span}",
        "messages of a day": f"{MESSAGES}?day={day}",
        "calls of a tool on a day": f"{MESSAGES}?day={day}&role=tool_call&tool=send_email",
        "failures of a day": f"{MESSAGES}?day={day}&status=failed",
        "messages of an agent on a day": f"{MESSAGES}?day={day}&agent=support",
        "messages of a workspace on a day": f"{MESSAGES}?day={day}&workspace={session.workspace_id}",
        "access log": "/admin/conversations/accessrecord/",
        "export": f"{SESSIONS}{session.pk}/export/jsonl/",
        "dashboard": "/admin/",
        "dashboard of a quarter": f"/admin/?days=90&until={day + timedelta(days=30)}",
        "dashboard of a workspace": f"/admin/?days=90&until={day}&workspace={session.workspace_id}",
        "dashboard of an agent": f"/admin/?days=90&until={day}&agent=support",
    }


def pastes(call: Message) -> dict[str, str]:
    trace, span, session = str(call.trace_id), str(call.span_id), call.session
    owner: Any = User.objects.get(pk=session.owner_id)
    return {
        "a trace id": trace,
        "an upper-case trace id": trace.upper(),
        "a traceparent": f"00-{trace}-{span}-01",
        "a span id": span,
        "the beginning of a trace id": trace[:12],
        "a link": f"https://cloud.langfuse.com/project/p/traces/{trace}?timestamp=2025-01-01T00:00:00Z",
        "a line of a log": f'2025-03-03 12:00 ERROR agent failed {{"trace_id": "{trace}", "span_id": "{span}"}}',
        "a session's UUID": str(session.session_id),
        "a session's number": f"session {session.pk}",
        "a message's number": f"message {call.pk}",
        "an email address": owner.email,
        "what nobody stored": "0123456789abcdef0123456789abcdef",
        "a sentence": "The customer says that the agent did not answer on Monday.",
    }
