"""What each route of the API may ask of the database: how many statements, and how many rows one of them reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple
from unittest.mock import patch
from urllib.parse import urlsplit

from django.db import connections
from django.db.models import F
from django.urls import resolve
from django.utils import timezone

from accounts.authentication.credentials import Credential
from accounts.models import ApiToken, User
from conftest import Caller
from conversations.chat import records, stored
from conversations.chat.events import Events, Place
from conversations.chat.feed import Watcher, look
from conversations.chat.stored import MOST_OF_HISTORY
from conversations.models import Message, Session, Turn
from conversations.tests import turns

NEXT: Final = re.compile(r'<https?://[^/]+(.*)>; rel="next"')
HELLO: Final = {"role": "user", "content": "Hello!"}
# The row, the caller's look into its session, and what an UPDATE returns.
ONE: Final = 3
# A page and the row after it, and a few in the trash among them.
SESSIONS, MESSAGES, CONVERSATION = 51 + 10, 101 + 10, 1000 + 10
# A run of three to six messages, each with its session.
TRACE: Final = 10
# What an assistant is told, and of the markers among them as many again.
HISTORY: Final = 2 * MOST_OF_HISTORY
# What the uses below add to a session. All of it has changed since a version that was read before.
ADDED: Final = 500


class Budget(NamedTuple):
    """A use of a route: `queries` are its statements but for savepoints; `rows` are the most of sessions or of
    messages that one of them looks at; `ask` is the use itself."""

    route: str
    method: str
    queries: int
    rows: int
    ask: Callable[[], object]

    @property
    def name(self) -> str:
        return f"{self.method} {self.route}"


class Person:
    """Somebody who asks."""

    def __init__(self, user: User) -> None:
        self.user = user
        # Used just now: a first use would be written down.
        self.token, text = ApiToken.objects.issue(user, last_used_at=timezone.now())
        self.caller = Caller(user, text)

    def __call__(
        self, queries: int, rows: int, method: str, path: str, body: Any = None, **headers: str
    ) -> Budget:
        route = resolve(urlsplit(path).path).url_name
        assert route
        return Budget(route, method, queries, rows, partial(self.send, method, path, body, **headers))

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = self.caller.send(method, path, body, **headers)
        assert answer.status_code < 300, f"{method} {path}: {answer.content.decode()}"
        return answer

    def after(self, path: str) -> str:
        """The page that follows this one."""
        following = NEXT.fullmatch(self.send("GET", path).headers["Link"])
        assert following
        return following[1]


def budgets() -> dict[str, Budget]:
    """By what they are, to be asked in this order. The caller owns the longest session and some hundred others."""
    longest = (
        Session.objects.annotate(length=F("last_position") + 0).order_by("-length").select_related("owner")[0]
    )
    me = Person(longest.owner)
    somebody = Person(User.objects.exclude(pk=me.user.pk).filter(identities__issuer="volume").order_by("-pk")[0])
    mine = Session.objects.filter(owner=me.user).exclude(pk=longest.pk).order_by("pk")
    own, theirs = mine.count() + ONE, Session.objects.filter(owner=somebody.user)
    trash = mine.deleted()[0]
    first, second, third, fourth, *_ = mine.live()[own // 2 :]
    call = Message.objects.filter(session=first, span_id__isnull=False)[0]
    said, doomed = Message.objects.filter(session=second).order_by("position")[:2]
    half, whole = longest.last_position // 2, longest.last_position + ADDED
    place = f"workspace={longest.workspace_id}&owner=all"
    of_longest = f"/api/sessions/{longest.pk}/messages/"
    in_query = f"/api/messages/?session_id={longest.pk}"
    turns.begin(fourth, turns.THERE)
    their_messages = Message.objects.filter(session__in=theirs).count()
    return {
        "my sessions": me(2, SESSIONS, "GET", "/api/sessions/"),
        "their next page": me(2, SESSIONS, "GET", me.after("/api/sessions/")),
        "far among them": me(2, SESSIONS + 200, "GET", "/api/sessions/?skip=200"),
        "a workspace's": me(3, SESSIONS, "GET", f"/api/sessions/?{place}"),
        "its next page": me(3, SESSIONS, "GET", me.after(f"/api/sessions/?{place}")),
        "the trash": me(2, own, "GET", "/api/sessions/?deleted=true"),
        "those of a pocket": me(2, own, "GET", "/api/sessions/?pocket=nothing"),
        "those of a title": me(2, own, "GET", "/api/sessions/?title=nothing"),
        "those changed since": me(
            2, SESSIONS, "GET", f"/api/sessions/?updated_since={datetime.now(UTC):%Y-%m-%dT00:00Z}"
        ),
        "by id": me(2, ONE, "GET", f"/api/sessions/{first.pk}/"),
        "by UUID": me(2, ONE, "GET", f"/api/sessions/{first.session_id}/"),
        "a new one": me(3, ONE, "POST", "/api/sessions/", {}),
        "a new one with a key": me(3, ONE, "POST", "/api/sessions/", {}, Idempotency_Key="k"),
        "the same again": me(4, ONE, "POST", "/api/sessions/", {}, Idempotency_Key="k"),
        "a new title": me(5, ONE, "PATCH", f"/api/sessions/{first.pk}/", {"title": "Changed"}),
        "to the trash": me(5, ONE, "DELETE", f"/api/sessions/{third.pk}/"),
        "out of the trash": me(5, ONE, "POST", f"/api/sessions/{trash.pk}/restore/"),
        "messages": me(3, MESSAGES, "GET", of_longest),
        "messages far on": me(3, MESSAGES, "GET", me.after(f"{of_longest}?after={half}")),
        "messages farther on": me(3, MESSAGES, "GET", me.after(f"{in_query}&skip={half}")),
        "the newest": me(3, MESSAGES, "GET", f"{in_query}&order=desc"),
        "the next newest": me(3, MESSAGES, "GET", me.after(f"{in_query}&order=desc")),
        "after a position": me(3, MESSAGES, "GET", f"{in_query}&after={half}"),
        "before a position": me(3, MESSAGES, "GET", f"{of_longest}?before={half}&order=desc"),
        "since a version": me(3, ADDED, "GET", f"{of_longest}?since_version={longest.version - 20}"),
        "of a role": me(3, whole, "GET", f"{in_query}&role=system"),
        "of a trace": me(2, TRACE, "GET", f"/api/messages/?trace_id={call.trace_id}"),
        "of a trace, last first": me(2, TRACE, "GET", f"/api/messages/?trace_id={call.trace_id}&order=desc"),
        "the next of a trace": me(2, TRACE, "GET", me.after(f"/api/messages/?trace_id={call.trace_id}&limit=1")),
        "of a trace and a role": me(2, TRACE, "GET", f"/api/messages/?trace_id={call.trace_id}&role=user"),
        "of a span": me(2, ONE, "GET", f"/api/messages/?span_id={call.span_id}"),
        "one message": me(2, ONE, "GET", f"/api/messages/{call.pk}/"),
        "said": me(3, ONE, "POST", of_longest, HELLO),
        "said with a key": me(3, ONE, "POST", in_query, HELLO, Idempotency_Key="k"),
        "said again": me(5, ONE, "POST", in_query, HELLO, Idempotency_Key="k"),
        "many": me(4, ONE, "POST", f"{of_longest}batch/", {"messages": [HELLO] * 100}),
        "many with a key": me(
            5, ONE, "POST", f"{of_longest}batch/", {"messages": [HELLO] * 100}, Idempotency_Key="b"
        ),
        "other words": me(6, ONE, "PATCH", f"/api/messages/{said.pk}/", {"content": "Well"}),
        "gone": me(7, ONE, "DELETE", f"/api/messages/{doomed.pk}/"),
        "my conversations": me(2, SESSIONS, "GET", "/api/conversations?limit=50"),
        "a conversation": me(3, CONVERSATION, "GET", f"/api/conversations/{longest.pk}"),
        "far back in it": me(3, CONVERSATION + half, "GET", f"/api/conversations/{longest.pk}?offset={half}"),
        # All that was said in the sessions that have changed today.
        "my usage": me(2, whole, "GET", "/api/usage/"),
        "a workspace's usage": me(3, whole, "GET", f"/api/usage/?{place}"),
        "words": somebody(5, their_messages, "GET", "/api/search/?q=order"),
        "words in a session": me(6, first.last_position, "GET", f"/api/search/?q=order&session_id={first.pk}"),
        "me": me(3, 0, "GET", "/api/me/"),
        "a stop": me(4, ONE, "POST", f"/api/sessions/{fourth.pk}/stop/"),
        # Not the requests, whose threads have connections of their own and see nothing of a test's transaction,
        # but what they ask. Whether a row still streams, no index knows.
        "a reply": Budget("chat", "POST", 19, HISTORY, partial(reply, me, longest)),
        "a reply to watch": Budget("chat-stream", "POST", 19, HISTORY, partial(reply, me, longest)),
        "events": Budget("events", "GET", 14, ADDED, partial(watch, me, longest)),
    }


def reply(person: Person, session: Session) -> None:
    """What a turn reads and writes, one after the other."""
    found = Session.objects.live().owned_by(person.user).named(str(session.pk)).get()
    turn = turns.begin(found)
    stored.history(found, turn.question)
    row = turns.say(turn)
    records.complete_row(turn, row, content="Well", tokens=1)
    records.finish(turn, Turn.Status.COMPLETE, {}, None)
    stored.rows_of(turn)
    stored.message_at(found, turn.question)


def watch(person: Person, session: Session) -> None:
    """What somebody who comes back is sent at first, and one look of the feed."""
    session.refresh_from_db()
    credential: Credential = person.token
    watcher = Watcher(session.pk, person.user.pk, credential, None)
    with patch.object(connections, "close_all"):
        list(Events(session, watcher, Place(session.version - 20)).changes())
    look([watcher])
