from __future__ import annotations

import numpy as np
import pytest
from stop import RolledOnError, StoodAlreadyError, Stopped, figures, moving, stopped

TIMES_S = np.arange(10) * 0.01
STILL = np.zeros((10, 3))


def bases(*speeds: float) -> np.ndarray:
    return np.column_stack([np.zeros(len(speeds)), speeds])


def test_the_latency_is_until_the_first_zero_after_the_stop() -> None:
    found = stopped(0.044, TIMES_S, bases(0, 0.1, 0.2, 0.2, 0.2, 0.2, 0, 0, 0, 0), STILL)
    assert (found.latency_s, found.arm_still_s) == (pytest.approx(0.016), 0.0)


def test_the_arm_is_still_after_its_last_step() -> None:
    arms = STILL.copy()
    arms[:, 1] = np.minimum(np.arange(10), 8)
    found = stopped(0.044, TIMES_S, bases(1, 1, 1, 1, 1, 0, 0, 0, 0, 0), arms)
    assert (found.latency_s, found.arm_still_s) == (pytest.approx(0.006), pytest.approx(0.036))


@pytest.mark.parametrize("speeds", [(1, 1, 1, 1, 1, 0, 0, 1, 0, 0), (1, 1, 1, 1, 1, 1, 1, 1, 1, 1)])
def test_a_base_that_rolls_on_is_told(speeds: tuple[float, ...]) -> None:
    with pytest.raises(RolledOnError):
        stopped(0.044, TIMES_S, bases(*speeds), STILL)


def test_a_base_that_stood_already_is_no_measurement() -> None:
    with pytest.raises(StoodAlreadyError):
        stopped(0.044, TIMES_S, bases(1, 1, 1, 1, 0, 0, 0, 0, 0, 0), STILL)


def test_a_stop_is_repeated_until_there_was_something_to_stop() -> None:
    found = [StoodAlreadyError(), StoodAlreadyError(), Stopped(0.004, 0.1)]

    def stop() -> Stopped:
        next_one = found.pop(0)
        if isinstance(next_one, Exception):
            raise next_one
        return next_one

    assert moving(stop) == Stopped(0.004, 0.1)
    found = [StoodAlreadyError()] * 20
    with pytest.raises(SystemExit, match="stood already"):
        moving(stop)


def test_the_figures_of_a_state() -> None:
    found = figures([Stopped(0.004, 0.1), Stopped(0.008, 0.05), Stopped(0.005, 0.0)])
    assert found == {
        "n": 3,
        "latency_ms_p50": pytest.approx(5.0),
        "latency_ms_max": pytest.approx(8.0),
        "arm_still_ms_p50": pytest.approx(50.0),
        "arm_still_ms_max": pytest.approx(100.0),
    }
