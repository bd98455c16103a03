"""The front page, with the playground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.generic import TemplateView

from conversations.management.credentials import Credentials


class FrontPage(TemplateView):
    """In development it hands out the token that `make run` has made; anywhere else people bring their own."""

    template_name = "front.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs, demo_token=demo_token())

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().get(request, *args, **kwargs)
        response.headers["Cache-Control"] = "no-store"
        return response


def demo_token() -> str:
    if not settings.ENVIRONMENT.is_development:
        return ""
    return Credentials(Path(settings.BASE_DIR) / ".development").get("token")
