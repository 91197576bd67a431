"""A table with boxes on it, and what the gripper does to them.

Contact is quasi-static: nothing has momentum. A finger that sweeps against a box pushes it; a finger that comes
down on a box pushes it away from the gripper; a box is held only while both fingers close on its opposite faces
and it lies between the pads. A box that is let go falls.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hal.sim.arm import FINGER_X, TOOL_X, ArmPose, gripper_rad, rotation_z

Array = NDArray[np.float64]

FINGER_TIP_X = TOOL_X + 0.008
FINGER_HALF_HEIGHT = 0.007
FINGER_THICKNESS = 0.009
_PALM_X = FINGER_X + 0.006
_FALL_MPS = 0.6
_ALIGN_WITHIN_RAD = 0.6
_TOUCH_M = 5e-4
_TIP_PAST_CENTRE_M = 0.002
_PAD_CENTRE_M = 0.010
_CLOSES_LEVEL_WITHIN = 0.5  # the vertical part of the unit vector along which the fingers close


@dataclass(frozen=True, slots=True)
class Box:
    """A box on the table: (3,) edge lengths, (3,) centre in the world, yaw, (3,) RGB colour 0..1."""

    name: str
    size: tuple[float, float, float]
    centre: tuple[float, float, float]
    yaw_rad: float
    colour: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Look:
    """What the light and the table look like. Colours are RGB 0..1; `noise` is the standard deviation, of 0..255."""

    table: tuple[float, float, float] = (0.72, 0.68, 0.62)
    light_direction: tuple[float, float, float] = (0.3, -0.4, 1.0)
    ambient: float = 0.55
    diffuse: float = 0.5
    noise: float = 2.0


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """A scene before anything happened to it."""

    boxes: tuple[Box, ...] = ()
    look: Look = field(default_factory=Look)


@dataclass
class Scene:
    """The boxes as they are now. `step` moves them; one thread at a time."""

    spec: SceneSpec = field(default_factory=SceneSpec)
    boxes: list[Box] = field(init=False)
    held: str | None = field(init=False, default=None)
    _grip_offset: Array = field(init=False, default_factory=lambda: np.zeros(3))
    _grip_rotation: Array = field(init=False, default_factory=lambda: np.eye(3))
    _grip_gap_m: float = field(init=False, default=0.0)
    _tip_heights: Array = field(init=False, default_factory=lambda: np.full(2, np.inf))
    _landed: dict[tuple[str, int], float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.boxes = list(self.spec.boxes)

    def box(self, name: str) -> Box:
        """The box of that name.

        Raises:
            KeyError: there is none.
        """
        for box in self.boxes:
            if box.name == name:
                return box
        raise KeyError(name)

    def step(self, gripper: tuple[Array, Array], half_gap_m: float, dt_s: float) -> float:
        """Move the boxes for one step of the robot.

        Args:
            gripper: (3, 3) rotation and (3,) origin of link 5 in the world.
            half_gap_m: where the gripper's inner faces want to be.
            dt_s: length of the step.

        Returns:
            Where the inner faces can be: a box between them stops them. Metres from the middle.
        """
        rotation, origin = gripper
        if self.held is not None:
            if half_gap_m <= self._grip_gap_m + _TOUCH_M:
                self._carry(rotation, origin)
                half_gap_m = max(half_gap_m, self._grip_gap_m)
            else:
                self.held = None
        for index, box in enumerate(self.boxes):
            if box.name != self.held:
                half_gap_m = max(half_gap_m, self._touch(index, box, rotation, origin, half_gap_m))
        self._tip_heights = np.array([(origin + rotation @ _tip(side, half_gap_m))[2] for side in (-1, 1)])
        self._fall(dt_s)
        return half_gap_m

    def _carry(self, rotation: Array, origin: Array) -> None:
        index, box = next((i, b) for i, b in enumerate(self.boxes) if b.name == self.held)
        centre = origin + rotation @ self._grip_offset
        turned = rotation @ self._grip_rotation
        # A box that is carried keeps its faces against the fingers; only its yaw is drawn.
        self.boxes[index] = replace(
            box,
            centre=(float(centre[0]), float(centre[1]), max(float(centre[2]), box.size[2] / 2)),
            yaw_rad=float(np.arctan2(turned[1, 0], turned[0, 0])),
        )

    def _touch(self, index: int, box: Box, rotation: Array, origin: Array, half_gap_m: float) -> float:
        """Push or grasp one box; returns the half gap that the box enforces (0 where it does not)."""
        local = rotation.T @ (np.array(box.centre) - origin)
        if np.abs(local - [TOOL_X, 0.0, 0.0]).max() > 0.12:
            return 0.0
        width = _half_width_along(box, rotation[:, 1])
        between = self.held is None and self._between_pads(local, box, rotation, half_gap_m)
        if between and half_gap_m <= width + abs(local[1]):
            return self._squeeze(index, box, rotation, origin, local, width, half_gap_m)
        for finger, side in enumerate((-1, 1)):
            footprint = _footprint(rotation, origin, side, half_gap_m, box.centre[2] + box.size[2] / 2)
            self._push(index, (box.name, finger), footprint, rotation[:2, 1])
        return 0.0

    def _between_pads(self, local: Array, box: Box, rotation: Array, half_gap_m: float) -> bool:
        """The box's centre lies where pads can hold it: past the palm, behind the tips, between the inner faces."""
        depth_ok = _PALM_X <= local[0] <= FINGER_TIP_X - _TIP_PAST_CENTRE_M
        beside = abs(local[2]) > _PAD_CENTRE_M or abs(local[1]) > half_gap_m
        upright = abs(rotation[2, 1]) <= _CLOSES_LEVEL_WITHIN  # else the fingers close on top and bottom
        untouched = not any(name == box.name for name, _ in self._landed)
        return bool(depth_ok and not beside and upright and untouched)

    def _squeeze(
        self, index: int, box: Box, rotation: Array, origin: Array, local: Array, width: float, half_gap_m: float
    ) -> float:
        # The nearer finger pushes the box towards the middle until the other one is met.
        middle = float(np.clip(local[1], -max(half_gap_m - width, 0.0), max(half_gap_m - width, 0.0)))
        if half_gap_m > width + _TOUCH_M:
            shifted = origin + rotation @ np.array([local[0], middle, local[2]])
            self.boxes[index] = replace(box, centre=(float(shifted[0]), float(shifted[1]), box.centre[2]))
            return 0.0
        twist = _quarter_turn(float(np.arctan2(rotation[1, 1], rotation[0, 1])) - box.yaw_rad)
        if abs(twist) > _ALIGN_WITHIN_RAD:
            return width
        aligned = replace(box, yaw_rad=box.yaw_rad + twist)
        width = _half_width_along(aligned, rotation[:, 1])
        self.boxes[index] = aligned
        if half_gap_m > width + _TOUCH_M:
            return 0.0  # it turned between the fingers, and is narrower now than they are wide open
        self.held = box.name
        self._grip_offset = np.array([local[0], 0.0, local[2]])
        self._grip_rotation = rotation.T @ rotation_z(aligned.yaw_rad)
        self._grip_gap_m = width
        self._carry(rotation, origin)
        return width

    def _push(self, index: int, key: tuple[str, int], footprint: Array | None, closing: Array) -> None:
        box = self.boxes[index]
        top = box.centre[2] + box.size[2] / 2
        if footprint is None:
            self._landed.pop(key, None)
            return
        push = _separation(footprint, _corners(box))
        if push is None:
            self._landed.pop(key, None)
            return
        finger = key[1]
        if key not in self._landed and self._tip_heights[finger] > top - 1e-3:
            # Outwards: a finger that comes down on a box must not sweep it between the fingers.
            self._landed[key] = 1.0 if finger else -1.0
        if key in self._landed:
            axis = closing / max(float(np.hypot(*closing)), 1e-9) * self._landed[key]
            reach = (footprint @ axis).max() - (_corners(box) @ axis).min()
            push = axis * max(reach, 0.0)
        self.boxes[index] = replace(
            box, centre=(box.centre[0] + float(push[0]), box.centre[1] + float(push[1]), box.centre[2])
        )

    def _fall(self, dt_s: float) -> None:
        for index, box in enumerate(self.boxes):
            rest = box.size[2] / 2
            if box.name != self.held and box.centre[2] > rest:
                lower = max(box.centre[2] - _FALL_MPS * dt_s, rest)
                self.boxes[index] = replace(box, centre=(box.centre[0], box.centre[1], lower))


