"""Shows progress on standard error: a bar on a terminal, elsewhere a line from time to time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class ProgressBar:
    """A progress bar between two texts.

    Args:
        total: amount of work, None if unknown.
        shown: False shows nothing.
        interval: seconds between two lines where standard error is not a terminal.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        total: float | None,
        *,
        shown: bool = True,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval, self.clock, self._last = interval, clock, clock()
        self.lines = shown and not sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.fields[before]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[after]}"),
            console=Console(stderr=True),
            disable=self.lines or not shown,
        )
        self._task = self._bar.add_task("", total=total, before="", after="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._bar.disable:  # rich before 14.3 writes an empty line then.
            self._bar.stop()

    def update(self, completed: float, before: str, after: str = "", *, now: bool = False) -> None:
        """Show the progress.

        Args:
            completed: how much of ``total`` is done.
            before: text on the left of the bar.
            after: text on the right of the bar.
            now: write a line even if the interval is not over.
        """
        self._bar.update(self._task, completed=completed, before=before, after=after)
        if self.lines and (now or self.clock() - self._last >= self.interval):
            self._last = self.clock()
            print("  ".join(text for text in (before, after) if text), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Write a line; on a terminal above the bar."""
        if self.lines:
            print(text, file=sys.stderr, flush=True)
        elif not self._bar.disable:
            self._bar.console.print(text, markup=False, highlight=False)
