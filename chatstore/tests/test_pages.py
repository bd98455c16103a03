"""What the API passes by (`chatstore/http/pages.py`), every page has."""

from __future__ import annotations

import pytest
from axes.middleware import AxesMiddleware
from django.conf import settings
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.test import Client
from django.utils.module_loading import import_string

from conftest import Caller

pytestmark = pytest.mark.once

GUARDS = {"X-Frame-Options", "Content-Security-Policy"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/", "/admin/login/", "/docs", "/redoc", "/health/live", "/api", "/API/me/", "/admin/api/"]
)
def test_a_page_is_guarded(path: str) -> None:
    assert set(Client().get(path).headers) >= GUARDS


def test_the_login_keeps_its_form_and_its_cookie(sam: Caller) -> None:
    client = Client()
    client.force_login(sam.user)
    page = client.get("/admin/")
    assert page.status_code == 200
    assert page.cookies["csrftoken"].value


@pytest.mark.parametrize("path", ["/api/me/", "/api/nothing/", "/api//", "/api/../admin/"])
def test_the_api_answers_in_json_and_knows_no_login(alice: Caller, sam: Caller, path: str) -> None:
    alice.client.force_login(sam.user)
    answer = alice.get(path)
    assert answer.headers["Content-Type"] in ("application/json", "application/problem+json")
    assert not answer.cookies
    assert not hasattr(answer.wsgi_request, "session")
    alice.token = ""
    assert alice.get("/api/me/").status_code == 401


def test_the_silenced_checks_would_have_nothing_to_say() -> None:
    """They look for Django's and axes' names; each of these is there, as ours."""
    used = [import_string(name) for name in settings.MIDDLEWARE]
    wanted = (XFrameOptionsMiddleware, CsrfViewMiddleware, AxesMiddleware)
    assert len(settings.SILENCED_SYSTEM_CHECKS) == len(wanted)
    for middleware in wanted:
        assert [one for one in used if isinstance(one, type) and issubclass(one, middleware)]
