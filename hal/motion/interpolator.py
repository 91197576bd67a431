"""From targets at the rate of commands to setpoints at the rate of the robot, never beyond a limit."""

from __future__ import annotations

from typing import overload

import numpy as np

from hal.types import Array, RobotSpec, Setpoint

_ARRIVED = 1e-12


def reachable_speed(distance: Array, step: Array, dt_s: float) -> Array:
    """The highest speed for the coming period from which a joint still comes to rest within `distance`.

    Braking takes `step` off the speed each period, so that from speed v the joint covers
    dt * ((n + 1) v - step n (n + 1) / 2) with n = floor(v / step). This is the exact inverse of that: for
    small periods sqrt(2 a distance).

    Args:
        distance: (J,) at least 0.
        step: (J,) acceleration limit times the period.
        dt_s: the period.
    """
    n = np.floor((np.sqrt(1 + 8 * distance / (dt_s * step)) - 1) / 2)
    speed: Array = (distance / dt_s + step * n * (n + 1) / 2) / (n + 1)
    return speed


class Interpolator:
    """Where the setpoint is, how fast it moves, and where it goes.

    Always true after `start`: every joint can brake to rest within its position limits. The gate's lock guards it.

    Grippers that are not joints have a fraction, and no measured position to begin from: NaN until the first target,
    which is sent at once, as there is nothing to interpolate from; later ones at the gripper's rate. At rest a
    fraction stays what it is, so that nothing is dropped.
    """

    def __init__(self, spec: RobotSpec):
        count, base = len(spec.joints), spec.base
        self._dt_s = 1.0 / spec.control_rate_hz
        self._low, self._high = (limit.copy() for limit in spec.position_limits)
        self._max_speed = spec.speed_limits.copy()
        self._acceleration = spec.acceleration_limits.copy()
        self._step = self._acceleration * self._dt_s  # (J,) rad/s
        gain = (0.0, 0.0) if base is None else (base.max_linear_mps2, base.max_angular_radps2)
        self._base_step = np.array(gain) * self._dt_s  # (2,)
        self.qpos: Array | None = None  # (J,)
        self.base_velocity: Array | None = None if base is None else np.zeros(2)
        self._velocity = np.zeros(count)  # (J,)
        self._target = np.zeros(count)  # (J,) where not by speed
        self._speed = np.zeros(count)  # (J,) where by speed
        self._by_speed = np.ones(count, dtype=bool)  # (J,)
        self._base_target: Array | None = None  # (2,); None stands
        self._arrival_s = 0.0
        self._gripper_step = spec.gripper_rates * self._dt_s  # (G,)
        self._unknown = np.full(len(spec.grippers), np.nan)  # (G,)
        self.grippers = self._unknown.copy()  # (G,) fractions
        self._gripper_target = self._unknown.copy()  # (G,); NaN stays

    def start(self, qpos: Array) -> None:
        """Begin at rest at the measured positions (J,)."""
        self.qpos = qpos.copy()
        self._velocity[:] = 0

    def resume_at(self, setpoint: Setpoint | None) -> None:
        """The robot got no more than that, or nothing: go on from there at rest, or wait for `start`."""
        self.qpos = None if setpoint is None else setpoint.qpos.copy()
        sent = None if setpoint is None else setpoint.grippers
        self.grippers = (self._unknown if sent is None else sent).copy()
        self._velocity[:] = 0
        self.rest_arm()
        self.rest_base()
        if self.base_velocity is not None:
            self.base_velocity = np.zeros(2)

    @property
    def at_rest(self) -> bool:
        """Nothing moves, arm or base."""
        base = self.base_velocity
        return not self._velocity.any() and (base is None or not base.any())

    def rest_arm(self) -> None:
        """Forget the targets of joints and grippers; bring the joints to rest, leave the grippers as they are."""
        self._by_speed[:] = True
        self._speed[:] = 0
        self._gripper_target = self._unknown

    def rest_base(self) -> None:
        """Base velocity zero at the next step, unless `aim_base` comes first: then it changes without a jump."""
        self._base_target = None

    def aim_arm(self, target: Array, speed: Array, grippers: Array, arrival_s: float) -> None:
        """New targets for joints and grippers; within the limits.

        Args:
            target: (J,) positions; NaN for joints that are moved by speed, or not at all.
            speed: (J,) speeds for those; 0 brings a joint to rest.
            grippers: (G,) fractions; NaN for a gripper that stays as it is.
            arrival_s: when the positions should be reached.
        """
        self._by_speed = np.isnan(target)
        self._target = np.where(self._by_speed, 0.0, target)
        self._speed = speed.copy()
        self._gripper_target = grippers.copy()
        self._arrival_s = arrival_s

    def aim_base(self, velocity: Array) -> None:
        """New target for the base, (2,), within the limits."""
        self._base_target = velocity.copy()

    def advance(self, now_s: float, *, hold_arm: bool, hold_base: bool) -> None:
        """Move the setpoint by one control period. What is held brakes, and keeps its target for later."""
        assert self.qpos is not None, "advance before start"
        wanted = np.zeros_like(self._velocity) if hold_arm else self._wanted(self.qpos, now_s)
        self._move_arm(self.qpos, np.clip(wanted, self._velocity - self._step, self._velocity + self._step), hold_arm)
        if not hold_arm:
            self._move_grippers()
        if self.base_velocity is not None:
            self.base_velocity = self._next_base(self.base_velocity, hold_base)

    def setpoint(self, stamp_s: float) -> Setpoint:
        """Where it is, in read-only arrays of its own: robots and recorders may keep it."""
        assert self.qpos is not None, "setpoint before start"
        base, grippers = self.base_velocity, self.grippers if len(self.grippers) else None
        return Setpoint(_kept(self.qpos), _kept(base), stamp_s, _kept(grippers))

    def _next_base(self, velocity: Array, hold: bool) -> Array:
        """(2,) base velocity of this period: zero at once, anything else within the acceleration limits."""
        if hold or self._base_target is None:
            return np.zeros(2)
        slow: Array = np.clip(self._base_target, velocity - self._base_step, velocity + self._base_step)
        return slow

    def _move_arm(self, qpos: Array, velocity: Array, hold: bool) -> None:
        moved = qpos + velocity * self._dt_s
        if not hold:
            arrived = ~self._by_speed & (np.abs(moved - self._target) < _ARRIVED)
            moved = np.where(arrived, self._target, moved)
        # A robot may be found beyond its limits: it may come back, and not go further.
        self.qpos = np.clip(moved, np.minimum(self._low, qpos), np.maximum(self._high, qpos))
        self._velocity = (self.qpos - qpos) / self._dt_s

    def _move_grippers(self) -> None:
        begin = np.where(np.isnan(self.grippers), self._gripper_target, self.grippers)
        target = np.where(np.isnan(self._gripper_target), self.grippers, self._gripper_target)
        self.grippers = np.clip(target, begin - self._gripper_step, begin + self._gripper_step)

    def _wanted(self, qpos: Array, now_s: float) -> Array:
        """(J,) velocities that reach the targets in time, as far as limits let them."""
        towards = np.where(self._speed > 0, self._high, self._low)
        distance = np.where(self._by_speed, towards, self._target) - qpos
        # The second term leaves room to brake: without it a stream of moving targets would be chased at full
        # speed and braked for in every period, because each target but the last is passed at speed.
        remaining_s = max(self._arrival_s - now_s, 0.0) + self._dt_s + np.abs(self._velocity) / (2 * self._acceleration)
        in_time = np.where(self._by_speed, np.abs(self._speed), np.abs(distance) / remaining_s)
        speed = np.minimum(
            np.minimum(in_time, self._max_speed), reachable_speed(np.abs(distance), self._step, self._dt_s)
        )
        speed[self._by_speed & (self._speed * distance <= 0)] = 0
        wanted: Array = np.copysign(speed, distance)
        return wanted


@overload
def _kept(values: None) -> None: ...
@overload
def _kept(values: Array) -> Array: ...
def _kept(values: Array | None) -> Array | None:
    """A read-only copy."""
    if values is None:
        return None
    copy = values.copy()
    copy.setflags(write=False)
    return copy
