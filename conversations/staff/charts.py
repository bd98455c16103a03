"""A chart of bars as geometry. Lengths are percentages of the plot, so that a page draws it at any width."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final, NamedTuple

MOST_STEPS: Final = 4
MOST_LABELS: Final = 5
WEEK: Final = 7
BAR: Final = 0.72  # Of its column.
LEAST_HEIGHT: Final = 0.7  # Of what is not nothing, so that it is seen beside a spike.
SIZES: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


class Entry(NamedTuple):
    """One column as numbers: what stands below it, what it says in full, and what is stacked in it."""

    label: str
    said: str
    values: Sequence[int]


class Bar(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    series: int  # From 1, the lowest of the stack.


class Column(NamedTuple):
    x: float
    width: float
    said: str
    bars: list[Bar]


class Tick(NamedTuple):
    y: float
    label: str


class Label(NamedTuple):
    x: float
    text: str


class Chart(NamedTuple):
    columns: list[Column]
    ticks: list[Tick]
    labels: list[Label]


def bar_chart(entries: Sequence[Entry]) -> Chart:
    step = step_to(max((sum(entry.values) for entry in entries), default=0))
    top = top_of(entries, step)
    width = 100 / max(1, len(entries))
    columns = [column(entry, index * width, width, top) for index, entry in enumerate(entries)]
    ticks = [Tick(percent(top - value, top), short(value)) for value in range(0, top + 1, step)]
    return Chart(columns, ticks, labels_of(entries, width))


def step_to(highest: int) -> int:
    """Of 1, 2, 5, 10, 20, 50 ... the first that reaches `highest` in few steps."""
    steps = (digit * 10**exponent for exponent in count() for digit in (1, 2, 5))
    return next(step for step in steps if step * MOST_STEPS >= highest)


def top_of(entries: Sequence[Entry], step: int) -> int:
    """The round number at the top of the axis."""
    highest = max((sum(entry.values) for entry in entries), default=0)
    return max(1, -(-highest // step)) * step


def column(entry: Entry, x: float, width: float, top: int) -> Column:
    bars: list[Bar] = []
    bottom = 100.0
    for series, value in enumerate(entry.values, start=1):
        if value:
            height = max(LEAST_HEIGHT, percent(value, top))
            bottom -= height
            left = x + width * (1 - BAR) / 2
            bars.append(Bar(round(left, 2), round(bottom, 2), round(width * BAR, 2), height, series))
    return Column(round(x, 2), round(width, 2), entry.said, bars)


def labels_of(entries: Sequence[Entry], width: float) -> list[Label]:
    """Below the last column and back from there: every second of a week, else whole weeks apart."""
    weeks = -(-len(entries) // (WEEK * MOST_LABELS))
    apart = 2 if len(entries) <= WEEK else WEEK * weeks
    shown = range(len(entries) - 1, -1, -apart)
    return [Label(round((index + 0.5) * width, 2), entries[index].label) for index in sorted(shown)]


def percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def short(number: int) -> str:
    """A round number as an axis says it: 500, 1.5k, 20M."""
    size, letter = next((size for size in SIZES if number >= size[0]), (1, ""))
    return f"{number / size:g}{letter}"
