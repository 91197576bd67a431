"""The types everything else is made of: `RobotSpec`, `ActionSpec`, `Observation`, `Command`, `Setpoint`.

Specs are pydantic models, because datasets and checkpoints carry them as JSON; what flows at 25 Hz are
frozen dataclasses. All times are seconds of the clock in use (`hal.clock`), never of the wall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from foundation.errors import BtruntimeError

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$", max_length=64)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SpecError(BtruntimeError):
    """A spec, or something made for one spec and used with another, does not fit."""


def _constant(values: Iterable[float]) -> Array:
    """A read-only array: specs are shared by everybody, and hold the limits."""
    array = np.array(list(values))
    array.setflags(write=False)
    return array


class ActionKind(StrEnum):
    """What one action dimension commands."""

    JOINT_POSITION = "joint_position"
    JOINT_VELOCITY = "joint_velocity"
    GRIPPER = "gripper"
    BASE_VELOCITY = "base_velocity"
    PROGRESS = "progress"
    TERMINATION = "termination"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A validated copy with some fields changed; pydantic's own would keep cached properties of the old ones."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate({**fields, **(update or {})})


class JointSpec(_Frozen):
    """One joint. Positions in rad (or m for a prismatic one), speeds and accelerations per s and s^2.

    `gripper` marks the joint that opens (towards `high`) and closes (towards `low`) the hand.
    """

    name: Name
    low: Finite
    high: Finite
    max_speed: Positive
    max_acceleration: Positive
    gripper: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> JointSpec:
        if self.low >= self.high:
            raise ValueError(f"joint {self.name}: low {self.low} is not below high {self.high}")
        return self


class GripperSpec(_Frozen):
    """A gripper that is commanded as a fraction (0 closed, 1 open) and measured by nobody, for example a pneumatic one.

    Attributes:
        max_rate_per_s: how fast the commanded fraction may change, in fractions per second.
    """

    name: Name
    max_rate_per_s: Positive = 5.0


class CameraSpec(_Frozen):
    """One camera: frames are (height, width, 3) uint8 RGB at `rate_hz`."""

    name: Name
    width: Annotated[int, Field(ge=1, le=8192)]
    height: Annotated[int, Field(ge=1, le=8192)]
    rate_hz: Positive


class BaseSpec(_Frozen):
    """A base that takes (linear x in m/s, angular z in rad/s, counter-clockwise positive)."""

    max_linear_mps: Positive
    max_angular_radps: Positive
    max_linear_mps2: Positive
    max_angular_radps2: Positive


class RobotSpec(_Frozen):
    """All that the code knows of a robot: joints in order, cameras in order, a base or none, and rates.

    A gripper whose position is measured is a joint (`JointSpec.gripper`); `grippers` are those that are not.
    """

    name: Name
    joints: Annotated[tuple[JointSpec, ...], Field(min_length=1)]
    cameras: tuple[CameraSpec, ...] = ()
    base: BaseSpec | None = None
    grippers: tuple[GripperSpec, ...] = ()
    control_rate_hz: Positive
    state_rate_hz: Positive

    @model_validator(mode="after")
    def _unique_names(self) -> RobotSpec:
        named = {"joint": self.joint_names, "camera": self.camera_names, "gripper": self.gripper_names}
        for what, names in named.items():
            if len(set(names)) != len(names):
                raise ValueError(f"robot {self.name}: two {what}s have the same name: {', '.join(names)}")
        for what in ("camera", "gripper"):
            if taken := {"joints", "base"} & set(named[what]):
                raise ValueError(
                    f"robot {self.name}: a {what} may not be called {taken.pop()}; that names another sensor"
                )
        if taken := set(self.gripper_names) & set(self.joint_names):
            raise ValueError(f"robot {self.name}: a gripper may not be called {taken.pop()}; that names a joint")
        return self

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @cached_property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    @cached_property
    def gripper_names(self) -> tuple[str, ...]:
        """Of those that are not joints."""
        return tuple(gripper.name for gripper in self.grippers)

    def camera(self, name: str) -> CameraSpec:
        """The camera of that name.

        Raises:
            SpecError: there is none; the error lists those there are.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise SpecError(f"robot {self.name} has no camera {name!r}; it has {', '.join(self.camera_names) or 'none'}.")

    @cached_property
    def position_limits(self) -> tuple[Array, Array]:
        """(J,) lowest and (J,) highest joint positions."""
        return _constant(j.low for j in self.joints), _constant(j.high for j in self.joints)

    @cached_property
    def speed_limits(self) -> Array:
        """(J,) highest joint speeds."""
        return _constant(joint.max_speed for joint in self.joints)

    @cached_property
    def acceleration_limits(self) -> Array:
        """(J,) highest joint accelerations."""
        return _constant(joint.max_acceleration for joint in self.joints)

    @cached_property
    def gripper_rates(self) -> Array:
        """(G,) how fast the fraction of each gripper that is not a joint may change."""
        return _constant(gripper.max_rate_per_s for gripper in self.grippers)

    def action_spec(self, *, base: bool, progress: bool, grippers: bool = True) -> ActionSpec:
        """The action that a leader of this robot gives: joint positions, gripper fractions, then base, then progress.

        Args:
            base: append linear x and angular z of the base.
            progress: append task progress (0..1) and the termination flag.
            grippers: include the grippers that are not joints; without, an action leaves them as they are.

        Raises:
            SpecError: `base` is asked of a robot that has none.
        """
        dims = [
            ActionDim(
                name=joint.name,
                kind=ActionKind.GRIPPER if joint.gripper else ActionKind.JOINT_POSITION,
                unit="rad",
                target=joint.name,
                low=joint.low,
                high=joint.high,
            )
            for joint in self.joints
        ]
        if grippers:
            dims += [ActionDim.fraction(name) for name in self.gripper_names]
        if base:
            if self.base is None:
                raise SpecError(f"robot {self.name} has no base; record without base movement.")
            dims += [
                ActionDim.base("linear", self.base.max_linear_mps),
                ActionDim.base("angular", self.base.max_angular_radps),
            ]
        if progress:
            dims += [
                ActionDim(name="progress", kind=ActionKind.PROGRESS, unit="1", low=0, high=1),
                ActionDim(name="termination", kind=ActionKind.TERMINATION, unit="1", low=0, high=1),
            ]
        return ActionSpec(dims=tuple(dims))


