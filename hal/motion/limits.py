"""The static filter: what an action means on this robot, cut to the limits. Pure; keeps no state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from hal.motion.config import GateConfig
from hal.motion.lease import Resource
from hal.types import ActionDim, ActionKind, ActionSpec, Array, RobotSpec, SpecError

Indices = NDArray[np.intp]

_UNITS = {
    ActionKind.JOINT_POSITION: ("rad", "m"),
    ActionKind.GRIPPER: ("rad", "m", "1"),
    ActionKind.JOINT_VELOCITY: ("rad/s", "m/s"),
}
_BASE_AXES = {"linear": (0, "m/s"), "angular": (1, "rad/s")}
_IGNORED = (ActionKind.PROGRESS, ActionKind.TERMINATION)


@dataclass(frozen=True, slots=True)
class Violation:
    """One limit that a command passed.

    Attributes:
        reason: "position", "speed" or "base".
        text: which dimension, what was asked, what is allowed.
        serious: far enough beyond to become a fault when it lasts.
    """

    reason: str
    text: str
    serious: bool


@dataclass(frozen=True, slots=True, eq=False)
class ActionBinding:
    """An `ActionSpec` resolved on one robot: which number goes where, and its limits. One entry per moving dimension.

    Attributes:
        dims: the positions in the action.
        places: where among its like is what a dimension moves: the joint, the gripper that is not one, or the axis of
            the base (0 linear, 1 angular).
        is_position, is_velocity: it commands a joint, so.
        is_gripper: it commands the fraction of a gripper that is not a joint.
        is_base: it commands the base.
        scale, offset: value on the robot = offset + scale * action (a joint that is a gripper, in fractions).
        low, high: limits of the value on the robot.
        reasons: the name of the violation when it is beyond them.
    """

    spec: ActionSpec
    joint_count: int
    gripper_count: int
    dims: Indices
    places: Indices
    is_position: NDArray[np.bool_]
    is_velocity: NDArray[np.bool_]
    is_gripper: NDArray[np.bool_]
    is_base: NDArray[np.bool_]
    scale: Array
    offset: Array
    low: Array
    high: Array
    reasons: tuple[str, ...]

    def values(self, action: Array) -> Array:
        """(M,) what the moving dimensions of (A,) `action` ask of the robot, in its units."""
        with np.errstate(over="ignore"):  # infinity is beyond the limits, too
            asked: Array = self.offset + self.scale * action[self.dims]
        return asked

    def action(self, values: Array, asked: Array) -> Array:
        """(A,) the action that asks for (M,) `values`; what does not move is as in `asked`."""
        action = asked.copy()
        action[self.dims] = (values - self.offset) / self.scale
        return action

    def held_values(self, qpos: Array | None, grippers: Array) -> Array:
        """(M,) values that ask for what holding gives: the setpoint and no velocity.

        Args:
            qpos: (J,) the setpoint; None, which gives NaN, when there is none.
            grippers: (G,) the last fractions; NaN before the first.
        """
        held = np.zeros(len(self.dims))
        held[self.is_position] = np.nan if qpos is None else qpos[self.places[self.is_position]]
        held[self.is_gripper] = grippers[self.places[self.is_gripper]]
        return held

    def arm_targets(self, values: Array) -> tuple[Array, Array, Array]:
        """(J,) positions, (J,) speeds and (G,) fractions that (M,) `values` ask for.

        What is not named has position NaN, speed 0 and fraction NaN.
        """
        target, speed = np.full(self.joint_count, np.nan), np.zeros(self.joint_count)
        fractions = np.full(self.gripper_count, np.nan)
        target[self.places[self.is_position]] = values[self.is_position]
        speed[self.places[self.is_velocity]] = values[self.is_velocity]
        fractions[self.places[self.is_gripper]] = values[self.is_gripper]
        return target, speed, fractions

    def base_target(self, values: Array) -> Array:
        """(2,) linear and angular velocity that (M,) `values` ask for; 0 where they name none."""
        velocity = np.zeros(2)
        velocity[self.places[self.is_base]] = values[self.is_base]
        return velocity

    def may_move(self, resources: frozenset[Resource]) -> NDArray[np.bool_]:
        """(M,) whether each moving dimension belongs to one of these."""
        allowed: NDArray[np.bool_] = np.where(self.is_base, Resource.BASE in resources, Resource.ARM in resources)
        return allowed

    def clip(self, values: Array, config: GateConfig) -> tuple[Array, list[Violation]]:
        """(M,) values within the limits, and what was beyond them."""
        clipped = np.clip(values, self.low, self.high)
        with np.errstate(over="ignore"):
            excess = np.abs(values - clipped) / (self.high - self.low)
        serious = excess > np.where(self.is_gripper, config.persist_excess_gripper, config.persist_excess)
        beyond = np.flatnonzero(excess > config.rounding)
        return clipped, [self._beyond(int(i), float(values[i]), serious[i]) for i in beyond]

    def too_fast(
        self, values: Array, previous: Array, elapsed_s: float, speeds: Array, slack: float
    ) -> list[Violation]:
        """Position dimensions that would need more than their speed limit to get here from `previous`.

        Args:
            values: (M,) the targets, clipped.
            previous: (J,) the last targets; NaN where there is none.
            elapsed_s: since the last command.
            speeds: (J,) speed limits.
            slack: fraction by which a limit may be passed.
        """
        chosen = np.flatnonzero(self.is_position)
        joints = self.places[chosen]
        needed = np.abs(values[chosen] - previous[joints]) / elapsed_s
        fast = np.flatnonzero(needed > speeds[joints] * (1 + slack))
        return [self._too_fast(int(chosen[i]), float(needed[i]), float(speeds[joints[i]])) for i in fast]

    def _beyond(self, i: int, value: float, serious: bool) -> Violation:
        text = f"{self._name(i)} was asked {value:.3g}, limits {self.low[i]:.3g} to {self.high[i]:.3g}"
        return Violation(self.reasons[i], text, bool(serious))

    def _too_fast(self, i: int, needed: float, limit: float) -> Violation:
        return Violation("speed", f"{self._name(i)} would have to move at {needed:.3g} per s, limit {limit:.3g}", True)

    def _name(self, i: int) -> str:
        return self.spec.dims[int(self.dims[i])].name


class _Part(Enum):
    """What a dimension moves."""

    JOINT = auto()
    GRIPPER = auto()
    BASE = auto()


@dataclass(frozen=True, slots=True)
class _Moving:
    """One moving dimension, resolved."""

    dim: int
    place: int
    part: _Part
    low: float
    high: float
    reason: str
    by_speed: bool = False
    scale: float = 1.0
    offset: float = 0.0


def bind_action(spec: ActionSpec, robot: RobotSpec) -> ActionBinding:
    """Resolve an action spec on a robot.

    Raises:
        SpecError: a dimension names a joint, a gripper or a base that the robot lacks, has the wrong unit, or moves
            what another dimension moves.
    """
    moving = [_resolve(i, dim, robot) for i, dim in enumerate(spec.dims) if dim.kind not in _IGNORED]
    _refuse_twice(moving, spec)
    return ActionBinding(
        spec=spec,
        joint_count=len(robot.joints),
        gripper_count=len(robot.grippers),
        dims=np.array([m.dim for m in moving], dtype=np.intp),
        places=np.array([m.place for m in moving], dtype=np.intp),
        is_position=np.array([m.part is _Part.JOINT and not m.by_speed for m in moving], dtype=bool),
        is_velocity=np.array([m.part is _Part.JOINT and m.by_speed for m in moving], dtype=bool),
        is_gripper=np.array([m.part is _Part.GRIPPER for m in moving], dtype=bool),
        is_base=np.array([m.part is _Part.BASE for m in moving], dtype=bool),
        scale=np.array([m.scale for m in moving]),
        offset=np.array([m.offset for m in moving]),
        low=np.array([m.low for m in moving]),
        high=np.array([m.high for m in moving]),
        reasons=tuple(m.reason for m in moving),
    )


def _resolve(index: int, dim: ActionDim, robot: RobotSpec) -> _Moving:
    if dim.kind is ActionKind.BASE_VELOCITY:
        return _resolve_base(index, dim, robot)
    if dim.kind is ActionKind.GRIPPER and dim.target in robot.gripper_names:
        return _resolve_gripper(index, dim, robot.gripper_names.index(dim.target))
    if dim.target not in robot.joint_names:
        grippers = robot.gripper_names if dim.kind is ActionKind.GRIPPER else ()
        what, has = ("joint or gripper" if grippers else "joint"), ", ".join([*robot.joint_names, *grippers])
        raise SpecError(f"action {dim.name} moves {what} {dim.target!r}; robot {robot.name} has {has}.")
    if dim.unit not in _UNITS[dim.kind]:
        raise SpecError(f"action {dim.name} is a {dim.kind} in {dim.unit!r}, expected {' or '.join(_UNITS[dim.kind])}.")
    number = robot.joint_names.index(dim.target)
    joint = robot.joints[number]
    if dim.kind is ActionKind.JOINT_VELOCITY:
        return _Moving(index, number, _Part.JOINT, -joint.max_speed, joint.max_speed, "speed", by_speed=True)
    if dim.unit == "1":
        span = joint.high - joint.low
        return _Moving(index, number, _Part.JOINT, joint.low, joint.high, "position", scale=span, offset=joint.low)
    return _Moving(index, number, _Part.JOINT, joint.low, joint.high, "position")


def _resolve_gripper(index: int, dim: ActionDim, number: int) -> _Moving:
    if dim.unit != "1":
        raise SpecError(
            f"action {dim.name} is a gripper in {dim.unit!r}, expected '1': {dim.target} is not a joint, and commanded "
            "as a fraction."
        )
    return _Moving(index, number, _Part.GRIPPER, 0.0, 1.0, "position")


def _resolve_base(index: int, dim: ActionDim, robot: RobotSpec) -> _Moving:
    if robot.base is None:
        raise SpecError(f"action {dim.name} moves a base, and robot {robot.name} has none.")
    if dim.target not in _BASE_AXES:
        raise SpecError(f"action {dim.name} moves {dim.target!r} of the base, expected linear or angular.")
    axis, unit = _BASE_AXES[dim.target]
    if dim.unit != unit:
        raise SpecError(f"action {dim.name} is a {dim.target} base velocity in {dim.unit!r}, expected {unit}.")
    limit = (robot.base.max_linear_mps, robot.base.max_angular_radps)[axis]
    return _Moving(index, axis, _Part.BASE, -limit, limit, "base")


def _refuse_twice(moving: list[_Moving], spec: ActionSpec) -> None:
    first: dict[tuple[_Part, int], int] = {}
    for m in moving:
        other = first.setdefault((m.part, m.place), m.dim)
        if other != m.dim:
            names = f"{spec.dims[other].name} and {spec.dims[m.dim].name}"
            raise SpecError(f"actions {names} both move {spec.dims[m.dim].target!r}; keep one of them.")


class ActionBindings:
    """The bindings of the specs in use, found by identity: comparing specs would cost more than the rest of a tick."""

    def __init__(self, robot: RobotSpec, kept: int = 16):
        self._robot, self._kept = robot, kept
        self._known: dict[int, ActionBinding] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, spec: ActionSpec) -> ActionBinding:
        """The binding of a spec.

        Raises:
            SpecError: it does not fit the robot.
        """
        known = self._known.get(id(spec))
        if known is not None:  # it keeps its spec alive, so that no other spec gets the same identity
            return known
        binding = bind_action(spec, self._robot)
        # Replaced as a whole: any thread may ask.
        recent = list(self._known.items())[-(self._kept - 1) :]
        self._known = dict([*recent, (id(spec), binding)])
        return binding
