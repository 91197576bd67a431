"""How fast a dataset was really recorded: one number for all its episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from btruntime.dataset.source import DatasetError
from hal.types import Array

_TOLERANCE = 0.02
# An interval that long is a pause of the recorder, and says nothing about its rate.
_PAUSE = 3.0


def checked_times(times_s: Array, where: str) -> Array:
    """(T,) the times, finite and increasing.

    Raises:
        DatasetError: they are not.
    """
    if not np.isfinite(times_s).all():
        step = int(np.flatnonzero(~np.isfinite(times_s))[0])
        raise DatasetError(f"{where}: the time of step {step} is {times_s[step]}, expected seconds. Leave it out.")
    if (late := np.flatnonzero(np.diff(times_s) <= 0)).size:
        step = int(late[0]) + 1
        raise DatasetError(
            f"{where}: step {step} is at {times_s[step]:.6f} s and the one before at {times_s[step - 1]:.6f} s, "
            f"expected times that increase. Leave the episode out."
        )
    return times_s


def measured_frequency_hz(intervals_s: Sequence[Array]) -> float | None:
    """Steps per second over the intervals of all episodes; None where there are none.

    The mean and not the median, pauses left out: where a sensor is sampled by a slower or faster clock, the
    intervals take two values, and the median is one of them.
    """
    every = np.concatenate([np.empty(0), *intervals_s])
    if not every.size:
        return None
    usual = every[every <= _PAUSE * np.median(every)]
    return float(1 / usual.mean())


def chosen_frequency_hz(declared_hz: float | None, intervals_s: Sequence[Array]) -> tuple[float | None, str | None]:
    """The frequency to give to all episodes, and a note where that is not the declared one.

    Args:
        declared_hz: what the dataset says; None where it says nothing.
        intervals_s: (T-1,) per episode, measured; none of an episode whose times are not measured.
    """
    measured = measured_frequency_hz(intervals_s)
    if measured is None:
        return declared_hz, None
    rounded = max(round(measured, 1), 0.1)
    if declared_hz is None:
        return rounded, f"The dataset states no frequency; its times show {rounded} Hz."
    if abs(measured - declared_hz) <= _TOLERANCE * declared_hz:
        return declared_hz, None
    return rounded, f"The dataset states {declared_hz:g} Hz, its times show {rounded} Hz, which was taken."


def rates(positions: Array, times_s: Array) -> Array:
    """(T, J) velocities of (T, J) positions: central differences over the times; 0 for a single step."""
    if len(times_s) < 2:
        return np.zeros_like(positions)
    found: Array = np.gradient(positions, times_s, axis=0)
    return found