class ActionDim(_Frozen):
    """One action dimension.

    Attributes:
        target: the joint or gripper it moves, or "linear" or "angular" for the base; None for progress and
            termination.
        unit: "rad", "m", "rad/s", "m/s", or "1". A gripper in "1" is a fraction: 0 closed, 1 open.
        low, high: limits of the value where the maker of the data stated them.
    """

    name: Name
    kind: ActionKind
    unit: Literal["rad", "m", "rad/s", "m/s", "1"]
    target: str | None = None
    low: Finite | None = None
    high: Finite | None = None

    @classmethod
    def base(cls, axis: Literal["linear", "angular"], limit: float) -> ActionDim:
        """A base velocity dimension, limited to +-`limit`."""
        unit: Literal["m/s", "rad/s"] = "m/s" if axis == "linear" else "rad/s"
        return cls(name=f"base_{axis}", kind=ActionKind.BASE_VELOCITY, unit=unit, target=axis, low=-limit, high=limit)

    @classmethod
    def fraction(cls, gripper: str) -> ActionDim:
        """How far a gripper is open, 0 to 1; the dimension is named after it."""
        return cls(name=gripper, kind=ActionKind.GRIPPER, unit="1", target=gripper, low=0, high=1)


class ActionSpec(_Frozen):
    """What each number of an action means, in order."""

    dims: Annotated[tuple[ActionDim, ...], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _unique_names(self) -> ActionSpec:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"two action dimensions have the same name: {', '.join(self.names)}")
        return self

    @property
    def size(self) -> int:
        return len(self.dims)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(dim.name for dim in self.dims)

    def indices(self, *kinds: ActionKind) -> NDArray[np.intp]:
        """Positions of the dimensions of these kinds, in order."""
        return np.array([i for i, dim in enumerate(self.dims) if dim.kind in kinds], dtype=np.intp)

    def index(self, kind: ActionKind) -> int | None:
        """Position of the first dimension of that kind, or None."""
        found = self.indices(kind)
        return int(found[0]) if len(found) else None


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera frame: (H, W, 3) uint8 RGB, read-only, and when it was captured."""

    rgb: Image
    captured_s: float


@dataclass(frozen=True, slots=True)
class Observation:
    """The newest of every sensor at `stamp_s`. Parts were measured earlier; `age_s` says by how much.

    Attributes:
        stamp_s: when the snapshot was put together.
        qpos, qvel: (J,) joint positions and velocities, measured at `joints_s`. NaN where nothing was measured.
        images: newest frame by camera name; a camera that has not delivered yet is missing.
        base_velocity: (2,) linear x, angular z; None without a base. Measured at `base_s`.
        odometry: (5,) x, y, yaw, linear x, angular z.
    """

    stamp_s: float
    qpos: Array
    qvel: Array
    joints_s: float
    images: Mapping[str, Frame] = field(default_factory=lambda: MappingProxyType({}))
    base_velocity: Array | None = None
    odometry: Array | None = None
    base_s: float = float("-inf")

    def measured_s(self, sensor: str) -> float:
        """When "joints", "base" or a camera was last measured; -inf if never."""
        if sensor == "joints":
            return self.joints_s
        if sensor == "base":
            return self.base_s
        frame = self.images.get(sensor)
        return frame.captured_s if frame is not None else float("-inf")

    def age_s(self, sensor: str, now_s: float) -> float:
        """Age at `now_s` of "joints", "base" or a camera; inf if never measured."""
        return now_s - self.measured_s(sensor)


@dataclass(frozen=True, slots=True)
class Command:
    """One action, by its spec: what somebody asks of the robot at `stamp_s`. `action` is (A,)."""

    spec: ActionSpec
    action: Array
    stamp_s: float


@dataclass(frozen=True, slots=True)
class Setpoint:
    """What the motion gate sends to a robot.

    Attributes:
        qpos: (J,) joint positions.
        base_velocity: (2,) linear x, angular z; None without a base.
        grippers: (G,) fractions of the grippers that are not joints, 0 closed to 1 open. NaN where nobody has
            commanded one yet: the robot leaves it as it is. None for a robot without such grippers.
    """

    qpos: Array
    base_velocity: Array | None
    stamp_s: float
    grippers: Array | None = None
