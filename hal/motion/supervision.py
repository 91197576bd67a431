"""What turns into a hold or a fault: stale sensors, commands that cease or stay beyond limits, a stuck joint.

Each function looks at one lease, notes what it saw in its `Grant`, and returns the names of events to count.
"""

from __future__ import annotations

import numpy as np

from hal.motion.config import GateConfig
from hal.motion.lease import Grant, Lease
from hal.motion.limits import Violation
from hal.types import Array, Observation, RobotSpec

# Sums of periods miss the limits they are meant to meet by rounding.
_ROUNDING_S = 1e-9


def check_sensors(grant: Grant, observation: Observation, joints_s: float, now_s: float) -> list[str]:
    """Hold on a stale sensor, fault on one that is lost.

    Args:
        grant: of the lease.
        observation: the newest.
        joints_s: when all joints were last measured.
        now_s: now.
    """
    stale = None
    for sensor, (hold_s, fail_s) in grant.stale_limits_s.items():
        measured_s = joints_s if sensor == "joints" else observation.measured_s(sensor)
        # A stamp from the future is as wrong as an old one, and must not switch the check off.
        age_s = abs(now_s - measured_s)
        if age_s <= hold_s + _ROUNDING_S:
            continue
        # Positions that arrive, and are no numbers, are another trouble than positions that do not arrive.
        nan = sensor == "joints" and abs(now_s - observation.joints_s) <= hold_s + _ROUNDING_S
        stale = stale or _stale(sensor, age_s, hold_s, nan=nan)
        if min(age_s, now_s - grant.since_s) > fail_s + _ROUNDING_S:
            grant.blame(_stale(sensor, age_s, fail_s, nan=nan))
    began = stale is not None and grant.stale is None
    grant.stale = stale
    return ["stale"] if began else []


def check_commands(lease: Lease, grant: Grant, config: GateConfig, now_s: float) -> list[str]:
    """Notice that commands have ceased; not empty when its resources must be brought to rest now."""
    if grant.commanded_s is None or grant.fault is not None:
        return []
    silent_s = now_s - grant.commanded_s
    if silent_s < config.watchdog_s - _ROUNDING_S:
        grant.watchdog = False
        return []
    if silent_s >= config.watchdog_s + config.persist_s - _ROUNDING_S:
        grant.blame(
            f"No command came from {lease.owner} for {silent_s:.2f} s (limit {config.watchdog_s:.2f} s). "
            "The machine may be overloaded: stop other programs and run again."
        )
    began, grant.watchdog = not grant.watchdog, True
    return ["watchdog"] if began else []


def check_tracking(grant: Grant, spec: RobotSpec, config: GateConfig, error: Array, now_s: float) -> list[str]:
    """Fault when a joint stays away from where it was sent. Grippers may: they squeeze.

    Args:
        grant: of the lease on the arm.
        spec: the robot's.
        config: the gate's.
        error: (J,) setpoint minus measured position.
        now_s: now.
    """
    distance = np.where([joint.gripper for joint in spec.joints], 0.0, np.abs(error))
    worst = int(distance.argmax())
    if distance[worst] <= config.tracking_error_rad:
        grant.strayed_since_s = None
        return []
    began = grant.strayed_since_s is None
    since_s = now_s if grant.strayed_since_s is None else grant.strayed_since_s
    grant.strayed_since_s = since_s
    if now_s - since_s >= config.persist_s - _ROUNDING_S:
        joint = spec.joints[worst].name
        grant.blame(
            f"Tracking: joint {joint} stays {distance[worst]:.2f} away from where it was sent. "
            "Free the arm, or check that joint's motor, then run again."
        )
    return ["tracking"] if began else []


def note_violations(grant: Grant, violations: list[Violation], config: GateConfig, stamp_s: float) -> None:
    """Fault when every command for some time was far beyond the same kind of limit."""
    serious = {violation.reason: violation.text for violation in violations if violation.serious}
    for reason in set(grant.violated_since_s) - set(serious):
        del grant.violated_since_s[reason]
    for reason, text in serious.items():
        lasted_s = stamp_s - grant.violated_since_s.setdefault(reason, stamp_s)
        if lasted_s >= config.persist_s - _ROUNDING_S:
            grant.blame(
                f"Commands have been beyond the {reason} limits for {lasted_s:.2f} s: {text}. "
                "Check that the skill was made for this robot, or lower execution.speed."
            )


def _stale(sensor: str, age_s: float, limit_s: float, *, nan: bool) -> str:
    if nan:
        seen = "has read no numbers (NaN) yet" if np.isinf(age_s) else f"has read no numbers (NaN) for {age_s:.2f} s"
        return f"Sensor {sensor} {seen} (limit {limit_s:.2f} s). Check the arm's bus, then run again."
    seen = "has not delivered yet" if np.isinf(age_s) else f"is {age_s:.2f} s old"
    return f"Sensor {sensor} {seen} (limit {limit_s:.2f} s). Check its connection and its driver, then run again."
