"""As many users, sessions and messages as asked for, shaped like real ones, the same for the same seed.

Sizes are log-normal: most contents are short and a few long, most sessions have few messages and a few many.
Random numbers come from `random()` and what is defined on it, which Python keeps the same across versions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from conversations.seeding import people
from conversations.seeding.loading import Added, Advance, load
from conversations.seeding.plans import PlannedMessage, PlannedPerson, PlannedSession

ISSUER = "volume"
START = datetime(2025, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=180)
SHORTEST_RUN, LONGEST_RUN = 3, 6
LONGEST_CONTENT = 12_000

# Median characters and spread (sigma of the logarithm); median seconds before it is said.
SIZES = {"user": (70, 0.9), "assistant": (380, 0.8)}
PAUSES = {"user": 45.0, "tool_call": 1.5, "assistant": 6.0}
TOOLS = ("search_database", "search_web", "read_file", "send_email", "run_query", "create_ticket")
AGENTS = ("support", "analyst", "writer", "researcher", None)
CHANNELS = ("web", "mobile", "slack", "email")
VOCABULARY = (
    "the a of to and in is that for it with as on was are this order customer report please check again how many "
    "when where which invoice payment refund delivery address account balance week month quarter number between "
    "before after during shipped received cancelled open closed late early price discount contract renewal team "
    "question answer because however therefore found nothing everything results tables columns average total "
    "increase decrease percent compared plan meeting draft summary details next step error retry connection "
    "timeout résumé naïve 東京 привет 👍"
)

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Volume:
    """How much to make. The same volume is found again; another one is other rows for the same people."""

    seed: int
    users: int
    sessions: int
    messages: int

    @property
    def name(self) -> str:
        return f"{self.seed}:{self.users}:{self.sessions}:{self.messages}"


def plant(volume: Volume, advance: Advance) -> Added:
    """Load what is missing of it; memory does not grow with the volume."""
    added = Added(users=people.ensure(planned_people(volume)))
    added += load(planned_sessions(volume), advance)
    return added


def planned_people(volume: Volume) -> Iterator[PlannedPerson]:
    for index in range(volume.users):
        name = subject_of(volume, index)
        yield PlannedPerson(ISSUER, name, START, name=f"User {index + 1}", email=f"{name}@example.com")


def subject_of(volume: Volume, index: int) -> str:
    return f"user-{volume.seed}-{index + 1}"


def planned_sessions(volume: Volume) -> Iterator[PlannedSession]:
    """In the order of their times. A few people own most of them."""
    words = Words(volume.seed)
    for index, size in enumerate(shares(volume.messages, volume.sessions, volume.seed)):
        dice = random.Random(f"{volume.name}:{index}")  # noqa: S311
        start = START + SPAN * ((index + dice.random()) / volume.sessions)
        yield PlannedSession(
            ISSUER, subject_of(volume, int(volume.users * dice.random() ** 2)), f"volume:{volume.name}:{index}",
            start, size, planned_messages(dice, words, start, size),
            title=words.some(dice, 40).capitalize(), agent=one_of(AGENTS, dice),
            metadata={"channel": one_of(CHANNELS, dice)},
        )  # fmt: skip


def shares(total: int, parts: int, seed: int) -> Iterator[int]:
    """`total` in `parts` shares of log-normal size, none of them empty while there is one for each.

    The sum is made in a first pass and the shares in a second, so that none has to be kept.
    """
    each = 1 if total >= parts else 0
    spread = total - each * parts
    whole = sum(weights(parts, seed))
    reached, given = 0.0, 0
    for index, weight in enumerate(weights(parts, seed), 1):
        reached += weight
        until = spread if index == parts else min(spread, int(spread * (reached / whole)))
        yield each + until - given
        given = until


def weights(parts: int, seed: int) -> Iterator[float]:
    dice = random.Random(f"shares:{seed}")  # noqa: S311
    return (dice.lognormvariate(0, 1) for _ in range(parts))


def planned_messages(dice: random.Random, words: Words, start: datetime, size: int) -> Iterator[PlannedMessage]:
    """Runs of 3 to 6 messages (question, tool calls, answer) that share a trace; one or two have none."""
    now = start
    while size > 0:
        length = run_length(dice, size)
        size -= length
        trace_id = f"{dice.getrandbits(128):032x}" if length >= SHORTEST_RUN else None
        for role in roles_of(length):
            now += timedelta(seconds=PAUSES[role] * dice.lognormvariate(0, 0.7))
            yield tool_call(dice, now, trace_id) if role == "tool_call" else text(dice, words, role, now, trace_id)


def run_length(dice: random.Random, left: int) -> int:
    """How many messages the next run has; none of one or two is left over where that can be."""
    if left < SHORTEST_RUN:
        return left
    lengths = range(SHORTEST_RUN, LONGEST_RUN + 1)
    return one_of([length for length in lengths if left == length or left - length >= SHORTEST_RUN], dice)


def roles_of(length: int) -> list[str]:
    if length == 1:
        return ["user"]
    return ["user", *["tool_call"] * (length - 2), "assistant"]


def tool_call(dice: random.Random, at: datetime, trace_id: str | None) -> PlannedMessage:
    tool, span_id = one_of(TOOLS, dice), f"{dice.getrandbits(64):016x}"
    return PlannedMessage("tool_call", f"Called {tool}", at, 0, tool, trace_id, span_id)


def text(dice: random.Random, words: Words, role: str, at: datetime, trace_id: str | None) -> PlannedMessage:
    median, spread = SIZES[role]
    size = min(LONGEST_CONTENT, 1 + int(median * dice.lognormvariate(0, spread)))
    content = words.some(dice, size)
    return PlannedMessage(role, content, at, 1 + len(content) // 4, trace_id=trace_id)


def one_of(choices: Sequence[Choice], dice: random.Random) -> Choice:
    return choices[int(dice.random() * len(choices))]


class Words:
    """A long text, of which every content is a piece: no time goes into making sentences."""

    def __init__(self, seed: int) -> None:
        dice, words = random.Random(f"words:{seed}"), VOCABULARY.split()  # noqa: S311
        self.text = " ".join(one_of(words, dice) for _ in range(20_000))

    def some(self, dice: random.Random, size: int) -> str:
        """About `size` characters from the beginning of a word on, at least one."""
        start = self.text.index(" ", int(dice.random() * (len(self.text) - LONGEST_CONTENT - 50))) + 1
        return self.text[start : start + size].rstrip()
