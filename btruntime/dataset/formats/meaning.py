"""What the numbers of a foreign state and action mean, told from their names and from a person's mapping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from btruntime.dataset.formats.mapping import ActionMapping, SourceMapping
from btruntime.dataset.formats.names import valid_name, without_suffix
from btruntime.dataset.source import DatasetError
from foundation.described import first_problem
from hal.types import ActionDim, ActionKind, ActionSpec, Array

Columns = NDArray[np.intp]

# No joint of an arm turns further, no joint or base turns faster per second; what goes beyond is in another unit.
_FURTHEST_RAD = 2 * math.pi * 1.2
_FRACTION_SLACK = 1e-3
_POSITION = ("pos", "position")
_VELOCITY = ("vel", "velocity")
_UNUSED = ("effort", "torque", "current", "load", "temperature")
_LINEAR = {"x", "linear", "linear_x", "base", "base_x", "base_linear", "base_linear_x", "base_vel_x"}
_ANGULAR = {
    "theta",
    "angular",
    "angular_z",
    "base_theta",
    "base_yaw",
    "base_angular",
    "base_angular_z",
    "base_vel_theta",
}
_SIDEWAYS = {"y", "linear_y", "base_y", "base_linear_y", "base_vel_y"}
_POSE = {"x", "y", "z", "roll", "pitch", "yaw", "rx", "ry", "rz", "qx", "qy", "qz", "qw", "theta"}


@dataclass(frozen=True, slots=True)
class Range:
    """(N,) lowest and (N,) highest value of each number over all that could be read, in the dataset's units."""

    low: Array
    high: Array

    def scaled(self, column: int, scale: float) -> tuple[float, float]:
        """Lowest and highest value of a number times `scale`."""
        ends = sorted((float(self.low[column]) * scale, float(self.high[column]) * scale))
        return ends[0], ends[1]


@dataclass(frozen=True, slots=True)
class StateMeaning:
    """Which numbers of a state are what.

    Attributes:
        joints: names, in order.
        sources: what the dataset calls their positions.
        positions: (J,) columns; times `scale` (J,) they are in rad.
        velocities: (J,) columns, which times `scale` are in rad/s; None where the state has none.
        notes: what was left out.
    """

    joints: tuple[str, ...]
    sources: tuple[str, ...]
    positions: Columns
    scale: Array
    velocities: Columns | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ActionMeaning:
    """Which numbers of an action are what: (A,) columns, which times `scale` (A,) are in the units of `spec`."""

    spec: ActionSpec
    columns: Columns
    scale: Array
    notes: tuple[str, ...]


def state_meaning(
    names: Sequence[str] | None, size: int, values: Range | None, mapping: SourceMapping, where: str
) -> StateMeaning:
    """Joints from the names of a state.

    Args:
        names: of its numbers; None where the dataset has none.
        size: how many numbers there are.
        values: None where no episode could be read.
        mapping: what a person says; it wins.
        where: file and field, for errors.

    Raises:
        DatasetError: the names do not say which numbers are joints, or the values are not in rad.
    """
    called = _called(names, size)
    wanted = [index for index in range(size) if called[index] not in mapping.leave_out]
    notes = _left_out(where, [name for name in called if name in mapping.leave_out])
    velocities: list[int] | None = None
    if mapping.joints is not None:
        joints, positions = list(mapping.joints), wanted
        if len(joints) != len(wanted):
            raise DatasetError(
                f"{where} has {len(wanted)} numbers ({', '.join(called[index] for index in wanted)}), the mapping "
                f"names {len(joints)} joints. Name each in order, or put those that are no joints into leave_out."
            )
    elif names is None:
        raise DatasetError(
            f"{where}: its {size} numbers have no names. Name them in order in a mapping file (--map): "
            f'{{"joints": [...]}}.'
        )
    else:
        joints, positions, velocities, unused = _told_apart(called, wanted, where)
        notes += _left_out(where, unused)
    if not joints or "" in joints or len(set(joints)) != len(joints):
        raise DatasetError(
            f"{where}: the names {', '.join(called)} do not give joints with different names. "
            f'Name them in order in a mapping file (--map): {{"joints": [...]}}.'
        )
    scale = _state_scale(mapping, len(joints), where)
    _refuse_degrees([called[index] for index in positions], positions, scale, values, where)
    return StateMeaning(
        joints=tuple(joints),
        sources=tuple(called[index] for index in positions),
        positions=np.array(positions, dtype=np.intp),
        scale=scale,
        velocities=None if velocities is None else np.array(velocities, dtype=np.intp),
        notes=tuple(notes),
    )