def grip_angle_rad(width_m: float) -> float:
    """The gripper angle at which the fingers touch a box of that width."""
    return gripper_rad(width_m / 2)


def lowest_point_m(pose: ArmPose, rotation: Array, origin: Array) -> float:
    """Height of the lowest fingertip corner above the table, for link 5 at `rotation`, `origin` in the world."""
    outer = pose.half_gap_m + FINGER_THICKNESS
    heights = (-FINGER_HALF_HEIGHT, FINGER_HALF_HEIGHT)
    corners = np.array([[FINGER_TIP_X, y, z] for y in (-outer, outer) for z in heights])
    return float((corners @ rotation.T + origin)[:, 2].min())


def _tip(side: int, half_gap_m: float) -> Array:
    return np.array([FINGER_TIP_X, side * (half_gap_m + FINGER_THICKNESS / 2), 0.0])


def _half_width_along(box: Box, axis: Array) -> float:
    """Half the extent of a box along a horizontal direction."""
    angle = float(np.arctan2(axis[1], axis[0])) - box.yaw_rad
    return 0.5 * float(abs(np.cos(angle)) * box.size[0] + abs(np.sin(angle)) * box.size[1])


def _quarter_turn(angle_rad: float) -> float:
    """The angle modulo a quarter turn, in -pi/4..pi/4."""
    return float((angle_rad + np.pi / 4) % (np.pi / 2) - np.pi / 4)


