"""Server-sent events, and the one way to answer with a stream (contract 4 and 5)."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.conf import settings
from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse

from chatstore.http.problems import Unavailable
from chatstore.http.rendering import json_bytes

HEARTBEAT_SECONDS: Final = 15
SEND_SECONDS: Final = 30
KEEP_ALIVE: Final = b": keep-alive\n\n"
HEADERS: Final = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


class Slot:
    """A place for one stream; given back once."""

    def __init__(self, slots: Slots) -> None:
        self.slots: Slots | None = slots

    def give_back(self) -> None:
        slots, self.slots = self.slots, None
        if slots:
            with slots.lock:
                slots.taken -= 1


class Slots:
    """How many streams this process serves at once: a share of its threads, so that plain requests go on."""

    def __init__(self) -> None:
        self.taken = 0
        self.lock = threading.Lock()

    def take(self) -> Slot:
        """Unavailable (503) where none is free."""
        environment = settings.ENVIRONMENT
        with self.lock:
            if self.taken >= max(1, int(environment.web_threads * environment.stream_share)):
                raise Unavailable("Too many streams are open; try again.")
            self.taken += 1
        return Slot(self)


SLOTS = Slots()


@contextmanager
def slot_taken() -> Iterator[Slot]:
    """A slot, taken before anything is stored; given back where what follows fails."""
    slot = SLOTS.take()
    try:
        yield slot
    except BaseException:
        slot.give_back()
        raise


def frame(data: dict[str, Any], event: str = "", event_id: str = "") -> bytes:
    """One event; `data` on a single line, which JSON without line breaks is."""
    lines = [f"id: {event_id}\n"] * bool(event_id) + [f"event: {event}\n"] * bool(event)
    return b"%sdata: %s\n\n" % ("".join(lines).encode(), json_bytes(data))


class EventStream(StreamingHttpResponse):
    """Sends `frames` as they come, and a comment for an empty one. It holds no database connection from its first
    byte on; a send that blocks for half a minute, to a client that does not read, ends it."""

    def __init__(self, request: HttpRequest, frames: Iterable[bytes], slot: Slot) -> None:
        super().__init__(sent(frames), content_type="text/event-stream; charset=utf-8", headers=HEADERS)
        self.slot = slot
        if link := request.META.get("gunicorn.socket"):
            # Not settimeout, with which Python waits for the socket before each send.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))

    def close(self) -> None:
        self.slot.give_back()
        super().close()


def sent(frames: Iterable[bytes]) -> Iterator[bytes]:
    connections.close_all()
    yield b": open\n\n"
    for each in frames:
        yield each or KEEP_ALIVE
