"""The progress bar of the commands that take a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class RateColumn(TextColumn):
    """Steps in a second; nothing before there is something to tell."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class Advance:
    """Told of steps that are done, a number at a time."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def __call__(self, steps: int) -> None:
        self.progress.advance(self.task, steps)

    def expect(self, total: int) -> None:
        """How many steps there are, where that was not known at first."""
        self.progress.update(self.task, total=total)


@contextmanager
def bar(label: str, total: int | None, verbosity: int = 1) -> Iterator[Advance]:
    """A bar on standard error while the block runs; yields what is to be told of each step.

    Nothing is drawn where standard error is no terminal, or with `--verbosity 0`.
    """
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    disable = verbosity == 0 or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        yield Advance(progress, progress.add_task(label, total=total))
