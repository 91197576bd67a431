"""Time: a monotonic clock, a virtual one, periodic work on either, and absolute-deadline pacing.

On the monotonic clock periodic work has a thread each. On the virtual clock it runs inside `sleep_until`, in
order of time and then of registration, so that a whole robot is deterministic and as fast as the machine.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_PREFERRED_NICENESS = -10


class Periodic(Protocol):
    """Work that a clock repeats."""

    def cancel(self) -> None:
        """Stop repeating; returns when no call is running (unless called from inside one). Idempotent."""

    @property
    def error(self) -> BaseException | None:
        """What the work raised; it is not repeated after that."""


class Clock(Protocol):
    """Where all time comes from."""

    @property
    def virtual(self) -> bool:
        """True when time only moves in `sleep_until`."""

    def now(self) -> float:
        """Seconds; never goes back."""
        ...

    def sleep_until(self, deadline_s: float) -> None:
        """Return when `now()` has reached the deadline; at once if it has."""

    def every(self, period_s: float, work: Callable[[], None], *, name: str, phase_s: float = 0.0) -> Periodic:
        """Call `work` each `period_s`, first after `phase_s`."""
        ...


class MonotonicClock:
    """The machine's monotonic clock. Periodic work runs on daemon threads with absolute deadlines."""

    virtual = False

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, deadline_s: float) -> None:
        while (remaining := deadline_s - time.monotonic()) > 0:
            time.sleep(remaining)

    def every(self, period_s: float, work: Callable[[], None], *, name: str, phase_s: float = 0.0) -> Periodic:
        return _PeriodicThread(self, period_s, work, name, phase_s)


class _PeriodicThread:
    def __init__(self, clock: MonotonicClock, period_s: float, work: Callable[[], None], name: str, phase_s: float):
        self._clock = clock
        self._start_s = clock.now() + phase_s
        self._rate = Rate(clock, period_s, start_s=self._start_s)
        self._work = work
        self._cancelled = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def error(self) -> BaseException | None:
        return self._error

    def cancel(self) -> None:
        self._cancelled.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        # A thread that has to wait for the processor while it holds the interpreter makes the others wait with it.
        with preferred():
            self._repeat()

    def _repeat(self) -> None:
        self._clock.sleep_until(self._start_s)
        while not self._cancelled.is_set():
            try:
                self._work()
            except BaseException as error:  # noqa: BLE001 - kept, and read by whoever owns the work
                self._error = error
                return
            self._rate.wait()


@dataclass
class _VirtualPeriodic:
    work: Callable[[], None]
    period_s: float
    name: str
    start_s: float
    cancelled: bool = False
    error: BaseException | None = None

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    """Time that moves only when somebody sleeps. One thread only.

    Work that raises is not repeated, and the error is kept, as on the monotonic clock.
    """

    virtual = True

    def __init__(self, start_s: float = 0.0):
        self._now_s = start_s
        self._order = itertools.count()
        self._due: list[tuple[float, int, int, _VirtualPeriodic]] = []
        self._running = False

    def now(self) -> float:
        return self._now_s

    def every(self, period_s: float, work: Callable[[], None], *, name: str, phase_s: float = 0.0) -> Periodic:
        if period_s <= 0:
            raise ValueError(f"periodic work {name!r} needs a period above 0 s, got {period_s}")
        task = _VirtualPeriodic(work, period_s, name, self._now_s + phase_s)
        heapq.heappush(self._due, (task.start_s, next(self._order), 0, task))
        return task

    def sleep_until(self, deadline_s: float) -> None:
        if self._running:
            raise RuntimeError("periodic work may not sleep on the virtual clock")
        # Half a nanosecond of grace, so that sums of periods meet the deadlines they are meant to meet.
        while self._due and self._due[0][0] <= deadline_s + 5e-10:
            due_s, order, count, task = heapq.heappop(self._due)
            if task.cancelled:
                continue
            self._now_s = max(self._now_s, due_s)
            self._running = True
            try:
                task.work()
            except BaseException as error:
                task.error = error
                if not isinstance(error, Exception):
                    raise
                continue
            finally:
                self._running = False
            # From the start, not from the last time: rounding must not add up to a different order.
            heapq.heappush(self._due, (task.start_s + (count + 1) * task.period_s, order, count + 1, task))
        self._now_s = max(self._now_s, deadline_s)


