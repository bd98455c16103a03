"""The middleware of pages, which the API passes by: it knows no login, form or frame, and JSON runs nothing.

Together they take a tenth of a small request. CSRF's check of a view stays for all; DRF's views are exempt.
"""

from __future__ import annotations

from typing import Any

from axes.middleware import AxesMiddleware
from csp.middleware import CSPMiddleware
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csrf import CsrfViewMiddleware


class OfPages:
    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        if request.path_info.startswith("/api/"):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]


class PolicyOfPages(OfPages, CSPMiddleware):
    pass


class SessionsOfPages(OfPages, SessionMiddleware):
    pass


class FormsOfPages(OfPages, CsrfViewMiddleware):
    pass


class LoginsOfPages(OfPages, AuthenticationMiddleware):
    pass


class MessagesOfPages(OfPages, MessageMiddleware):
    pass


class FramesOfPages(OfPages, XFrameOptionsMiddleware):
    pass


class LockoutOfPages(OfPages, AxesMiddleware):
    pass
