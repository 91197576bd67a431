from __future__ import annotations

import numpy as np
import pytest
from loop import PERIOD_S, runtime_loop, timing
from py_trees.behaviour import Behaviour
from py_trees.common import Status
from skill_bench import SpiedRobot, small_spec

from btruntime.runtime import PolicyPool, Runtime
from hal.clock import VirtualClock
from policies.runner import PolicyRunner


def no_policy(checkpoint: object) -> PolicyRunner:
    raise AssertionError("nobody needs a policy here")


def test_ticks_on_the_grid_have_no_lateness() -> None:
    found = timing(3.0 + np.arange(100) * PERIOD_S, range(100), PERIOD_S)
    assert (found["ticks"], found["skipped"]) == (100, 0)
    assert found["period_ms_mean"] == pytest.approx(40.0)
    for name in ("lateness_ms_p50", "lateness_ms_p99", "lateness_ms_max", "jitter_ms_p99", "drift_ms"):
        assert found[name] == pytest.approx(0.0, abs=1e-6)


def test_a_period_that_is_too_long_adds_up() -> None:
    found = timing(np.arange(101) * 0.0402, range(101), PERIOD_S)
    assert found["period_ms_mean"] == pytest.approx(40.2)
    assert found["drift_ms"] == found["lateness_ms_max"] == pytest.approx(20.0)
    assert found["lateness_ms_p50"] == pytest.approx(10.0)
    assert found["jitter_ms_p99"] == pytest.approx(0.0, abs=1e-6)


def test_one_late_tick_is_late_and_the_next_is_not() -> None:
    starts = np.arange(11) * PERIOD_S
    starts[5] += 0.004
    found = timing(starts, range(11), PERIOD_S)
    assert (found["lateness_ms_max"], found["drift_ms"]) == (pytest.approx(4.0), pytest.approx(0.0))
    assert found["lateness_ms_p50"] == pytest.approx(0.0)
    assert found["jitter_ms_p99"] == pytest.approx(4.0)


def test_a_point_of_the_grid_without_a_tick_was_skipped() -> None:
    points = [0, 1, 2, 4, 5]
    found = timing(np.array(points) * PERIOD_S, points, PERIOD_S)
    assert (found["ticks"], found["skipped"]) == (5, 1)
    assert found["lateness_ms_max"] == pytest.approx(0.0)
    assert found["period_ms_mean"] == pytest.approx(50.0)


def test_the_runtime_says_which_points_it_skipped() -> None:
    clock = VirtualClock()

    class Dawdles(Behaviour):
        """Once, for two periods and a bit."""

        ticks = 0

        def update(self) -> Status:
            self.ticks += 1
            if self.ticks == 4:
                clock.sleep_until(clock.now() + 2.25 * PERIOD_S)
            return Status.RUNNING

    with Runtime(SpiedRobot(small_spec(), clock), clock, PolicyPool(no_policy)) as runtime:
        ran = runtime_loop(runtime, Dawdles("dawdles"), 8)
    # Tick 4 was for point 3 and ended at 5.25: point 4 came 1.25 periods late, point 5 was passed by.
    assert ran.points == [0, 1, 2, 3, 4, 6, 7, 8]
    found = timing(ran.starts_s, ran.points, PERIOD_S)
    assert found["skipped"] == 1
    assert found["lateness_ms_max"] == pytest.approx(1.25 * 40)
    assert found["drift_ms"] == pytest.approx(0.0, abs=1e-6)


def test_a_run_that_ends_early_is_no_measurement() -> None:
    class Ends(Behaviour):
        def update(self) -> Status:
            return Status.SUCCESS

    clock = VirtualClock()
    runtime = Runtime(SpiedRobot(small_spec(), clock), clock, PolicyPool(no_policy))
    with runtime, pytest.raises(SystemExit, match="after 1 of 5 ticks"):
        runtime_loop(runtime, Ends("ends"), 5)