def action_meaning(
    names: Sequence[str] | None,
    size: int,
    values: Range | None,
    state: StateMeaning,
    mapping: SourceMapping,
    where: str,
) -> ActionMeaning:
    """Dimensions of an action from its names. Arguments as in `state_meaning`.

    Raises:
        DatasetError: what some numbers mean cannot be told; the error lists them.
    """
    called = _called(names, size)
    if unknown := sorted({*mapping.action} - {*called}):
        raise DatasetError(
            f"the mapping says what {', '.join(unknown)} of the action means, but {where} has {', '.join(called)}."
        )
    notes = _left_out(where, [name for name in called if name in mapping.leave_out])
    dims: list[ActionDim] = []
    columns: list[int] = []
    scales: list[float] = []
    doubts: list[str] = []
    still: list[str] = []
    for index, name in enumerate(called):
        if name in mapping.leave_out:
            continue
        if said := mapping.action.get(name):
            dims.append(_mapped(said, name, state))
            columns.append(index)
            scales.append(said.scale)
            continue
        ends = None if values is None else values.scaled(index, 1.0)
        if names is not None and _velocity_base(name) in _SIDEWAYS and ends == (0.0, 0.0):
            still.append(name)
            continue
        found = "has no name" if names is None else _dimension(name, state, ends)
        if isinstance(found, str):
            doubts.append(f"{name} {found}")
        else:
            dims.append(found)
            columns.append(index)
            scales.append(_scale_of(found, state))
    if doubts:
        raise DatasetError(
            f"{where}: what some numbers mean cannot be told: {'; '.join(doubts)}. Say it in a mapping file (--map): "
            f'{{"action": {{"{doubts[0].split(" ")[0]}": {{"kind": "joint_position", "unit": "rad", '
            f'"target": "{state.joints[0]}", "scale": 1.0}}}}}}; kinds: {", ".join(ActionKind)}; '
            f"what is not wanted goes into leave_out."
        )
    if still:
        notes.append(f"{', '.join(still)} of the action was always 0 and was left out.")
    try:
        spec = ActionSpec(dims=tuple(dims))
    except ValidationError as error:
        raise DatasetError(
            f"{where} gives no usable action: {first_problem(error)}. Name its numbers (--map)."
        ) from error
    _refuse_fast_or_far(spec, [called[index] for index in columns], columns, scales, values, where)
    return ActionMeaning(spec, np.array(columns, dtype=np.intp), np.array(scales), tuple(notes))


def flat_names(names: object, size: int) -> list[str] | None:
    """The names of a feature's numbers; None where it has none, or not one for each.

    LeRobot writes a list, a list in a dictionary ("motors"), or a dictionary of positions.
    """
    found: object = names
    if isinstance(found, Mapping):
        if found and all(isinstance(place, int) and not isinstance(place, bool) for place in found.values()):
            found = sorted(found, key=lambda name: int(names[name]))  # type: ignore[index]
        else:
            found = [name for group in found.values() if isinstance(group, list | tuple) for name in group]
    if isinstance(found, list | tuple) and len(found) == 1 and isinstance(found[0], list | tuple):
        found = found[0]
    if not isinstance(found, list | tuple) or len(found) != size or not all(isinstance(each, str) for each in found):
        return None
    return [str(each) for each in found] if len(set(found)) == size else None


def _called(names: Sequence[str] | None, size: int) -> list[str]:
    return [str(index) for index in range(size)] if names is None else list(names)


def _left_out(where: str, names: Iterable[str]) -> list[str]:
    listed = ", ".join(names)
    return [f"{listed} of {where.rpartition(' ')[2]} was left out."] if listed else []


def _joint(name: str) -> str:
    """What the joint is called whose position is called `name`."""
    return without_suffix(name, *_POSITION) or name


def _velocity_base(name: str) -> str:
    """`name` without its word for velocity, lower-case."""
    return (without_suffix(name, *_VELOCITY) or name).lower().replace(".", "_")


def _told_apart(
    called: Sequence[str], wanted: Sequence[int], where: str
) -> tuple[list[str], list[int], list[int] | None, list[str]]:
    """Joints, columns of their positions and velocities, and the names of what is neither."""
    positions: dict[str, int] = {}
    moving: dict[str, int] = {}
    unused: list[str] = []
    for index in wanted:
        name = called[index]
        if without_suffix(name, *_UNUSED):
            unused.append(name)
        elif base := without_suffix(name, *_VELOCITY):
            moving[base] = index
        elif _joint(name).lower() in _POSE or name.lower().startswith(("ee_", "ee.", "eef", "tcp", "pose")):
            raise DatasetError(
                f"{where}: {name} is the pose of a hand, or is called like one, expected positions of joints. Put it "
                f'into leave_out in a mapping file (--map), or name the joints there: {{"joints": [...]}}.'
            )
        else:
            positions.setdefault(_joint(name), index)
    if strange := [base for base in moving if base not in positions and _velocity_base(base) not in _base_names()]:
        raise DatasetError(
            f"{where}: {', '.join(called[moving[base]] for base in strange)} is a velocity, but there is no position "
            f"of {', '.join(strange)}. Put it into leave_out in a mapping file (--map)."
        )
    has_all = all(joint in moving for joint in positions) and bool(moving)
    unused += [called[index] for base, index in moving.items() if not has_all or base not in positions]
    joints = [valid_name(joint) for joint in positions]
    return joints, list(positions.values()), [moving[joint] for joint in positions] if has_all else None, unused


def _base_names() -> set[str]:
    return _LINEAR | _ANGULAR | _SIDEWAYS


