"""Clocks, periodic work, pacing."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.clock import MonotonicClock, Rate, VirtualClock


def test_virtual_work_runs_in_order_of_time_then_registration():
    clock, log = VirtualClock(10.0), []
    for name, period_s, phase_s in (("a", 0.02, 0.0), ("b", 0.01, 0.0), ("c", 0.01, 0.005)):
        clock.every(period_s, lambda name=name: log.append((name, round(clock.now(), 3))), name=name, phase_s=phase_s)
    clock.sleep_until(10.02)
    assert log == [
        ("a", 10.0), ("b", 10.0), ("c", 10.005), ("b", 10.01), ("c", 10.015), ("a", 10.02), ("b", 10.02),
    ]  # fmt: skip
    assert clock.now() == 10.02


def test_virtual_time_never_goes_back():
    clock = VirtualClock(5.0)
    clock.sleep_until(1.0)
    assert clock.now() == 5.0
    clock.every(1.0, lambda: None, name="past", phase_s=-3.0)
    clock.sleep_until(5.5)
    assert clock.now() == 5.5


@given(period_ms=st.integers(1, 50), seconds=st.integers(1, 5))
def test_virtual_work_is_called_the_exact_number_of_times(period_ms, seconds):
    clock, calls = VirtualClock(), []
    clock.every(period_ms / 1e3, lambda: calls.append(clock.now()), name="count")
    for k in range(seconds * 25):
        clock.sleep_until((k + 1) * 0.04)
    assert len(calls) == seconds * 1000 // period_ms + 1
    assert calls == sorted(calls)


def test_virtual_work_stays_on_its_grid_for_hours():
    clock, calls = VirtualClock(), []
    clock.every(0.1, lambda: calls.append(clock.now()), name="grid")
    clock.sleep_until(20_000)
    assert len(calls) == 200_001
    assert abs(calls[-1] - 20_000) < 1e-9


def test_virtual_work_registered_and_cancelled_by_work():
    clock, log = VirtualClock(), []
    child = []

    def parent() -> None:
        log.append("parent")
        if not child:
            child.append(clock.every(0.01, lambda: log.append("child"), name="child"))
        else:
            child[0].cancel()

    clock.every(0.02, parent, name="parent")
    clock.sleep_until(0.05)
    assert log == ["parent", "child", "child", "parent", "parent"]


def test_virtual_work_that_raises_is_not_repeated_and_the_error_is_kept():
    clock, log = VirtualClock(), []
    bad = clock.every(0.01, lambda: 1 / 0, name="bad")
    good = clock.every(0.01, lambda: log.append(1), name="good")
    clock.sleep_until(0.1)
    assert isinstance(bad.error, ZeroDivisionError)
    assert good.error is None
    assert len(log) == 11


def test_virtual_work_interrupted_by_the_keyboard_says_so():
    clock = VirtualClock()

    def interrupted() -> None:
        raise KeyboardInterrupt

    task = clock.every(0.01, interrupted, name="interrupted")
    with pytest.raises(KeyboardInterrupt):
        clock.sleep_until(1.0)
    assert isinstance(task.error, KeyboardInterrupt)
    clock.sleep_until(1.0)
    assert clock.now() == 1.0


def test_virtual_work_may_not_sleep():
    clock = VirtualClock()
    task = clock.every(0.01, lambda: clock.sleep_until(9), name="sleeper")
    clock.sleep_until(0.02)
    assert isinstance(task.error, RuntimeError)
    assert clock.now() == 0.02


@pytest.mark.parametrize("clock", [VirtualClock(), MonotonicClock()])
def test_a_period_must_be_above_zero(clock):
    with pytest.raises(ValueError, match="above 0 s"):
        clock.every(0.0, lambda: None, name="never")
    with pytest.raises(ValueError, match="above 0 s"):
        Rate(clock, -1.0)


def test_rate_keeps_absolute_deadlines():
    clock = VirtualClock(100.0)
    rate = Rate(clock, 0.04)
    woke = []
    for work_s in (0.0, 0.01, 0.03, 0.039, 0.0):
        clock.sleep_until(clock.now() + work_s)
        assert rate.wait() == 0.0
        woke.append(clock.now())
    assert woke == pytest.approx([100.04, 100.08, 100.12, 100.16, 100.20])
    timing = rate.timing()
    assert (timing.ticks, timing.late_ticks, rate.skipped) == (5, 0, 0)
    assert timing.period_ms_mean == pytest.approx(40)
    assert timing.drift_ms == pytest.approx(0, abs=1e-6)


def test_a_late_tick_is_counted_and_does_not_move_the_later_ones():
    clock = VirtualClock()
    rate = Rate(clock, 0.04)
    rate.wait()
    clock.sleep_until(0.09)
    assert rate.wait() == pytest.approx(0.01)
    rate.wait()
    assert clock.now() == pytest.approx(0.12)
    assert (rate.late_ticks, rate.skipped) == (1, 0)
    assert rate.timing().lateness_ms_max == pytest.approx(10)


def test_missed_deadlines_are_skipped_without_a_burst():
    clock = VirtualClock()
    rate = Rate(clock, 0.04)
    clock.sleep_until(0.17)
    assert rate.wait() == pytest.approx(0.13)
    rate.wait()
    assert clock.now() == pytest.approx(0.20)
    assert rate.skipped == 3
    assert rate.timing().period_ms_mean == pytest.approx(200 / 2)


def test_rate_memory_is_bounded():
    rate = Rate(VirtualClock(), 0.01, kept=8)
    for _ in range(100):
        rate.wait()
    assert rate.timing().ticks == 100
    assert len(rate._lateness_s) == 8
    assert Rate(VirtualClock(), 0.01).timing().ticks == 0


def test_monotonic_work_runs_on_its_thread_until_cancelled():
    clock, enough, names = MonotonicClock(), threading.Event(), []

    def work() -> None:
        names.append(threading.current_thread().name)
        if len(names) == 5:
            enough.set()

    task = clock.every(0.001, work, name="fast work")
    assert enough.wait(10)
    task.cancel()
    task.cancel()
    seen = len(names)
    clock.sleep_until(clock.now() + 0.01)
    assert len(names) == seen
    assert set(names) == {"fast work"}
    assert task.error is None


def test_monotonic_work_may_cancel_itself_and_errors_are_kept():
    clock, ready, calls = MonotonicClock(), threading.Event(), []

    def once() -> None:
        ready.wait(10)
        calls.append(1)
        itself.cancel()

    itself = clock.every(0.001, once, name="once")
    ready.set()
    bad = clock.every(0.001, lambda: 1 / 0, name="bad")
    itself._thread.join(10)
    bad._thread.join(10)
    bad.cancel()
    assert calls == [1]
    assert isinstance(bad.error, ZeroDivisionError)
