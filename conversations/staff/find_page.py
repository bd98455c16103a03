"""Staff paste anything, and are led to the message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.views.decorators.http import require_http_methods

from accounts.models import User
from conversations.models import AccessRecord
from conversations.staff import access
from conversations.staff.find import Found, cut, find
from conversations.staff.lookups import MOST_LOOKED_AT
from conversations.staff.traces import MOST_READ, Candidate, Kind, candidates_in, query_of

PERMISSIONS: Final = ("conversations.view_message", "conversations.view_session")
LONGEST_DETAIL: Final = 255
# Of one id, so that none leaves no place for the others.
LONGEST_NAMED: Final = 64


@require_http_methods(["GET", "HEAD", "POST"])
def find_page(request: HttpRequest) -> HttpResponse:
    """Straight to the message, run or session where one was found; else a list, or what was recognised.

    The search box posts: what people paste is longer than a URL may be, and is none of a proxy's log. A list is
    shown under the URL of the ids alone, which can be reloaded and passed on, and is recorded each time.
    """
    if not cast(User, request.user).has_perms(PERMISSIONS):
        access.refuse(AccessRecord.Action.SEARCH)
    is_posted = request.method == "POST"
    text = (request.POST if is_posted else request.GET).get("q", "")
    pasted, is_cut = text[:MOST_READ], len(text) > MOST_READ
    candidates = candidates_in(pasted)
    found = find(candidates)
    if found:
        sessions = found.places.values()
        access.record_each(request, AccessRecord.Action.SEARCH, sessions, detail=searched(candidates, found))
    elif pasted.strip():
        access.record(request, AccessRecord.Action.SEARCH, detail=searched(candidates, found))
    if is_posted and found and not found.destination and not is_cut and (query := query_of(candidates)):
        return HttpResponseRedirect(f"?{urlencode({'q': query})}", status=303)
    if found.destination:
        return HttpResponseRedirect(found.destination, status=303 if is_posted else 302)
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "Find",
        "pasted": pasted.replace("\0", " "),
        "most_read": MOST_READ if is_cut else None,
        "found": found,
        "most_looked_at": MOST_LOOKED_AT if found.is_cut else None,
        # Titles and excerpts are reading, which asks for a reason: the transcript does.
        "has_words": not settings.ENVIRONMENT.access_reason_required,
        "recognised": [named for named in candidates if named.kind != Kind.PASTED],
    }
    return TemplateResponse(request, "admin/find.html", context)


def searched(candidates: Sequence[Candidate], found: Found) -> str:
    """What the record says: kinds and ids, long ones cut, and no other word of what was pasted. An email address
    is among them, since whose conversations were looked for is what the log is there to tell."""
    ids = [named for named in candidates if named.is_id or found.is_under(named)]
    said = [f"{named.kind.name.lower()} {cut(named.text, LONGEST_NAMED)}" for named in ids]
    for left in range(len(said) + 1):
        more = f" and {left} more" if left else ""
        detail = ", ".join(said[: len(said) - left]) + more
        if len(detail) <= LONGEST_DETAIL:
            return detail.strip() or "no id recognised"
    return ""