def _state_scale(mapping: SourceMapping, joints: int, where: str) -> Array:
    scale = np.atleast_1d(np.asarray(mapping.state_scale, dtype=np.float64))
    if scale.size not in (1, joints):
        raise DatasetError(f"the mapping has {scale.size} numbers in state_scale, {where} has {joints} joints.")
    return np.array(np.broadcast_to(scale, (joints,)))


def _dimension(name: str, state: StateMeaning, ends: tuple[float, float] | None) -> ActionDim | str:
    """The dimension of that name, or why it cannot be told."""
    own = valid_name(name)
    joints = dict(zip((_joint(source) for source in state.sources), state.joints, strict=True))
    if (joint := joints.get(_joint(name))) is not None:
        kind = ActionKind.GRIPPER if "gripper" in name.lower() else ActionKind.JOINT_POSITION
        return ActionDim(name=own, kind=kind, unit="rad", target=joint)
    if (moving := joints.get(without_suffix(name, *_VELOCITY) or "")) is not None:
        return ActionDim(name=own, kind=ActionKind.JOINT_VELOCITY, unit="rad/s", target=moving)
    base = _velocity_base(name)
    is_velocity = without_suffix(name, *_VELOCITY) is not None or base.startswith(("base_", "linear", "angular"))
    if is_velocity and base in _LINEAR:
        return ActionDim(name=own, kind=ActionKind.BASE_VELOCITY, unit="m/s", target="linear")
    if is_velocity and base in _ANGULAR:
        return ActionDim(name=own, kind=ActionKind.BASE_VELOCITY, unit="rad/s", target="angular")
    if is_velocity and base in _SIDEWAYS:
        return "moves the base sideways, which no robot here does"
    if "gripper" in name.lower() and without_suffix(name, *_VELOCITY) is None:
        if ends is not None and not -_FRACTION_SLACK <= ends[0] <= ends[1] <= 1 + _FRACTION_SLACK:
            return f"is a gripper that is no joint, with values from {ends[0]:.4g} to {ends[1]:.4g}, expected 0 to 1"
        target = valid_name(_joint(name))
        return ActionDim(name=own, kind=ActionKind.GRIPPER, unit="1", target=target, low=0, high=1)
    if name in ("progress", "termination"):
        return ActionDim(name=name, kind=ActionKind(name), unit="1", low=0, high=1)
    return "is called like no joint of the state"


def _mapped(said: ActionMapping, name: str, state: StateMeaning) -> ActionDim:
    """The dimension that a person describes.

    Raises:
        DatasetError: it moves something that is not there.
    """
    moves_joint = said.kind in (ActionKind.JOINT_POSITION, ActionKind.JOINT_VELOCITY)
    targets = state.joints if moves_joint else ("linear", "angular") if said.kind is ActionKind.BASE_VELOCITY else None
    if targets is not None and said.target not in targets:
        raise DatasetError(
            f"the mapping says that {name} is a {said.kind} of {said.target!r}, expected as target one of "
            f"{', '.join(targets)}."
        )
    return said.dim(valid_name(name) if not name.isdecimal() else f"action_{name}")


def _scale_of(dim: ActionDim, state: StateMeaning) -> float:
    """What a mapping says of a joint's positions holds for the commands to it."""
    moves_joint = dim.unit in ("rad", "rad/s") and dim.target in state.joints
    return float(state.scale[state.joints.index(dim.target)]) if moves_joint and dim.target else 1.0


def _refuse_degrees(
    names: Sequence[str], columns: Sequence[int], scale: Array, values: Range | None, where: str
) -> None:
    if values is None:
        return
    far = [
        f"{name} from {low:.4g} to {high:.4g}"
        for name, column, each in zip(names, columns, scale, strict=True)
        for low, high in [values.scaled(column, float(each))]
        if max(abs(low), abs(high)) > _FURTHEST_RAD
    ]
    if far:
        raise DatasetError(
            f"{where}: {'; '.join(far)}: these are no angles in rad. Say in a mapping file (--map) what makes them "
            f'so, in degrees {{"state_scale": {math.pi / 180:.6f}}}, or a list with one number per joint.'
        )


def _refuse_fast_or_far(
    spec: ActionSpec,
    names: Sequence[str],
    columns: Sequence[int],
    scales: Sequence[float],
    values: Range | None,
    where: str,
) -> None:
    if values is None:
        return
    for dim, name, column, scale in zip(spec.dims, names, columns, scales, strict=True):
        low, high = values.scaled(column, scale)
        is_angle = dim.unit == "rad" or (dim.kind is ActionKind.BASE_VELOCITY and dim.unit == "rad/s")
        if is_angle and max(abs(low), abs(high)) > _FURTHEST_RAD:
            raise DatasetError(
                f"{where}: {name} goes from {low:.4g} to {high:.4g}, which is not in {dim.unit}. Say in a mapping "
                f'file (--map) what makes it so, in degrees {{"action": {{"{name}": {{"kind": "{dim.kind}", "unit": '
                f'"{dim.unit}", "target": "{dim.target}", "scale": {math.pi / 180:.6f}}}}}}}.'
            )
