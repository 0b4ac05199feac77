# Progress: a bar on a terminal, a few lines elsewhere.
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .output import say


@contextmanager
def show_progress(title: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Show how many of `total` things are done. The block's value is a function that counts one more.

    Args:
        title: a word or two.
        total: how many things there are.
        quiet: leave standard output alone: show a bar on standard error, and only if that is a terminal.
    """
    output = sys.stderr if quiet else sys.stdout
    if output.isatty():
        # Not before: it takes a tenth of a second, in every command.
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
        )
        with progress.Progress(*columns, console=Console(file=output)) as bar:
            task = bar.add_task(title, total=total)
            yield lambda: bar.advance(task)
    elif quiet:
        yield lambda: None
    else:
        yield _Lines(title, total).advance


class _Lines:
    """A line at each quarter."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done = title, total, 0

    def advance(self) -> None:
        self._done += 1
        if self._done * 4 // self._total != (self._done - 1) * 4 // self._total:
            say(f"{self._title}: {self._done}/{self._total}")
