"""The public keys of OIDC issuers, fetched and remembered."""

from __future__ import annotations

import json
import time
from http.client import HTTPException
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, build_opener

import structlog
from jwt import PyJWKClient, PyJWKSet, PyJWTError
from jwt.exceptions import PyJWKClientConnectionError

TIMEOUT_SECONDS = 3
FRESH_SECONDS = 300
COOLDOWN_SECONDS = 30
COLD_COOLDOWN_SECONDS = 5
STALE_SECONDS = 3600
MOST_BYTES = 1024 * 1024
KEYS: dict[str, IssuerKeys] = {}
MAKING = Lock()

log = structlog.get_logger("chatstore.authentication")


class IssuerKeys(PyJWKClient):
    """One issuer's key set. Fetched anew every five minutes, and for an unknown key at most every thirty
    seconds; where the issuer cannot be reached the last set counts for an hour, and it is asked again no sooner
    than after thirty seconds (five, where there is no set at all)."""

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout=TIMEOUT_SECONDS, lifespan=FRESH_SECONDS, cooldown_duration=COOLDOWN_SECONDS)
        self.last_set: dict[str, Any] | None = None
        self.fetched_at = self.tried_at = -float("inf")
        self.reader: Thread | None = None
        self.answer: SimpleQueue[dict[str, Any] | BaseException] = SimpleQueue()

    def fetch_data(self) -> dict[str, Any]:
        """The key set. PyJWKClientConnectionError where there is none. PyJWKClient calls it under its lock."""
        now = time.monotonic()
        if now - self.fetched_at > STALE_SECONDS:
            self.last_set = None
        if now - self.tried_at >= (COOLDOWN_SECONDS if self.last_set else COLD_COOLDOWN_SECONDS):
            try:
                self.last_set = self.read()
                self.fetched_at = now
            except (PyJWTError, HTTPException, OSError, ValueError, TypeError, RecursionError) as error:
                log.error("keys cannot be fetched", url=self.uri, error=type(error).__name__)
            finally:  # All who waited meanwhile find that it has been tried.
                self.tried_at = time.monotonic()
        if self.last_set is None:
            raise PyJWKClientConnectionError("The issuer's keys cannot be fetched.")
        assert self.jwk_set_cache
        # An old set that is given once more is no new one: it is asked for again after the cooldown.
        self.jwk_set_cache.lifespan = max(self.fetched_at + FRESH_SECONDS - now, COOLDOWN_SECONDS)
        return self.last_set

    def read(self) -> dict[str, Any]:
        """The key set within TIMEOUT_SECONDS in all, name look-up and headers included, which no socket's timeout
        bounds: so in a thread, of which there is one at most. TimeoutError where it is late."""
        if self.reader is None or not self.reader.is_alive():
            self.answer = SimpleQueue()
            self.reader = Thread(target=put_key_set, args=(self.uri, self.answer), daemon=True)
            self.reader.start()
        try:
            found = self.answer.get(timeout=TIMEOUT_SECONDS)
        except Empty:
            raise TimeoutError from None
        if isinstance(found, BaseException):
            raise found
        return found


def put_key_set(url: str, answer: SimpleQueue[dict[str, Any] | BaseException]) -> None:
    try:
        answer.put(key_set_at(url))
    except HTTPError as error:
        error.close()  # It holds the connection.
        answer.put(error)
    except BaseException as error:
        answer.put(error)


class NoRedirects(HTTPRedirectHandler):
    """A redirect is an error: keys come from the configured address alone."""

    def redirect_request(self, *args: Any) -> None:
        return None


def key_set_at(url: str) -> dict[str, Any]:
    """The key set that is published there, with at least one usable key. PyJWKClient's own way to read it ends
    neither where the body is endless nor where it trickles, and all threads wait for it."""
    deadline, body = time.monotonic() + TIMEOUT_SECONDS, b""
    with build_opener(NoRedirects).open(url, timeout=TIMEOUT_SECONDS) as response:
        while part := response.read1(MOST_BYTES):
            body += part
            if len(body) > MOST_BYTES or time.monotonic() > deadline:
                raise ValueError("too large or too slow")
    found: Any = json.loads(body)
    if not isinstance(found, dict):
        raise TypeError("no object")
    PyJWKSet.from_dict(found)
    return found


def keys_at(url: str) -> IssuerKeys:
    """The one of this configured URL, never one from a token."""
    with MAKING:  # Two threads at once would make two, and fetch twice.
        if url not in KEYS:
            KEYS[url] = IssuerKeys(url)
        return KEYS[url]
