from __future__ import annotations

from rest_framework.routers import SimpleRouter


class OptionalSlashRouter(SimpleRouter):
    """Each route with and without its trailing slash, and no redirect, which would lose a POST's body."""

    def __init__(self) -> None:
        super().__init__()
        self.trailing_slash = "/?"
