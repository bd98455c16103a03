"""Who of the staff did what with other people's conversations, and why: one record for each time.

A record is written before anything is shown. Where it cannot be written, nothing is shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final, NoReturn, cast

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from rest_framework.request import Request

from accounts.models import User
from chatstore.http.throttling import FailureThrottle, network_of
from conversations.models import AccessRecord, Session

REASON_SECONDS: Final = 3600
REASONS: Final = "access_reasons"
RECORDS_AT_ONCE: Final = 1_000
NO_STORE: Final = {"Cache-Control": "no-store"}


def record(request: HttpRequest, action: str, *, session: Session | None = None, detail: str = "") -> None:
    """Write down that the caller does `action` (AccessRecord.Action). `detail` holds what was asked for,
    never what was found."""
    recorded(request, action, session, detail).save(force_insert=True)


def record_each(request: HttpRequest, action: str, sessions: Iterable[Session], *, detail: str = "") -> None:
    """The same of many sessions, a record for each."""
    records = [recorded(request, action, session, detail) for session in sessions]
    AccessRecord.objects.bulk_create(records, batch_size=RECORDS_AT_ONCE)


def recorded(request: HttpRequest, action: str, session: Session | None, detail: str) -> AccessRecord:
    user = cast(User, request.user)
    return AccessRecord(
        user=user,
        user_public_id=user.public_id,
        action=AccessRecord.Action(action),
        session_id=session.pk if session else None,
        session_uuid=session.session_id if session else None,
        detail="".join(character if character.isprintable() else " " for character in detail[:255]),
        address=network_of(FailureThrottle().get_ident(cast(Request, request)) or ""),
        reason=reason_of(request, session),
    )


def refuse(action: str) -> NoReturn:
    """403, and a line in the log that says who tried what (`chatstore.http.problems.permission_denied`)."""
    raise PermissionDenied(action)


# Why


class ReasonForm(forms.Form):
    """Asked by POST, so that a reason is never in a URL. A CharField refuses NUL and strips spaces."""

    reason = forms.CharField(max_length=255)

    def clean_reason(self) -> str:
        reason: str = self.cleaned_data["reason"]
        if not reason.isprintable():
            raise forms.ValidationError("Must be printable characters on one line.", code="unprintable")
        return reason


def reason_of(request: HttpRequest, session: Session | None = None) -> str:
    """What the caller gave as the reason, with this request or in the last hour for this session; "" for none."""
    if "reason" in request.POST and (form := ReasonForm(request.POST)).is_valid():
        return str(form.cleaned_data["reason"])
    return reasons(request).get(str(session.pk), ("", 0))[0] if session else ""


def reasons(request: HttpRequest) -> dict[str, tuple[str, float]]:
    """The reasons of this login that still count: by session, the words and until when."""
    now = time.time()
    return {key: kept for key, kept in request.session.get(REASONS, {}).items() if kept[1] > now}


def remember_reason(request: HttpRequest, session: Session, reason: str) -> None:
    """In the caller's login, which ends when another user comes: nobody reads for the reason of somebody else."""
    request.session[REASONS] = reasons(request) | {str(session.pk): (reason, time.time() + REASON_SECONDS)}


def asked_for_reason(request: HttpRequest, session: Session) -> HttpResponse | None:
    """The page that asks why, which leads back to this URL; None where the caller may go on and read."""
    if not settings.ENVIRONMENT.access_reason_required or reason_of(request, session):
        return None
    url = reverse("admin:conversations_session_reason", args=[session.pk])
    return reason_page(request, ReasonForm(), url, {"next": [request.get_full_path()]})


def asked_for_reason_of_many(request: HttpRequest) -> HttpResponse | None:
    """The same for an action on a list: the page sends what was chosen once more, with the reason."""
    if not settings.ENVIRONMENT.access_reason_required or reason_of(request):
        return None
    said = {name: values for name, values in request.POST.lists() if name not in ("reason", "csrfmiddlewaretoken")}
    return reason_page(request, ReasonForm(), request.get_full_path(), said)


def reason_page(
    request: HttpRequest, form: ReasonForm, url: str, hidden: dict[str, list[Any]]
) -> TemplateResponse:
    context = {
        **admin.site.each_context(request),
        "title": "Why do you read this?",
        "form": form,
        "url": url,
        "hidden": [(name, value) for name, values in hidden.items() for value in values],
    }
    return TemplateResponse(request, "admin/conversations/access_reason.html", context, headers=NO_STORE)


def take_reason(request: HttpRequest, session: Session) -> HttpResponse:
    """What the page sends: kept for an hour, then back to where it was asked. Only to a path of this site."""
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        back = reverse("admin:conversations_session_change", args=[session.pk])
    form = ReasonForm(request.POST)
    if not form.is_valid():
        return reason_page(request, form, request.path, {"next": [back]})
    remember_reason(request, session, form.cleaned_data["reason"])
    return HttpResponseRedirect(back)
