"""Replay a recorded episode by its own timestamps, through the motion gate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from py_trees.common import Status

from hal.types import ActionKind, Array, Command
from skills.actions import resources_of
from skills.behaviours.leaf import Leaf
from skills.behaviours.load import RecordingSlot
from skills.context import SkillContext
from skills.outcome import Outcome


@dataclass(frozen=True, slots=True)
class JointTracking:
    """Mean and largest distance of a joint from where it was recorded, in its unit."""

    name: str
    mean: float
    largest: float


class ReplayLoop(Leaf):
    """Sends the recorded actions at the times they were recorded.

    Between steps the action is interpolated. Base and joint velocities are scaled as time is, by `speed` and by another
    `frequency_hz`, so that arm and base cover the demonstrated distances. How well the robot followed is in
    `tracking_error_rad` and `tracking`.

    Attributes:
        tracking_error_rad: mean absolute distance so far between measured and recorded joints, grippers excepted.
        tracking: the same for each joint, grippers too, with the largest distance.
    """

    def __init__(
        self,
        ctx: SkillContext,
        slot: RecordingSlot,
        *,
        speed: float = 1.0,
        frequency_hz: float | None = None,
        name: str = "ReplayLoop",
    ):
        super().__init__(name, ctx)
        self._slot, self._speed, self._frequency_hz = slot, speed, frequency_hz
        self.tracking_error_rad = 0.0
        self.tracking: tuple[JointTracking, ...] = ()

    def begin(self) -> None:
        recording = self._slot.recording
        assert recording is not None  # LoadEpisode came before
        self._recording = recording
        times_s = recording.times_s
        if self._frequency_hz is not None:
            times_s = np.arange(len(recording.action)) / self._frequency_hz
        self._times_s = times_s / self._speed
        span_s = self._times_s[-1]
        self._faster = float(recording.times_s[-1] / span_s) if span_s > 0 else self._speed
        self._velocities = recording.spec.indices(ActionKind.BASE_VELOCITY, ActionKind.JOINT_VELOCITY)
        robot = self.ctx.spec
        self._order = recording.order_of(robot.joint_names)
        self._judged = np.array([not joint.gripper for joint in robot.joints])
        self._errors, self._worst, self._ticks = np.zeros(len(robot.joints)), np.zeros(len(robot.joints)), 0
        self._began_s = self.ctx.clock.now()
        self._replay_lease = self.take(resources_of(recording.spec))

    def advance(self) -> Status:
        if (fault := self.gate_fault()) is not None:
            return self.fail(Outcome.FAULT, fault)
        now_s = self.ctx.clock.now()
        elapsed_s = now_s - self._began_s
        action = _sample(self._times_s, self._recording.action, elapsed_s)
        action[self._velocities] *= self._faster
        self.ctx.submit(self._replay_lease, Command(self._recording.spec, action, now_s))
        self._track(elapsed_s)
        if elapsed_s >= self._times_s[-1]:
            self.feedback_message = f"{self._times_s[-1]:.1f} s, tracking error {self.tracking_error_rad:.3f} rad"
            return Status.SUCCESS
        self.feedback_message = f"of {self._times_s[-1]:.1f} s"
        return Status.RUNNING

    def _track(self, elapsed_s: float) -> None:
        recorded = _sample(self._times_s, self._recording.qpos, elapsed_s)[self._order]
        error = np.abs(self.ctx.observation.qpos - recorded)  # (J,)
        self._errors += error
        self._worst = np.maximum(self._worst, error)
        self._ticks += 1
        mean = self._errors / self._ticks
        self.tracking_error_rad = float(mean[self._judged].mean()) if self._judged.any() else 0.0

    def end(self) -> None:
        if not getattr(self, "_ticks", 0):
            return
        mean = self._errors / self._ticks
        self.tracking = tuple(
            JointTracking(joint.name, float(mean[index]), float(self._worst[index]))
            for index, joint in enumerate(self.ctx.spec.joints)
        )


def _sample(times_s: Array, rows: Array, t_s: float) -> Array:
    """(A,) row of (T, A) `rows` at `t_s`, linearly interpolated, held before the first and after the last."""
    after = int(np.clip(np.searchsorted(times_s, t_s, side="right"), 1, max(len(times_s) - 1, 1)))
    if len(times_s) == 1:
        return np.array(rows[0])
    begin_s, end_s = times_s[after - 1], times_s[after]
    share = float(np.clip((t_s - begin_s) / max(end_s - begin_s, 1e-9), 0.0, 1.0))
    return np.asarray(rows[after - 1] * (1 - share) + rows[after] * share)
