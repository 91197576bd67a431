"""What a policy commands beside what the person did, while a recording is played back to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from btruntime.events import NodeStatus, TickRecord
from hal.types import Array
from skills.playback import EpisodePlayback

# Leaves that act on what they see, or repeat a recording: what comes before them only prepares.
_ACTING = ("PolicyLoop", "ReplayLoop")
_STD_FLOOR = 1e-2


@dataclass(frozen=True, slots=True)
class ComparedDim:
    """One action dimension: mean absolute difference, in `unit`, and the deviation of what the person commanded."""

    name: str
    unit: str
    error: float
    std: float


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """What was commanded beside what was demonstrated.

    Attributes:
        l1: mean over ticks and dimensions of the difference divided by `ComparedDim.std`.
        mean_action_l1: the same for commanding the episode's mean action all the time.
        ticks: in which something was commanded while the recording ran.
        dims: those that were both demonstrated and commanded.
    """

    l1: float
    mean_action_l1: float
    ticks: int
    dims: tuple[ComparedDim, ...]


@dataclass(slots=True)
class Comparison:
    """Watches a run on a playback robot: lets the recording begin when the policy does, and ends the run with it.

    Args:
        robot: what plays the recording.
    """

    robot: EpisodePlayback
    _dims: tuple[int, ...] = ()  # those that are compared
    _asked: list[Array] = field(default_factory=list)
    _done: list[Array] = field(default_factory=list)

    def watch(self, record: TickRecord) -> None:
        """Called after each tick; never blocks."""
        # What a move before or after them asks for was not demonstrated.
        if not any(n.class_name in _ACTING and n.status is NodeStatus.RUNNING for n in record.tree.nodes):
            return
        if self.robot.began_s is None:
            self.robot.begin()
            return
        if record.asked is None:
            return
        names = self.robot.demonstration.spec.names
        self._dims = self._dims or tuple(index for index, name in enumerate(names) if name in record.asked)
        if not self._dims or not all(names[index] in record.asked for index in self._dims):
            return
        self._asked.append(np.array([record.asked[names[index]] for index in self._dims]))
        self._done.append(self.robot.demonstration.at(record.time_s - self.robot.began_s)[list(self._dims)])

    def until(self) -> str | None:
        """Why the run is over, as a sentence; None while the recording runs."""
        if not self.robot.finished:
            return None
        return f"{self.robot.path.name} was played to its end, {self.robot.demonstration.times_s[-1]:.1f} s."

    def report(self) -> ComparisonReport | None:
        """The differences so far; None where nothing was commanded."""
        if not self._asked:
            return None
        demonstrated = self.robot.demonstration.action[:, list(self._dims)]
        std = np.maximum(demonstrated.std(axis=0), _STD_FLOOR)
        asked, done = np.array(self._asked), np.array(self._done)
        error = np.abs(asked - done)
        still = np.abs(demonstrated.mean(axis=0) - done)
        compared = [self.robot.demonstration.spec.dims[index] for index in self._dims]
        dims = tuple(
            ComparedDim(dim.name, dim.unit, float(error[:, column].mean()), float(std[column]))
            for column, dim in enumerate(compared)
        )
        return ComparisonReport(float((error / std).mean()), float((still / std).mean()), len(asked), dims)


def as_json(report: ComparisonReport) -> Mapping[str, object]:
    """The report as plain data."""
    return {
        "l1": report.l1,
        "mean_action_l1": report.mean_action_l1,
        "ticks": report.ticks,
        "by_dim": {dim.name: {"error": dim.error, "std": dim.std, "unit": dim.unit} for dim in report.dims},
    }
