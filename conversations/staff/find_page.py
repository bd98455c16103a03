"""Staff paste anything, and are led to the message."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.views.decorators.http import require_safe

from accounts.models import User
from conversations.staff.find import find
from conversations.staff.traces import MOST_READ, Kind, candidates_in


@require_safe
def find_page(request: HttpRequest) -> HttpResponse:
    """Straight to the message, run or session where one was found; else a list, or what was recognised."""
    if not cast(User, request.user).has_perm("conversations.view_message"):
        raise PermissionDenied
    pasted = request.GET.get("q", "")[:MOST_READ]
    candidates = candidates_in(pasted)
    found = find(candidates)
    if found.destination:
        return HttpResponseRedirect(found.destination)
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "Find",
        "pasted": pasted.replace("\0", " "),
        "found": found,
        "recognised": [named for named in candidates if named.kind != Kind.PASTED],
    }
    return TemplateResponse(request, "admin/find.html", context)
