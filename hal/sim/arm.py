"""Kinematics of the reference arm: five revolute joints, then a parallel gripper.

Joint 1 turns about z, joints 2 to 4 about y, joint 5 about x; a positive angle of joints 2 to 4 pitches the
tool down. Lengths are the reference robot's, in metres, in its base frame (x forward, y left, z up).

The reference's fingers swing about two pivots; here a linkage keeps them parallel while they open by the same
amount, so that a flat object is held by its faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.errors import BtruntimeError

Array = NDArray[np.float64]

SHOULDER_YAW = np.array([0.086, -0.05285, 0.04025])
TO_SHOULDER = np.array([0.0, 0.0, 0.04425])
TO_ELBOW = np.array([0.02825, 0.0, 0.12125])
TO_WRIST = np.array([0.1375, 0.0, 0.0045])
TO_ROLL = np.array([0.019, 0.0, 0.0])
TOOL_X = 0.0918  # from link 5
FINGER_X = 0.044  # where a finger begins, from link 5
FINGER_SWING = TOOL_X - FINGER_X
HEAD = np.array([-0.0408, -0.0002, 0.2588])
WRIST_CAMERA = np.array([0.03378, 0.0, 0.05052])
WRIST_CAMERA_PITCH_RAD = 0.436

_UPPER, _FORE = float(np.hypot(*TO_ELBOW[[0, 2]])), float(np.hypot(*TO_WRIST[[0, 2]]))
_UPPER_ANGLE, _FORE_ANGLE = float(np.arctan2(TO_ELBOW[2], TO_ELBOW[0])), float(np.arctan2(TO_WRIST[2], TO_WRIST[0]))
_WRIST_TO_TOOL = float(TO_ROLL[0]) + TOOL_X


class OutOfReachError(BtruntimeError):
    """No joint angles put the tool there."""


@dataclass(frozen=True, slots=True)
class ArmPose:
    """Where the links are, in the robot's base frame: each a (3, 3) rotation and a (3,) origin.

    `links` holds joint frames 1 to 5 in order; the last one carries gripper and wrist camera.
    """

    links: tuple[tuple[Array, Array], ...]
    half_gap_m: float

    @property
    def tool(self) -> Array:
        """(3,) point between the fingertips."""
        rotation, origin = self.links[-1]
        return origin + rotation[:, 0] * TOOL_X


def rotation_y(angle_rad: float) -> Array:
    """(3, 3) rotation about y."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rotation_z(angle_rad: float) -> Array:
    """(3, 3) rotation about z."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _rotation_x(angle_rad: float) -> Array:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def half_gap_m(gripper_rad: float) -> float:
    """Half the distance between the fingers' inner faces at a gripper angle; 0 when closed."""
    return FINGER_SWING * float(np.sin(max(gripper_rad, 0.0)))


def gripper_rad(half_gap: float) -> float:
    """The gripper angle at which the inner faces are `half_gap` metres from the middle."""
    return float(np.arcsin(np.clip(half_gap / FINGER_SWING, 0.0, 1.0)))


def forward(qpos: Array) -> ArmPose:
    """Forward kinematics of (6,) joint positions."""
    rotation, origin = rotation_z(qpos[0]), SHOULDER_YAW
    links = [(rotation, origin)]
    for offset, angle in zip((TO_SHOULDER, TO_ELBOW, TO_WRIST), qpos[1:4], strict=True):
        origin = origin + rotation @ offset
        rotation = rotation @ rotation_y(angle)
        links.append((rotation, origin))
    links.append((rotation @ _rotation_x(qpos[4]), origin + rotation @ TO_ROLL))
    return ArmPose(tuple(links), half_gap_m(qpos[5]))


def inverse(tool: Array, *, pitch_rad: float, roll_rad: float = 0.0) -> Array:
    """Joint angles 1 to 5 that put the tool there, elbow up.

    Args:
        tool: (3,) target in the robot's base frame.
        pitch_rad: how far the gripper points down; pi/2 is straight down.
        roll_rad: rotation about the gripper's own axis.

    Returns:
        (5,) joint positions; not checked against limits.

    Raises:
        OutOfReachError: the wrist would have to be further away, or nearer, than the two links allow.
    """
    flat = tool[:2] - SHOULDER_YAW[:2]
    shoulder_z = SHOULDER_YAW[2] + TO_SHOULDER[2]
    wrist = np.array(
        [
            np.hypot(*flat) - _WRIST_TO_TOOL * np.cos(pitch_rad),
            tool[2] - shoulder_z + _WRIST_TO_TOOL * np.sin(pitch_rad),
        ]
    )
    reach = float(np.hypot(*wrist))
    if not abs(_UPPER - _FORE) < reach < _UPPER + _FORE:
        raise OutOfReachError(
            f"the tool cannot reach {np.round(tool, 3).tolist()} m at pitch {pitch_rad:.2f} rad: "
            f"the wrist would be {reach:.3f} m from the shoulder, "
            f"the links allow {abs(_UPPER - _FORE):.3f} to {_UPPER + _FORE:.3f} m."
        )
    # Clipped, because close to the ends rounding alone can leave -1..1.
    inner = np.arccos(np.clip((_UPPER**2 + reach**2 - _FORE**2) / (2 * _UPPER * reach), -1.0, 1.0))
    upper_angle = np.arctan2(wrist[1], wrist[0]) + inner
    fore = wrist - _UPPER * np.array([np.cos(upper_angle), np.sin(upper_angle)])
    j2 = _UPPER_ANGLE - upper_angle
    j3 = _FORE_ANGLE - j2 - np.arctan2(fore[1], fore[0])
    return np.array([np.arctan2(flat[1], flat[0]), j2, j3, pitch_rad - j2 - j3, roll_rad])
