"""A leader that follows waypoints: for demonstrations in simulation, and for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hal.profile import minimum_jerk
from hal.teleop.leader import LeaderSample
from hal.types import Array, Observation


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Be at (J,) joint positions `duration_s` after the waypoint before."""

    qpos: Array
    duration_s: float

    def __post_init__(self) -> None:
        if not 0 < self.duration_s < float("inf"):
            raise ValueError(f"a waypoint takes {self.duration_s} s, expected more than 0.")


class WaypointLeader:
    """Moves along waypoints with minimum-jerk profiles, joint by joint, at rest in each.

    Args:
        plan: called at the start with the joint positions then; gives the waypoints.
        with_base: give a zero base velocity with each sample, as a person at a joystick at rest does.
    """

    def __init__(self, plan: Callable[[Array], Sequence[Waypoint]], *, with_base: bool):
        self._plan = plan
        self._with_base = with_base
        self._knots: list[Array] = []
        self._times_s = np.zeros(1)
        self._finished = False

    def start(self, observation: Observation, now_s: float) -> None:
        """Plan from where the robot is.

        Raises:
            ValueError: the plan has no waypoints.
        """
        waypoints = self._plan(observation.qpos)
        if not waypoints:
            raise ValueError("the plan of a waypoint leader is empty, expected at least one waypoint.")
        self._knots = [observation.qpos.copy(), *(w.qpos for w in waypoints)]
        self._times_s = now_s + np.concatenate([[0.0], np.cumsum([w.duration_s for w in waypoints])])
        self._finished = False

    def read(self, now_s: float) -> LeaderSample | None:
        """Where the leader is at `now_s`; None before `start`."""
        if not self._knots:
            return None
        self._finished = now_s >= self._times_s[-1]
        index = int(np.clip(np.searchsorted(self._times_s, now_s, side="right"), 1, len(self._knots) - 1))
        begin_s, end_s = self._times_s[index - 1], self._times_s[index]
        share = minimum_jerk(float(np.clip((now_s - begin_s) / (end_s - begin_s), 0.0, 1.0)))
        qpos = self._knots[index - 1] + share * (self._knots[index] - self._knots[index - 1])
        return LeaderSample(qpos, np.zeros(2) if self._with_base else None, now_s)

    @property
    def finished(self) -> bool:
        """True once the last waypoint's time has come."""
        return self._finished

    def close(self) -> None:
        """Nothing to let go of."""
