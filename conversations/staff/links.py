"""Where the admin shows a conversation."""

from __future__ import annotations

from urllib.parse import urlencode

from django.urls import reverse


def transcript_url(
    session_id: int, message_id: int | None = None, position: int | None = None, trace: str | None = None
) -> str:
    """The transcript of a session, at a message of it, with the messages of a trace (as stored) marked."""
    named = {"message": message_id, "trace": trace}
    query = urlencode({name: value for name, value in named.items() if value is not None})
    path = reverse("admin:conversations_session_transcript", args=[session_id])
    return f"{path}{'?' if query else ''}{query}{'' if position is None else f'#m{position}'}"
