"""The running tree in a terminal: drawn a few times a second, or one line per change where nothing can be redrawn."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

from btruntime.events import NodeStatus, TickRecord
from btruntime.view.plain import plain
from btruntime.view.rows import ASCII, UNICODE, Row, Signs, rows
from btruntime.view.unicode import parts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_STATUS_STYLES = {
    NodeStatus.SUCCESS: "green",
    NodeStatus.FAILURE: "red",
    NodeStatus.RUNNING: "cyan",
    NodeStatus.INVALID: "dim",
}
_LATE_S = 0.005  # as hal.clock.Rate counts
_KEPT = 1024
_WAITING_CHANGES = 1000
_LAST_DRAW_S = 2.0
_STATUS_LINES = 3  # what a status line may wrap to


class LiveTree:
    """Shows a run while it goes on. Use it as a context manager around the run.

    `show` may be called by the thread that ticks: it leaves the record and returns, it takes no lock and writes
    nothing. A thread of its own draws the newest record, so a slow terminal costs pictures and never a tick.
    """

    def __init__(
        self,
        *,
        counts: Callable[[], Mapping[str, int]] | None = None,
        console: Console | None = None,
        rate_hz: float = 5.0,
    ):
        """Prepare; nothing is written yet.

        Args:
            counts: asked, by the drawing thread, for what the motion gate has counted so far.
            console: where to draw; standard output if None.
            rate_hz: pictures per second, 5 at most.
        """
        if console is None:
            from rich.console import Console

            console = Console(highlight=False)
        self._console = console
        self._counts = counts
        self._period_s = 1 / min(rate_hz, 5.0)
        self._redraws = console.is_terminal and not console.is_dumb_terminal and not os.environ.get("NO_COLOR")
        self._signs = UNICODE if console.encoding.lower().startswith("utf") else ASCII
        self._pace = _Pace()
        self._latest: TickRecord | None = None
        self._changes: SimpleQueue[TickRecord] = SimpleQueue()
        self._missed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-tree", daemon=True)
        self.problem: str | None = None

    def __enter__(self) -> LiveTree:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A terminal that was stopped (ctrl-s) or lost must not hold up the end of a run.
        self._stop.set()
        self._thread.join(_LAST_DRAW_S)

    def show(self, record: TickRecord) -> None:
        """Take a record to be shown; a newer one replaces it. Never waits. One thread only."""
        self._pace.add(record)
        self._latest = record
        if self._redraws or not record.tree.changed:
            return
        if self._changes.qsize() < _WAITING_CHANGES:
            self._changes.put(record)
        else:
            self._missed += 1

    def _run(self) -> None:
        try:
            if self._redraws:
                self._redraw()
            else:
                self._print_changes()
        except (OSError, ValueError) as error:
            # The terminal is gone or its file closed; the run goes on, and whoever asks is told.
            self.problem = f"the live tree stopped: {error}"

    def _redraw(self) -> None:
        from rich.live import Live

        with Live(console=self._console, auto_refresh=False, vertical_overflow="crop") as live:
            stopped = False
            while not stopped:
                stopped = self._stop.wait(self._period_s)
                if self._latest is not None:
                    live.update(self._picture(self._latest), refresh=True)

    def _picture(self, record: TickRecord) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        lines = window(list(rows(record.tree, ascii=self._signs is ASCII)), self._console.height - _STATUS_LINES)
        return Group(*(_styled(row, self._signs) for row in lines), Text(self._status_line(record), style="dim"))

    def _status_line(self, record: TickRecord) -> str:
        counts = self._counts() if self._counts is not None else {}
        return plain("   ".join(_status(record, self._pace, counts)), ascii=self._signs is ASCII)

    def _print_changes(self) -> None:
        known: dict[str, NodeStatus] = {}
        stopped = False
        while not stopped:
            stopped = self._stop.wait(self._period_s)
            for record in self._waiting():
                for row in self._news(record, known):
                    self._console.out(row, highlight=False)
        if self._missed:
            self._console.out(f"({self._missed} changes came faster than they could be printed)", highlight=False)

    def _waiting(self) -> Iterator[TickRecord]:
        while True:
            try:
                yield self._changes.get_nowait()
            except Empty:
                return

    def _news(self, record: TickRecord, known: dict[str, NodeStatus]) -> Iterator[str]:
        """One line for each node whose status is not the one that was printed last."""
        elapsed_s = record.time_s - self._pace.first_s
        shown = rows(record.tree, ascii=self._signs is ASCII)
        for node, row in zip(record.tree.nodes, shown, strict=True):
            if known.get(node.id, NodeStatus.INVALID) is not node.status:
                known[node.id] = node.status
                said = self._signs.dash + row.feedback if row.feedback else ""
                yield f"{elapsed_s:8.2f} s  {row.sign} {row.name}{said}"


class _Pace:
    """Period and lateness of the ticks that were shown. Written by one thread, read by another."""

    def __init__(self) -> None:
        self.ticks = self.late = 0
        self.first_s = self.last_s = 0.0
        self._lateness_s: list[float] = []

    def add(self, record: TickRecord) -> None:
        """Count one tick."""
        if self.ticks == 0:
            self.first_s = record.time_s
        self.last_s = record.time_s
        self.late += record.lateness_s > _LATE_S
        if len(self._lateness_s) < _KEPT:
            self._lateness_s.append(record.lateness_s)
        else:
            self._lateness_s[self.ticks % _KEPT] = record.lateness_s
        self.ticks += 1

    @property
    def period_ms(self) -> float:
        """Mean of all ticks."""
        return (self.last_s - self.first_s) / max(self.ticks - 1, 1) * 1e3

    @property
    def lateness_p99_ms(self) -> float:
        """Of the last 1024 ticks."""
        ordered = sorted(self._lateness_s)
        return ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] * 1e3 if ordered else 0.0


def window(lines: list[Row], height: int) -> list[Row]:
    """As many lines as fit, around the lowest one that is running."""
    height = max(height, 1)
    running = [index for index, row in enumerate(lines) if row.status is NodeStatus.RUNNING]
    focus = running[-1] if running else 0
    start = min(max(focus - height // 2, 0), max(len(lines) - height, 0))
    return lines[start : start + height]


def _status(record: TickRecord, pace: _Pace, counts: Mapping[str, int]) -> Iterator[str]:
    yield f"{record.time_s - pace.first_s:.1f} s"
    yield f"period {pace.period_ms:.2f} ms"
    yield f"lateness p99 {pace.lateness_p99_ms:.2f} ms, {pace.late} late"
    yield from (f"{name} {count}" for name, count in counts.items() if count)
    yield from (f"{sensor} {_age(age_s)}" for sensor, age_s in record.ages.items())
    if record.holding is not None:
        yield f"holding: {record.holding}"


def _age(age_s: float) -> str:
    return f"{age_s * 1e3:.0f} ms" if math.isfinite(age_s) else "never"


def _styled(row: Row, signs: Signs) -> Text:
    from rich.text import Text

    styles = {
        "lead": "dim",
        "status": _STATUS_STYLES[row.status],
        "kind": "dim",
        "name": "bold cyan" if row.status is NodeStatus.RUNNING else "",
        "feedback": "dim",
    }
    line = Text(no_wrap=True, overflow="ellipsis" if signs is UNICODE else "crop")
    for text, part in parts(row, signs):
        line.append(text, styles[part])
    return line
