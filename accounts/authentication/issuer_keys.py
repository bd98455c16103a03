"""The public keys of OIDC issuers, fetched and remembered."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import structlog
from jwt import PyJWKClient, PyJWTError
from jwt.exceptions import PyJWKClientConnectionError

TIMEOUT_SECONDS = 3
FRESH_SECONDS = 300
COOLDOWN_SECONDS = 30
COLD_COOLDOWN_SECONDS = 5
STALE_SECONDS = 3600

log = structlog.get_logger("chatstore.authentication")


class IssuerKeys(PyJWKClient):
    """One issuer's key set. Fetched anew every five minutes, and for an unknown key at most every thirty
    seconds; where the issuer cannot be reached the last set counts for an hour, and it is asked again no sooner
    than after thirty seconds (five, where there is no set at all)."""

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout=TIMEOUT_SECONDS, lifespan=FRESH_SECONDS, cooldown_duration=COOLDOWN_SECONDS)
        self.last_set: dict[str, Any] | None = None
        self.fetched_at = self.tried_at = -float("inf")

    def fetch_data(self) -> dict[str, Any]:
        """The key set. PyJWKClientConnectionError where there is none. PyJWKClient calls it under its lock."""
        now = time.monotonic()
        if now - self.fetched_at > STALE_SECONDS:
            self.last_set = None
        if now - self.tried_at >= (COOLDOWN_SECONDS if self.last_set else COLD_COOLDOWN_SECONDS):
            self.tried_at = now
            try:
                self.last_set = super().fetch_data()
                self.fetched_at = now
            except (PyJWTError, OSError, ValueError, RecursionError) as error:
                log.error("keys cannot be fetched", url=self.uri, error=type(error).__name__)
        if self.last_set is None:
            raise PyJWKClientConnectionError("The issuer's keys cannot be fetched.")
        return self.last_set


@cache  # One for each configured URL, never one from a token.
def keys_at(url: str) -> IssuerKeys:
    return IssuerKeys(url)
