"""What the robot says of itself, and whether it can be believed."""

from __future__ import annotations

import numpy as np

from hal.robot import Robot
from hal.types import Array, Observation, RobotSpec

_REMEDY = "Check its power and its connection."


def read(robot: Robot) -> tuple[Observation | None, str | None]:
    """The newest observation, with (J,) joint positions (NaN where none), or what is wrong with it."""
    spec = robot.spec
    try:
        observation = robot.read()
        shape = np.shape(observation.qpos)
    except Exception as error:  # noqa: BLE001 - a driver's bug must not end the control loop
        return None, advised(f"The robot {spec.name} does not answer", error)
    if shape != (len(spec.joints),):
        return None, f"The robot {spec.name} reads joint positions {shape}, its spec says ({len(spec.joints)},)."
    return observation, None


def advised(what: str, error: Exception) -> str:
    """What does not work, why, and what to do about it, which a driver may have said already."""
    text = f"{what}: {error}"
    return text if text.endswith(_REMEDY) else f"{text.removesuffix('.')}. {_REMEDY}"


def measured(observation: Observation | None) -> Array | None:
    """(J,) joint positions, if every one was measured."""
    if observation is None or not np.isfinite(observation.qpos).all():
        return None
    return observation.qpos


def misread(spec: RobotSpec, qpos: Array, tolerance: float) -> str | None:
    """Why (J,) measured positions cannot be true: one lies further outside its limits than the tolerance."""
    low, high = spec.position_limits
    outside = np.maximum(low - qpos, qpos - high)
    worst = int(outside.argmax())
    if outside[worst] <= tolerance:
        return None
    joint = spec.joints[worst]
    return (
        f"Joint {joint.name} reads {qpos[worst]:.3g}, far outside its limits {joint.low:.3g} to {joint.high:.3g}; "
        "check its calibration."
    )