@contextmanager
def preferred() -> Iterator[None]:
    """While the block runs, the kernel prefers this thread to others that want the processor.

    Only where this user may ask for that (root, CAP_SYS_NICE or a `nice` limit); elsewhere nothing changes. Niceness
    is a thread's own on Linux: what this thread starts meanwhile inherits it, other threads do not.
    """
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    try:
        os.setpriority(os.PRIO_PROCESS, thread, min(before, _PREFERRED_NICENESS))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, thread, before)


@dataclass(frozen=True, slots=True)
class Timing:
    """What a `Rate` measured.

    Lateness: how long after its deadline a tick began. Drift: the lateness of the last one. The mean period counts the
    ticks that happened, so a skipped one makes it longer.
    """

    ticks: int
    period_ms_mean: float
    lateness_ms_p50: float
    lateness_ms_p99: float
    lateness_ms_max: float
    late_ticks: int
    drift_ms: float


@dataclass
class Rate:
    """Absolute-deadline pacing: a late tick does not move the later ones, and lateness is counted.

    A tick that is a whole period late or more skips the deadlines it missed (no burst to catch up); the deadlines
    stay on the same grid. Lateness is kept in a ring of the last `kept` ticks, so memory is bounded.

    Attributes:
        start_s: the first deadline; now, if None.
        late_s: a tick counts as late when it begins more than this after its deadline.
    """

    clock: Clock
    period_s: float
    start_s: float | None = None
    late_s: float = 0.005
    kept: int = 65_536
    ticks: int = field(init=False, default=0)
    late_ticks: int = field(init=False, default=0)
    skipped: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.period_s <= 0:
            raise ValueError(f"a rate needs a period above 0 s, got {self.period_s}")
        self._origin_s = self.clock.now() if self.start_s is None else self.start_s
        self._lateness_s: NDArray[np.float64] = np.zeros(self.kept)
        self._last_s = self._origin_s
        self._index = self._last_index = 0

    def wait(self) -> float:
        """Sleep until the next deadline; returns the lateness in seconds."""
        self._index += 1
        deadline_s = self._origin_s + self._index * self.period_s
        self.clock.sleep_until(deadline_s)
        now_s = self.clock.now()
        lateness_s = now_s - deadline_s
        self._last_s, self._last_index = now_s, self._index
        self._lateness_s[self.ticks % self.kept] = lateness_s
        self.ticks += 1
        self.late_ticks += lateness_s > self.late_s
        missed = int(lateness_s / self.period_s)
        self.skipped += missed
        self._index += missed
        return lateness_s

    def timing(self) -> Timing:
        """Period, lateness and drift so far, from the first deadline on; zeros before the first `wait`."""
        late_ms = self._lateness_s[: min(self.ticks, self.kept)] * 1e3
        if self.ticks == 0:
            return Timing(self.ticks, 0.0, 0.0, 0.0, 0.0, self.late_ticks, 0.0)
        spanned_s = self._last_s - self._origin_s
        return Timing(
            ticks=self.ticks,
            period_ms_mean=spanned_s / self.ticks * 1e3,
            lateness_ms_p50=float(np.percentile(late_ms, 50)),
            lateness_ms_p99=float(np.percentile(late_ms, 99)),
            lateness_ms_max=float(late_ms.max()),
            late_ticks=self.late_ticks,
            drift_ms=(spanned_s - self._last_index * self.period_s) * 1e3,
        )
