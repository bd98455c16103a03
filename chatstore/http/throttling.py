"""How often somebody may ask (contract 1, overload: 429 with `Retry-After`).

Counted in Django's cache by the minute of the clock: together where CACHE_URL says so, else by each worker for
itself. A cache that is away lets everybody pass.
"""

from __future__ import annotations

import re
import time
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

import structlog
from django.conf import settings
from django.core.cache import cache
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

if TYPE_CHECKING:  # It reads its throttle classes from here.
    from rest_framework.views import APIView

WINDOW_SECONDS = 60
PORT = re.compile(r"^(\[.*\]|[^:]*):\d+$")

log = structlog.get_logger("chatstore.throttling")


def counted(what: str) -> int:
    """How often `what` was counted in this minute, this time included; 0 where the cache cannot say."""
    key = f"{what}:{int(time.time()) // WINDOW_SECONDS}"
    try:
        return 1 if cache.add(key, 1, 2 * WINDOW_SECONDS) else cache.incr(key)
    except (RedisError, OSError) as error:
        log.warning("the cache is away", error=type(error).__name__)
    except ValueError:  # Expired or thrown out between the two.
        return 1
    return 0


class MinuteThrottle(BaseThrottle):
    def wait(self) -> float:
        """Seconds until the next minute begins."""
        return WINDOW_SECONDS - time.time() % WINDOW_SECONDS


class CredentialThrottle(MinuteThrottle):
    """MAX_REQUESTS_PER_MINUTE with one credential."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        limit = settings.ENVIRONMENT.max_requests_per_minute
        return limit is None or counted(f"requests:{request.auth.ref}") <= limit  # type: ignore[union-attr]


class FailureThrottle(MinuteThrottle):
    """MAX_FAILURES_PER_MINUTE from one address, counted when a request has failed: a good token is let in from
    anywhere, since many share an address, and there is nothing to guess in 256 random bits."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        limit = settings.ENVIRONMENT.max_failures_per_minute
        return not limit or counted(f"failures:{network_of(self.get_ident(request))}") <= limit


def network_of(ident: str) -> str:
    """The address, or of IPv6 the /64 that one subscriber has. An IPv4 address may be written as IPv6 maps it, and
    some proxies append a port."""
    said = PORT.sub(r"\1", ident.strip()).strip("[]")
    try:
        address = ip_address(said)
    except ValueError:
        return "unknown"
    address = getattr(address, "ipv4_mapped", None) or address
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else str(address)
