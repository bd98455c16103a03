"""The words of messages, found the same way on both databases, with the index of words and without.

What is searched for is split at its spaces. Each word must be there as it was typed, in any case, at the beginning
of a word: `depl` finds "deploy", `foo.com/a` an address, `C++` itself. Scripts that write without spaces have no
such beginnings: there a word is found anywhere. The index narrows; the verdict is the same rule without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypedDict

from django.db import OperationalError, connection, transaction
from django.db.models import BigIntegerField, F, Q, QuerySet, Value
from django.db.models.functions import Concat, Left, Lower
from psycopg.errors import QueryCanceled

from conversations.models import Message, MessageQuerySet, Session, SessionQuerySet
from conversations.search_index import IN_NO_WORD, NO_WORD, SEARCHED, IndexedWords, indexed

MOST_WORDS: Final = 10
# Without the index so many messages are looked at, of so many sessions, the newest.
NEWEST: Final = 50_000
NEWEST_SESSIONS: Final = 5_000
# With it, what takes longer is looked for as without; and that, too, has an end.
MILLISECONDS: Final = 1_000
MILLISECONDS_OF_NEWEST: Final = 3_000

# Newest first. + 0, so that no index serves it: PostgreSQL may walk everybody's messages backwards.
BY_NO_INDEX: Final = (F("pk") + Value(0, BigIntegerField())).desc()

BEGINNING: Final = f"(^|[{NO_WORD}])"
NOT_WITHIN: Final = f"(?<![^{NO_WORD}])"
AROUND: Final = 100
MOST_EXCERPTS: Final = 3
MORE: Final = "\N{HORIZONTAL ELLIPSIS}"


class TooMuchToRead(Exception):
    """Even the newest messages are too long to look through in time."""


class Part(TypedDict):
    """A piece of an excerpt, in plain text."""

    text: str
    match: bool


class Found(NamedTuple):
    """Keys of messages, newest first. `is_partial`: there are older ones that were not looked at."""

    keys: list[int]
    is_partial: bool


def words_of(text: str) -> list[str]:
    """The words to look for, each once."""
    return list({word.lower(): word for word in text.split()}.values())


def matching(messages: MessageQuerySet, words: Sequence[str]) -> MessageQuerySet:
    """Those of `messages` that say all the words. Reads them all: see `find` and `newest_in`."""
    start = Left("content", SEARCHED)
    if connection.vendor == "postgresql":
        messages = messages.alias(searched=Lower(start))
        patterns = [Concat(Value(beginning_of(word)), Lower(Value(re.escape(word)))) for word in words]
        return messages.filter(*(Q(searched__regex=pattern) for pattern in patterns))
    messages = messages.alias(searched=start)
    return messages.filter(*(Q(searched__regex=f"{beginning_of(word)}(?i:{re.escape(word)})") for word in words))


def beginning_of(word: str) -> str:
    return "" if IN_NO_WORD.match(word) else BEGINNING


def find(
    messages: MessageQuerySet,
    sessions: SessionQuerySet,
    words: Sequence[str],
    *,
    before: int | None = None,
    skip: int = 0,
    limit: int,
) -> Found:
    """Those of `messages` in `sessions` that say all the words, newest first, at most so many.

    With the index among all of them, unless that takes too long: else among the newest (`newest_in`).
    """
    found = matching(messages if before is None else messages.filter(pk__lt=before), words)
    page = found.order_by(BY_NO_INDEX).values_list("pk", flat=True)
    rows = slice(skip, skip + limit)
    if query := indexed(words):
        everywhere = page.alias(words=IndexedWords("content")).filter(words=query, session__in=keys_of(sessions))
        if (keys := in_time(everywhere[rows], MILLISECONDS)) is not None:
            return Found(keys, False)
    newest, is_partial = newest_in(sessions, NEWEST)
    if (keys := in_time(page.filter(newest)[rows], MILLISECONDS_OF_NEWEST)) is None:
        raise TooMuchToRead
    return Found(keys, is_partial)


def keys_of(sessions: SessionQuerySet) -> QuerySet[Session, Any]:
    return sessions.order_by().values("pk")


def in_time(keys: QuerySet[Message, int], milliseconds: int) -> list[int] | None:
    """The keys; None where PostgreSQL takes too long over them."""
    if connection.vendor != "postgresql":
        return list(keys)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(milliseconds)])
            return list(keys)
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            return None
        raise


def newest_in(sessions: SessionQuerySet, most: int) -> tuple[Q, bool]:
    """Which messages are looked at where no index helps, and whether there are others: those of the sessions with
    the newest activity, and of a session the last ones. One query."""
    newest = sessions.order_by("-updated_at", "-id").values_list("pk", "last_position")
    whole: list[int] = []
    left = most
    for count, (key, last) in enumerate(newest[: NEWEST_SESSIONS + 1]):
        if count == NEWEST_SESSIONS:
            return Q(session__in=whole), True
        if last > left:
            return Q(session__in=whole) | Q(session=key, position__gt=last - left), True
        whole.append(key)
        left -= last
    return Q(session__in=whole), False


def said_by(keys: Sequence[int]) -> dict[int, str]:
    """What is searched of these messages, by key."""
    rows = Message.objects.filter(pk__in=keys).values_list("pk", Left("content", SEARCHED))
    return dict(rows)


def excerpts(content: str, words: Sequence[str]) -> list[list[Part]]:
    """Where the words stand in the text, some characters around each; a word that an excerpt shows already has
    none of its own. The beginning, where the text has changed meanwhile."""
    lowered = content.lower()
    matches = [span for word in words if (span := first_of(word, content, lowered))]
    apart: list[tuple[int, int]] = []
    for start, end in sorted(matches) or [(0, 0)]:
        if not apart or end > apart[-1][1] + AROUND:
            apart.append((start, end))
    return [excerpt(content, start - AROUND, end + AROUND, words) for start, end in apart[:MOST_EXCERPTS]]


def first_of(word: str, content: str, lowered: str) -> tuple[int, int] | None:
    """Where the word stands first, from where to where. Looked for in the text in lower case, which is a hundred
    times as quick as by the pattern; that has the last word, and all of it where cases differ in length."""
    pattern = pattern_of([word])
    if len(lowered) == len(content):
        place = lowered.find(word.lower())
        while place >= 0:
            if match := pattern.match(content, place):
                return match.span()
            place = lowered.find(word.lower(), place + 1)
    match = pattern.search(content)
    return match.span() if match else None


def excerpt(content: str, first: int, last: int, words: Sequence[str]) -> list[Part]:
    """The text from `first` to `last` or its ends, cut where the words begin and end."""
    first, place = max(first, 0), max(first, 0)
    parts: list[Part] = [{"text": MORE if first else "", "match": False}]
    for match in pattern_of(words).finditer(content, first, last):
        parts += [{"text": content[place : match.start()], "match": False}, {"text": match[0], "match": True}]
        place = match.end()
    parts.append({"text": content[place:last] + (MORE if last < len(content) else ""), "match": False})
    return [part for part in parts if part["text"]]


def pattern_of(words: Sequence[str]) -> re.Pattern[str]:
    """Any of the words, the longest first."""
    ordered = sorted(words, key=len, reverse=True)
    return re.compile(
        "|".join(f"{'' if IN_NO_WORD.match(word) else NOT_WITHIN}(?i:{re.escape(word)})" for word in ordered)
    )
