"""What a person sees while something runs: one bar on a terminal, plain lines elsewhere.

In:  amounts done and words to show.   Out: stderr, so that stdout stays the result's.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

muted = False  # of several processes only the first one speaks


def say(message: str, stream: TextIO | None = None) -> None:
    """One line on stderr (or `stream`); never fails on a narrow console encoding or a closed pipe."""
    if muted:
        return
    stream = stream or sys.stderr
    try:
        print(message, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        print(message.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
    except (BrokenPipeError, ValueError):
        pass


@contextlib.contextmanager
def hushed(wanted: bool = True) -> Iterator[None]:
    """Inside, nothing is said, if that is wanted."""
    global muted
    was, muted = muted, muted or wanted
    try:
        yield
    finally:
        muted = was


class Bar:
    """`with Bar("fetching", total, unit) as bar: bar.advance(n, "loss 0.3")`.

    On a terminal: a rich progress bar with time left. Elsewhere: silent but for `line()`, so
    that a log file holds one line for each thing worth a line.
    """

    def __init__(self, title: str, total: float | None, unit: str = ""):
        self.title, self.total, self.unit = title, total, unit
        self.live = sys.stderr.isatty() and not muted

    def __enter__(self) -> Bar:
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            speed = [TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + self.unit)] if self.total else []
            self.progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                *speed,
                TextColumn("{task.fields[words]}", markup=False),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
                transient=True,
            )
            self.progress.start()
            self.task = self.progress.add_task(self.title, total=self.total, words="")
        return self

    def advance(self, amount: float, words: str = "") -> None:
        """`amount` more is done; `words` stand beside the bar."""
        if self.live:
            self.progress.update(self.task, advance=amount, words=words)

    def line(self, message: str) -> None:
        """A line that stays, above the bar."""
        if self.live:
            self.progress.console.print(message, highlight=False, markup=False)
        else:
            say(message)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.progress.stop()
