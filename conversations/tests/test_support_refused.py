"""What a member of Support asks for by hand: nothing is written, and the log says who was refused what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group
from django.db.models import Model
from django.test import Client
from django.urls import URLResolver, get_resolver

from accounts.models import User, Workspace
from chatstore.http.requests import LONG_WORD, masked
from conftest import Caller
from conversations.models import Message, Session
from conversations.tests.colleagues import SESSIONS, said_in
from conversations.tests.planting import Planting, everything

# What staff see is of the same code on either database; on SQLite a browser opens each page.
pytestmark = pytest.mark.postgres

Rows = dict[type[Model], Any]
Page = tuple[str, str]

# Looking writes these, and nothing else: the log of it, and the reader's own login.
LOOKING = {"conversations.AccessRecord", "sessions.Session"}
METHODS = ("get", "post", "put", "patch", "delete")
SECRET = "what nobody may log"
# It ends the very login that the test is about.
LEFT_OUT = "logout"

# All that Support may open, by the names of the routes; any other page of the admin is refused.
ANYBODYS = {"index", "login", "password_change", "password_change_done", "jsi18n", "staff-find"}
LISTS = {"conversations_session_changelist", "conversations_message_changelist"}
PAST = {"conversations_session_history", "conversations_message_history"}
READ = {"conversations_session_change", "conversations_message_change"}
TRANSCRIPT, REASON = "conversations_session_transcript", "conversations_session_reason"
MAY_POST = {*ANYBODYS, *LISTS, *PAST, TRANSCRIPT, REASON}
MAY_OPEN = {*MAY_POST, *READ}
# No page at all: a field that nothing refers to (`_to_field`), a method that no page has.
MALFORMED = {400, 405}
# Pages of which Django says that there is none, or which lead on to one of the others.
ABSENT = {"app_list", "view_on_site", ""}


def routes(patterns: list[Any], before: str = "/") -> Iterator[Page]:
    """The name and the whole route of every page."""
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            yield pattern.name or "", route


def pages_of(rows: Rows) -> list[Page]:
    """Every page of the admin, with the keys of rows that are there."""
    found = []
    for name, route in routes(get_resolver().url_patterns):
        if route.startswith("/admin/") and name != LEFT_OUT:
            labels = {model._meta.label_lower.replace(".", "/"): model for model in admin.site._registry}
            model = next((model for label, model in labels.items() if f"/{label}/" in route), User)
            known = re.sub(r"\^\(\?P<app_label>(\w+).*", r"\1/", route.replace("<slug:form>", "jsonl"))
            found.append((name, re.sub(r"<[^>]+>", str(rows[model].pk), known)))
    return found


@pytest.fixture
def rows(alice: Caller, support: Client) -> Rows:
    """A row of everything, with a past."""
    rows: Rows = dict(Planting(alice.user).rows)
    rows[Group] = Group.objects.get(name="Administrators")
    LogEntry.objects.log_actions(alice.user.pk, [rows[Session]], CHANGE, change_message="Changed.")
    return rows


def stored() -> dict[str, Any]:
    """Every row of every table but what looking writes."""
    found = {label: rows for label, rows in everything().items() if label not in LOOKING}
    for user in found["accounts.User"]:
        user.pop("last_login")
    return found


def forged(rows: Rows) -> dict[str, str]:
    """A form that does something wherever it is sent to, from anybody who may."""
    none = {
        f"{prefix}-{name}_FORMS": "0"
        for prefix in ("memberships", "new_members", "identities")
        for name in ("TOTAL", "INITIAL")
    }
    return {
        "title": SECRET, "content": SECRET, "username": "changed", "name": SECRET, "email": "changed@example.com",
        "password1": "a-Long-Passw0rd", "password2": "a-Long-Passw0rd", "usable_password": "true",
        "new_password1": "a-Long-Passw0rd", "new_password2": "a-Long-Passw0rd", "old_password": "guessed",
        "user": str(rows[User].pk), "workspace": str(rows[Workspace].public_id), "role": "admin",
        "is_active": "on", "is_staff": "on", "is_superuser": "on", "scope": "read write", "post": "yes",
        "_save": "Save", "_saveasnew": "1", "reason": SECRET, "next": SESSIONS, "q": SECRET, **none,
    }  # fmt: skip


def refusals(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What was asked for; and that it was Support who asked, each time."""
    said = said_in(caplog, "refused")
    assert {line["user"] for line in said} <= {str(User.objects.get(username="support").public_id)}
    assert SECRET not in str(said)
    return [(line["method"], line["path"]) for line in said]


def as_logged(path: str) -> str:
    return LONG_WORD.sub(masked, path)


@pytest.mark.parametrize("query", ["", f"?_popup=1&q={SECRET}", "?_to_field=id", "?_popup=1&_to_field=password"])
def test_every_page_that_is_not_theirs_is_refused(
    support: Client, rows: Rows, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    pages = pages_of(rows)
    before = stored()
    refused, surprises = [], []
    for name, path in pages:
        for method in METHODS:
            form = forged(rows) if method == "post" else {}
            status = getattr(support, method)(path + query, form).status_code
            if status == 403:
                refused.append((method.upper(), as_logged(path)))
            may = name in ABSENT or name in (MAY_POST if method == "post" else MAY_OPEN)
            if (status not in MALFORMED and may == (status == 403)) or status >= 500:
                surprises.append((name, method, path, status))
    assert stored() == before
    assert not surprises, "\n".join(map(str, surprises))
    assert refusals(caplog) == refused
    assert len(refused) > 100


def test_no_action_of_any_list_is_theirs(support: Client, rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    """Each list is sent the actions of all, and Django's own, that deletes."""
    known: dict[type[Model], Any] = admin.site._registry
    names = {name for its in known.values() for _, name, _ in its._get_base_actions()} | {
        "delete_selected",
        "made_up",
    }
    assert {"restore", "trash", "settle", "export_csv", "revoke", "deactivate"} < names
    before = stored()
    refused = []
    for model in known:
        path = f"/admin/{model._meta.label_lower.replace('.', '/')}/"
        for name in sorted(names):
            for more in ({"index": "0"}, {"index": "0", "select_across": "1"}, {}):
                chosen = {"action": name, "_selected_action": [rows[model].pk], **forged(rows), **more}
                assert support.post(path, chosen).status_code == 403, (model, name, more)
                refused.append(("POST", path))
    assert stored() == before
    assert refusals(caplog) == refused
    by_path = {(line["path"], line["action"]) for line in said_in(caplog, "refused")}
    assert (SESSIONS, "export_csv") in by_path


def test_nobody_else_is_completed_for_them(support: Client, rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    """The look-ups behind the fields of forms, of every relation there is."""
    fields = [(model, field) for model in rows for field in model._meta.get_fields() if field.is_relation]
    answers = {}
    for model, field in fields:
        app_label, name = model._meta.label_lower.split(".")
        asked = {"app_label": app_label, "model_name": name, "field_name": field.name, "term": "a"}
        answers[model, field] = support.get("/admin/autocomplete/", asked).status_code
    allowed = {key for key in answers if key[1].concrete and key[1].related_model in (Session, Message)}
    assert {key for key, status in answers.items() if status == 200} == allowed
    assert {status for key, status in answers.items() if key not in allowed} == {403}
    assert refusals(caplog) == [("GET", "/admin/autocomplete/")] * (len(answers) - len(allowed))
    assert len(answers) > 20
