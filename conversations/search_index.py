"""The index of words that `manage.py searchindex` makes (PostgreSQL), and what it knows of a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from django.conf import settings
from django.contrib.postgres.search import SearchQuery, SearchVectorField
from django.db import connection
from django.db.models import Func

INDEX: Final = "message_search"
# Of a message so much is searched, in characters: the words of more may be more than PostgreSQL takes.
SEARCHED: Final = 200_000
# Longer words are cut in the index: PostgreSQL leaves out those of more than 2,046 bytes.
LONGEST_INDEXED: Final = 250

# What no word has: spaces, signs, and the letters of scripts that write without spaces. As ranges and no classes,
# which are a matter of the database's locale.
NO_WORD: Final = (
    r"\u0001-/:-@\[-`{-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7"
    r"\u0e00-\u0eff\u1000-\u109f\u1680\u1780-\u17ff\u2000-\u2bff\u2e00-\ua4cf\ue000-\ufaff\ufe00-\ufe6f"
    r"\ufeff-\uffff\U00010000-\U0010ffff"
)
IN_NO_WORD: Final = re.compile(f"[{NO_WORD}]")
# Letters and digits that PostgreSQL's parser keeps together in every locale; of 1e2x it makes two words.
KEPT: Final = re.compile(
    "[0-9]+(?=[eE][0-9])|[0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u0373\u0376\u0377\u037b-\u037d"
    "\u0386\u0388-\u03ff\u0400-\u0481\u048a-\u052f\u05d0-\u05ea\u0620-\u063f\u0641-\u064a\uac00-\ud7a3]+"
)


class IndexedWords(Func):
    """The words of a message in the index; its SQL is that of the index."""

    template = (
        "to_tsvector('simple', regexp_replace(regexp_replace("
        f"left(%(expressions)s, {SEARCHED}), '[{NO_WORD}]+', ' ', 'g'), "
        f"'([^ ]{{{LONGEST_INDEXED}}})[^ ]+', '\\1', 'g'))"
    )
    output_field = SearchVectorField()


def is_built() -> bool:
    """Whether the index is there and whole. PostgreSQL only."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", [INDEX])
        return cursor.fetchone() == (True,)


def indexed(words: Sequence[str]) -> SearchQuery | None:
    """What the index knows of the words; None where it knows nothing, or is off.

    Every message that says the words matches, and some others.
    """
    if not (settings.ENVIRONMENT.search_index and connection.vendor == "postgresql"):
        return None
    runs = [run for word in words for run in IN_NO_WORD.split(word)]
    kept = [f"{found[0][:LONGEST_INDEXED]}:*" for run in runs if (found := KEPT.match(run))]
    return SearchQuery(" & ".join(kept), config="simple", search_type="raw") if kept else None
