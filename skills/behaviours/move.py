"""Move the arm to a pose along a straight line in joint space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from py_trees.common import Status

from foundation.errors import BtruntimeError
from hal.motion import Resource
from hal.profile import minimum_jerk
from hal.types import Array, Command, RobotSpec
from skills.behaviours.leaf import Leaf
from skills.context import SkillContext
from skills.outcome import Outcome

# A minimum-jerk move peaks at 15/8 of its mean speed and at 10/sqrt(3) of its mean acceleration (Flash and Hogan 1985).
_PEAK_SPEED, _PEAK_ACCELERATION = 15 / 8, 10 / np.sqrt(3)
_SHARE_OF_LIMITS = 0.8
_SETTLE_S = 1.5
DEFAULT_TOLERANCE_RAD = 0.05


def move_duration_s(spec: RobotSpec, start: Array, target: Array, wished_s: float) -> float:
    """The wished duration, or longer where joint speeds and accelerations need it."""
    distance = np.abs(target - start)
    by_speed = distance * _PEAK_SPEED / (spec.speed_limits * _SHARE_OF_LIMITS)
    by_acceleration = np.sqrt(distance * _PEAK_ACCELERATION / (spec.acceleration_limits * _SHARE_OF_LIMITS))
    return float(max(wished_s, by_speed.max(), by_acceleration.max()))


class UnreachablePoseError(BtruntimeError):
    """A pose is not one of this robot's."""


def reachable(spec: RobotSpec, pose: Array, tolerance_rad: float) -> Array:
    """(J,) the pose within the joints' limits.

    Raises:
        UnreachablePoseError: it has another number of joints, no number for one, or is more than the tolerance
            beyond a limit.
    """
    if pose.shape != (len(spec.joints),):
        raise UnreachablePoseError(f"the pose has shape {pose.shape}, robot {spec.name} has {len(spec.joints)} joints.")
    within = np.clip(pose, *spec.position_limits)
    beyond = np.abs(pose - within)
    if (beyond <= tolerance_rad).all():
        return within
    worst = spec.joints[int(np.argmax(beyond))]
    angle = pose[spec.joints.index(worst)]
    raise UnreachablePoseError(
        f"the pose has {worst.name} at {angle:g}, robot {spec.name} allows {worst.low:g} to {worst.high:g}."
    )


class MoveTo(Leaf):
    """A minimum-jerk move of all joints, then a wait until the arm has arrived.

    The gripper may be stopped by what it holds, so it is moved but not waited for. A pose that is beyond a limit by
    no more than the tolerance means the limit.

    Args:
        ctx: the running skill's context.
        pose: (J,) target, or a function that gives it when the move begins.
        duration_s: wished duration; the robot's limits may make it longer.
        tolerance_rad: how near each joint must come.
        name: of the node.
    """

    def __init__(
        self,
        ctx: SkillContext,
        pose: Array | Callable[[], Array],
        *,
        duration_s: float = 1.0,
        tolerance_rad: float | None = None,
        name: str = "MoveTo",
    ):
        super().__init__(name, ctx)
        self._pose, self._wished_s = pose, duration_s
        self._tolerance_rad = DEFAULT_TOLERANCE_RAD if tolerance_rad is None else tolerance_rad

    def begin(self) -> None:
        spec, gate = self.ctx.spec, self.ctx.gate
        pose = np.asarray(self._pose() if callable(self._pose) else self._pose, dtype=np.float64)
        self._target = reachable(spec, pose, self._tolerance_rad)
        setpoint = gate.setpoint
        self._from = self.ctx.observation.qpos.copy() if setpoint is None else setpoint.qpos.copy()
        self._action_spec = spec.action_spec(base=False, progress=False, grippers=False)
        self._began_s = self.ctx.clock.now()
        self._duration_s = move_duration_s(spec, self._from, self._target, self._wished_s)
        self._arm_lease = self.take([Resource.ARM])

    def advance(self) -> Status:
        if (fault := self.gate_fault()) is not None:
            return self.fail(Outcome.FAULT, fault)
        now_s = self.ctx.clock.now()
        elapsed_s = now_s - self._began_s
        share = minimum_jerk(elapsed_s / self._duration_s if elapsed_s < self._duration_s else 1.0)
        action = self._from + share * (self._target - self._from)
        self.ctx.submit(self._arm_lease, Command(self._action_spec, action, now_s))
        if elapsed_s < self._duration_s:
            self.feedback_message = f"{self._duration_s:.1f} s"
            return Status.RUNNING
        return self._settle(elapsed_s - self._duration_s)

    def _settle(self, waited_s: float) -> Status:
        error = np.abs(self.ctx.observation.qpos - self._target)
        error[[joint.gripper for joint in self.ctx.spec.joints]] = 0.0
        worst = int(np.argmax(error))
        if error[worst] <= self._tolerance_rad:
            self.feedback_message = f"there, {error[worst]:.3f} rad off"
            return Status.SUCCESS
        if waited_s > _SETTLE_S:
            return self.fail(
                Outcome.FAULT,
                f"{self.name}: {self.ctx.spec.joint_names[worst]} is still {error[worst]:.3f} rad from the pose "
                f"{waited_s:.1f} s after the move ended (tolerance {self._tolerance_rad:g}). Is something in the way?",
            )
        self.feedback_message = "settling"
        return Status.RUNNING
