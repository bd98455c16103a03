"""What a pasted text names: ids of traces, spans, sessions and messages, and email addresses.

People paste whatever they have: an id in the spelling of their tracing system, a link to it, a header, a line of
a log, a ticket. Ids are stored exactly as they were sent, so each comes with the spellings it may be stored under.

The text is hostile: only so much of it is read, and each expression moves on after a bounded number of steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote_plus, unquote

from chatstore.ids import row_id_of

MOST_READ = 20_000
MOST_CANDIDATES = 20
SHORTEST_PREFIX = 8
LONGEST_ID = 255
# As it stands in a URL.
LONGEST_QUERY = 4_000
# A link inside of a link is encoded twice.
MOST_DECODINGS = 2

TRACE_DIGITS = 32
SPAN_DIGITS = 16
OPENAI_SPAN_DIGITS = 24
# Jaeger leaves out leading zeros. More than two are too rare to take every short number for an id.
MOST_ZEROS_LOST = 2

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Not inside of a word, but after the \n that a log writes for the end of a line.
BEGINNING = r"(?:(?<![0-9A-Za-z])|(?<=\\[nrt]))"
HEX = re.compile(
    BEGINNING + r"(?:0x)?(?P<prefix>(?:trace|span)_)?"
    r"(?P<digits>[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{8,32})(?![0-9A-Za-z])",
    re.IGNORECASE,
)
# `trace_id=run-17`, `"sessionId": 17`, `message 17`, `/sessions/17/`. What follows is looked at and not consumed:
# it may be the next label, as in /conversations/session/17/.
LABELLED = re.compile(
    BEGINNING + r"(?P<label>trace|span|session|conversation|thread|message)s?[_.-]?(?:id)?"
    r"[\"'\\]{0,4}\s{0,2}[:=/# ]\s{0,2}[\"'\\]{0,4}(?=(?P<value>[\w.:@~+-]{1,255}))",
    re.IGNORECASE,
)
WORD = re.compile(r"[^\s<>\"'(),;:=&?/\\|\[\]{}]+")
EMAIL = re.compile(r"[^@]{1,64}@[^@.]{1,63}(?:\.[^@.]{1,63}){0,9}")
# Partly pasted, a UUID may end anywhere.
PARTIAL = re.compile(r"(?:0x)?(?:trace_|span_)?(?P<digits>[0-9a-f-]{8,35})", re.IGNORECASE)
PUNCTUATION = ".:~+-"
# What no id holds of which people paste the beginning: such a text is a sentence, a link or an address.
NO_ID = frozenset(" \t\r\n/@\"'{}<>,;")


class Kind(StrEnum):
    """What a candidate is taken for: the value is what people read. The surest first: where there are more than
    can be looked up, the last are left out."""

    TRACE = "trace id"
    UUID = "trace or session id"
    SPAN = "span id"
    MESSAGE = "message"
    SESSION = "session"
    PASTED = "id exactly as pasted"
    EMAIL = "email address"
    PREFIX = "beginning of a trace or span id"


ORDER = list(Kind)
# By which `candidates_in` knows a kind again that digits alone do not tell.
LABELS = dict.fromkeys(Kind, "") | {
    Kind.TRACE: "trace:",
    Kind.SPAN: "span:",
    Kind.MESSAGE: "message:",
    Kind.SESSION: "session:",
}
# Looked up in both columns: a run of LangSmith is a UUID and may be a span; a trace of Jaeger may have 16 digits.
IDS = frozenset({Kind.TRACE, Kind.UUID, Kind.SPAN, Kind.PASTED})


class Candidate(NamedTuple):
    """Something that the text may name: as it stands there, and all that it may be stored as."""

    kind: Kind
    text: str
    spellings: tuple[str, ...]

    @property
    def is_id(self) -> bool:
        """Whether it was recognised by its shape or its label; what was pasted as a whole may be words."""
        if self.kind == Kind.PREFIX:
            return PARTIAL.fullmatch(self.text) is not None
        return self.kind != Kind.PASTED


Named = tuple[Kind, str]


def candidates_in(pasted: str) -> list[Candidate]:
    """What `pasted` may name, the surest first, each once: at most 20."""
    text = storable(pasted[:MOST_READ])
    named: dict[Named, None] = {}
    for written in (text, *decodings(text)):
        named |= dict.fromkeys((*found_in(written), *whole(written.strip())))
    chosen: list[Candidate] = []
    covered: dict[Kind | None, set[str]] = {}
    for kind, said in sorted(named, key=lambda name: ORDER.index(name[0])):
        spellings = spellings_of(kind, said)
        known = covered.setdefault(None if kind in IDS else kind, set())
        if not known.issuperset(spellings):
            known.update(spellings)
            chosen.append(Candidate(kind, said, spellings))
        if len(chosen) == MOST_CANDIDATES:
            break
    return chosen


def query_of(candidates: Sequence[Candidate]) -> str:
    """A short text that names the same ids and holds no other words; empty where there is none."""
    ids = {named for named in candidates if named.is_id}
    spelled = [named.text for named in candidates if named in ids]
    labelled = [f"{LABELS[named.kind]}{named.text}" for named in candidates if named in ids]
    for query in (*spelled, " ".join(labelled)):
        if ids <= set(candidates_in(query)) and len(quote_plus(query)) <= LONGEST_QUERY:
            return query
    return ""


def storable(text: str) -> str:
    """`text` without what no database keeps, so that no look-up fails of it."""
    return UNSTORABLE.sub(" ", text)


def decodings(text: str) -> Iterator[str]:
    """What `text` is where it is percent-encoded, once or twice."""
    for _ in range(MOST_DECODINGS):
        decoded = storable(unquote(text))
        if decoded == text:
            return
        text = decoded
        yield text


def found_in(text: str) -> Iterator[Named]:
    """All that any text may name."""
    for match in HEX.finditer(text):
        yield from hex_kinds(match)
    for match in LABELLED.finditer(text):
        yield from labelled(match["label"].lower(), match["value"].rstrip(PUNCTUATION))
    for word in WORD.finditer(text):
        address = word[0].strip(PUNCTUATION)
        if "@" in address and EMAIL.fullmatch(address):
            yield Kind.EMAIL, address


def hex_kinds(match: re.Match[str]) -> Iterator[Named]:
    """What hex digits are, by how many there are."""
    digits = match["digits"].replace("-", "")
    is_short = len(digits) < TRACE_DIGITS
    # A number or a word of the language alone is no id: too many would be.
    is_word = digits.isdecimal() or digits.isalpha()
    if kind := exact_kind(match, len(digits), is_word):
        yield kind, match[0]
    if is_short and not is_word:
        yield Kind.PREFIX, match[0]


def exact_kind(match: re.Match[str], count: int, is_word: bool) -> Kind | None:
    if count == TRACE_DIGITS:
        return Kind.TRACE if match["prefix"] else Kind.UUID
    if count in (SPAN_DIGITS, OPENAI_SPAN_DIGITS):
        return Kind.SPAN
    if is_word:
        return None
    if TRACE_DIGITS - MOST_ZEROS_LOST <= count < TRACE_DIGITS:
        return Kind.TRACE
    return Kind.SPAN if SPAN_DIGITS - MOST_ZEROS_LOST <= count < SPAN_DIGITS else None


def labelled(label: str, value: str) -> Iterator[Named]:
    """What stands behind a word such as `trace_id`: an id of any shape, or a number."""
    if label in ("trace", "span"):
        if any(map(str.isdigit, value)) and not HEX.fullmatch(value):
            yield (Kind.TRACE if label == "trace" else Kind.SPAN), value
    elif row_id_of(value):
        yield (Kind.MESSAGE if label == "message" else Kind.SESSION), value


def whole(text: str) -> Iterator[Named]:
    """What the text as a whole may be: an id of any shape, its beginning, a number."""
    if not 0 < len(text) <= LONGEST_ID:
        return
    if "://" not in text:
        yield Kind.PASTED, text
    number = text.removeprefix("#")
    if row_id_of(number):
        yield Kind.MESSAGE, number
        yield Kind.SESSION, number
    beginning = text.rstrip(".\N{HORIZONTAL ELLIPSIS}")
    if len(beginning) >= SHORTEST_PREFIX and NO_ID.isdisjoint(beginning) and not full_length(beginning):
        yield Kind.PREFIX, beginning


def full_length(text: str) -> bool:
    match = HEX.fullmatch(text)
    return match is not None and len(match["digits"]) >= TRACE_DIGITS


def spellings_of(kind: Kind, said: str) -> tuple[str, ...]:
    """All that `said` may be stored as, each once, as it was pasted first."""
    match = (PARTIAL if kind == Kind.PREFIX else HEX).fullmatch(said)
    if kind == Kind.EMAIL:
        return (said.lower(),)
    if not match or kind not in (Kind.TRACE, Kind.UUID, Kind.SPAN, Kind.PREFIX):
        return (said,)
    digits = match["digits"].replace("-", "").lower()
    if kind == Kind.PREFIX:
        spelled = [*in_any_case(digits), *in_any_case(dashed(digits)), f"trace_{digits}", f"span_{digits}"]
    elif kind == Kind.SPAN:
        spelled = span_spellings(digits)
    else:
        spelled = trace_spellings(digits)
    return tuple(dict.fromkeys([said, *spelled]))


def trace_spellings(digits: str) -> list[str]:
    full = digits.zfill(TRACE_DIGITS)
    spelled = [*in_any_case(full), *in_any_case(dashed(full)), f"trace_{full}"]
    if full.startswith("0" * SPAN_DIGITS):  # Half as long, as Jaeger and Zipkin make them.
        spelled += in_any_case(full[SPAN_DIGITS:])
    return spelled + in_any_case(digits)


def span_spellings(digits: str) -> list[str]:
    if len(digits) > SPAN_DIGITS:
        return [f"span_{digits}", *in_any_case(digits)]
    full = digits.zfill(SPAN_DIGITS)
    return [*in_any_case(full), full.zfill(TRACE_DIGITS), *in_any_case(digits)]


def in_any_case(text: str) -> list[str]:
    return [text, text.upper()]


def dashed(digits: str) -> str:
    """As a UUID is written (RFC 9562), or the beginning of one."""
    groups = (digits[0:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(group for group in groups if group)
