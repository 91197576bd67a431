"""Progress of what takes longer than a second: a bar in a terminal, a line now and then elsewhere. On stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from btruntime.cli.output import say
from btruntime.view.plain import plain


class Progress(Protocol):
    """One job of known length."""

    def advance(self, note: str = "", steps: float = 1) -> None:
        """So many steps more are done; `note` says what is being done."""

    def reach(self, done: float, note: str = "") -> None:
        """So many steps are done in all."""


@contextmanager
def progress_bar(title: str, total: float) -> Iterator[Progress]:
    """Show the progress of one job while the block runs."""
    if not sys.stderr.isatty():
        lines = _Lines(title, total)
        yield lines
        lines.end()
        return
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.markup import escape

    columns = (
        rich_progress.TextColumn("{task.description:<14}", markup=False),
        rich_progress.BarColumn(bar_width=30),
        rich_progress.TaskProgressColumn() if total == 1 else rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}", markup=False),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as shown:
        yield _Bar(shown, shown.add_task(escape(title), total=total, note=""))


class _Bar:
    def __init__(self, shown: object, task: object):
        from rich.progress import Progress as RichProgress
        from rich.progress import TaskID

        assert isinstance(shown, RichProgress)
        self._shown, self._task, self._done = shown, TaskID(int(str(task))), 0.0

    def advance(self, note: str = "", steps: float = 1) -> None:
        self.reach(self._done + steps, note)

    def reach(self, done: float, note: str = "") -> None:
        self._done = done
        self._shown.update(self._task, completed=done, note=plain(note))


class _Lines:
    """At most one line in five seconds, and one at the end."""

    _EVERY_S = 5.0

    def __init__(self, title: str, total: float):
        self._title, self._total, self._done, self._note = title, total, 0.0, ""
        self._said_s = self._began_s = time.monotonic()

    def advance(self, note: str = "", steps: float = 1) -> None:
        self.reach(self._done + steps, note)

    def reach(self, done: float, note: str = "") -> None:
        self._done, self._note = done, note
        if time.monotonic() - self._said_s >= self._EVERY_S:
            self._say()

    def end(self) -> None:
        """The last line."""
        self._say()

    def _say(self) -> None:
        self._said_s = time.monotonic()
        note = f"  {self._note}" if self._note else ""
        elapsed_s = self._said_s - self._began_s
        # A total of 1 is a job that is measured as a share.
        done = f"{self._done:.0%}" if self._total == 1 else f"{self._done:g} of {self._total:g}"
        say(f"   {self._title}: {done}, {elapsed_s:.0f} s{note}", file=sys.stderr)