def _corners(box: Box) -> Array:
    """(4, 2) corners of a box seen from above, in order."""
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array(box.size[:2]) / 2
    return np.asarray(half @ rotation_z(box.yaw_rad)[:2, :2].T + np.array(box.centre[:2]))


def _footprint(rotation: Array, origin: Array, side: int, half_gap_m: float, top_m: float) -> Array | None:
    """(N, 2) points that span the part of a finger below `top_m`, seen from above; None where nothing is."""
    inner, outer = side * half_gap_m, side * (half_gap_m + FINGER_THICKNESS)
    section = np.array([[0.0, y, z] for y in (inner, outer) for z in (-FINGER_HALF_HEIGHT, FINGER_HALF_HEIGHT)])
    tip = (section + [FINGER_TIP_X, 0, 0]) @ rotation.T + origin
    root = (section + [_PALM_X, 0, 0]) @ rotation.T + origin
    if tip[:, 2].min() >= top_m:
        return None
    drop = root[:, 2] - tip[:, 2]
    share = np.clip((top_m - tip[:, 2]) / np.where(np.abs(drop) < 1e-9, 1e-9, drop), 0.0, 1.0)
    cut = tip + (root - tip) * share[:, None]
    return np.concatenate([tip[:, :2], cut[:, :2]])


def _separation(fixed: Array, moving: Array) -> Array | None:
    """The shortest (2,) shift of `moving` (a rectangle's corners in order) that clears `fixed`; None if clear.

    Separating axes: normals of the rectangle's edges and of those that a footprint can have (see `_footprint`):
    along the finger's three edges, and where the box's top cuts it.
    """
    edges = np.stack(
        [
            moving[1] - moving[0],
            moving[2] - moving[1],
            fixed[2] - fixed[0],
            fixed[1] - fixed[0],
            fixed[4] - fixed[0],
            fixed[6] - fixed[4],
            fixed[5] - fixed[4],
        ]
    )
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    some = lengths > 1e-9
    axes = np.stack([-edges[some, 1], edges[some, 0]], axis=1) / lengths[some, None]
    a, b = fixed @ axes.T, moving @ axes.T
    ahead, behind = a.max(axis=0) - b.min(axis=0), b.max(axis=0) - a.min(axis=0)
    depth = np.minimum(ahead, behind)
    least = int(depth.argmin())
    if depth[least] <= 0:
        return None
    shift: Array = axes[least] * (depth[least] if ahead[least] < behind[least] else -depth[least])
    return shift
