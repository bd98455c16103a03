"""The progress bar of the commands that take a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def bar(label: str, total: int, verbosity: int = 1) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while the block runs; yields what is to be told of each step.

    Nothing is drawn where standard error is no terminal, or with `--verbosity 0`.
    """
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    disable = verbosity == 0 or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        yield partial(progress.advance, progress.add_task(label, total=total))
