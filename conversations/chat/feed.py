"""What is watched in this process, and what of it has changed: one thread asks the database every half second for
all watched sessions together, also for the texts that other workers write, and a turn that runs here says so
itself. Who watches asks nothing while nothing changes."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, connections
from django.db.models import Case, F, IntegerField, When
from django.db.models.functions import Length

from accounts.authentication.credentials import Credential
from accounts.authentication.still_good import still_good
from accounts.models import Membership
from chatstore.http.logs import described
from conversations.models import Message, Session, Turn

POLL_SECONDS: Final = 0.5

log = structlog.get_logger("chatstore.chat")


class Wish(NamedTuple):
    """The text of a message that another worker writes, wanted as soon as it is longer than this."""

    message_id: int
    length: int


@dataclass(eq=False)
class Watcher:
    """Somebody who watches a session. `woken` is set when there may be something new; then `is_stale` says that it
    is in the database, `texts` holds what was wished, by the message's id, and `has_ended` says that they may not
    watch any more."""

    session_id: int
    user_id: int
    credential: Credential
    confined_to: UUID | None
    woken: threading.Event = field(default_factory=threading.Event)
    is_stale: bool = True
    has_ended: bool = False
    seen: Any = None
    wish: Wish | None = None
    texts: dict[int, str] = field(default_factory=dict)

    def wake(self, *, stale: bool = True, ended: bool = False) -> None:
        """From any thread: what another one has set meanwhile stays."""
        if stale:
            self.is_stale = True
        if ended:
            self.has_ended = True
        self.woken.set()


class Feed:
    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        self.lock = threading.Lock()
        self.is_polling = self.is_ending = False

    def add(self, watcher: Watcher) -> None:
        with self.lock:
            self.watchers.add(watcher)
            watcher.has_ended = self.is_ending
            if not self.is_polling:
                self.is_polling = True
                threading.Thread(target=self.run, name="feed", daemon=True).start()

    def end(self) -> None:
        """The process ends: whoever watches comes back to another."""
        with self.lock:
            self.is_ending = True
            watching = list(self.watchers)
        for watcher in watching:
            watcher.wake(ended=True)

    def remove(self, watcher: Watcher) -> None:
        with self.lock:
            self.watchers.discard(watcher)

    def touch(self, session_id: int, *, stale: bool) -> None:
        """A turn of this session that runs in this process has something to tell; `stale`: in the database too."""
        if self.watchers:
            with self.lock:
                watching = [watcher for watcher in self.watchers if watcher.session_id == session_id]
            for watcher in watching:
                watcher.wake(stale=stale)

    def run(self) -> None:
        """As long as anything is watched."""
        while watchers := self.watched():
            try:
                look(watchers)
            except (DatabaseError, InterfaceError) as error:
                log.warning("watched sessions cannot be read now", error=described(error.__cause__ or error))
            except Exception as error:
                log.error("the feed made an error", error=type(error).__qualname__)
            finally:
                connections.close_all()
            time.sleep(POLL_SECONDS)

    def watched(self) -> list[Watcher]:
        with self.lock:
            self.is_polling = bool(self.watchers)
            return list(self.watchers)


FEED = Feed()


def look(watchers: list[Watcher]) -> None:
    """Wake those whose session has changed, or whose text has grown, and end those who may not watch it any more.
    As many queries for one watcher as for many."""
    ids = {watcher.session_id for watcher in watchers}
    seats = seats_of(ids, {watcher.user_id for watcher in watchers})
    # Also those that have lost their worker: when they are settled, nothing else need change.
    running = dict(Turn.objects.running().filter(session__in=ids).values_list("session_id", "pk"))
    good = still_good(watcher.credential for watcher in watchers)
    texts = texts_for(ids, [wish for watcher in watchers if (wish := watcher.wish)])
    for watcher in watchers:
        seat = seats.get((watcher.session_id, watcher.user_id))
        if seat is None or watcher.credential.ref not in good or not may_watch(watcher, seat):
            watcher.wake(ended=True)
            continue
        if (now := (seat.version, seat.is_deleted, running.get(watcher.session_id))) != watcher.seen:
            watcher.seen = now
            watcher.wake(stale=True)
        if (wish := watcher.wish) and len(text := texts.get(wish.message_id, "")) > wish.length:
            watcher.texts = {wish.message_id: text}
            watcher.wake(stale=False)


def texts_for(sessions: set[int], wishes: list[Wish]) -> dict[int, str]:
    """The texts of messages, by their ids, that are longer than the shortest wish for them."""
    if not wishes:
        return {}
    shortest = dict(sorted(wishes, reverse=True))
    wished = Case(*(When(pk=pk, then=length) for pk, length in shortest.items()), output_field=IntegerField())
    rows = Message.objects.filter(session__in=sessions, pk__in=shortest)
    grown = rows.alias(length=Length("content"), wished=wished).filter(length__gt=F("wished"))
    return dict(grown.values_list("pk", "content"))


class Seat(NamedTuple):
    """A member's place at a session."""

    version: int
    is_deleted: bool
    owner_id: int
    workspace_id: UUID
    role: str


def seats_of(sessions: set[int], users: set[int]) -> dict[tuple[int, int], Seat]:
    """By session and user; no entry where a user is no member of a session's workspace, or deactivated."""
    members = "workspace__memberships__"
    mine = {f"{members}user__in": users, f"{members}user__is_active": True}
    columns = ("id", f"{members}user_id", "version", "deleted_at", "owner_id", "workspace_id", f"{members}role")
    rows = Session.objects.filter(pk__in=sessions, **mine).values_list(*columns)
    return {
        (session_id, user_id): Seat(version, deleted_at is not None, *rest)
        for session_id, user_id, version, deleted_at, *rest in rows
    }


def may_watch(watcher: Watcher, seat: Seat) -> bool:
    if watcher.confined_to not in (None, seat.workspace_id):
        return False
    return seat.owner_id == watcher.user_id or seat.role == Membership.Role.ADMIN
