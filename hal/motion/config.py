"""What the gate is told (`GateConfig`) and what it tells (`Submitted`, `GateReport`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from hal.types import Array, Command, RobotSpec, Setpoint


@dataclass(frozen=True, slots=True)
class GateConfig:
    """Limits of the gate in time and in slack; the limits of the robot are in its spec.

    Attributes:
        watchdog_s: without a command for this long, a lease's resources are brought to rest.
        hold_periods, hold_min_s: a sensor older than so many of its own periods, and than this, holds the motion.
        fail_periods, fail_min_s: the same for the fault.
        persist_s: what lasts this long is a fault: commands beyond limits, the watchdog, a tracking error.
        rounding: excess over a limit, as a fraction of the joint's range or of the speed limit, that is clipped
            and not counted: float32 and un-normalising cost digits.
        persist_excess: only a larger excess than this, in the same fraction, can become a fault: a policy that
            was shown a joint at its limit predicts values a little beyond it.
        persist_excess_gripper: the same for the fraction of a gripper that is not a joint. Beyond 0 it is closed and
            beyond 1 open, and a policy that learned from nothing but 0 and 1 predicts values on either side of them.
        speed_slack: how far a step between two targets may exceed the speed limit before it is counted, as a
            fraction: a command that comes late by scheduling looks faster than it is.
        tracking_error_rad: distance between setpoint and measured position (rad or m, grippers excepted, which
            squeeze) that is a fault when it lasts.
        command_period_s: the period assumed until two commands have come.
        command_period_min_s, command_period_max_s: bounds of the estimated period.
    """

    watchdog_s: float = 0.2
    hold_periods: float = 4
    hold_min_s: float = 0.150
    fail_periods: float = 12
    fail_min_s: float = 0.5
    persist_s: float = 0.5
    rounding: float = 1e-3
    persist_excess: float = 0.02
    persist_excess_gripper: float = 0.25
    speed_slack: float = 0.1
    tracking_error_rad: float = 0.5
    command_period_s: float = 0.040
    command_period_min_s: float = 0.010
    command_period_max_s: float = 0.120

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value >= 0 or math.isinf(value):
                raise ValueError(f"GateConfig.{field.name} must be a finite number of at least 0, got {value}")

    def stale_limits_s(self, spec: RobotSpec, sensor: str) -> tuple[float, float]:
        """Ages of "joints", "base" or a camera at which motion is held, and at which it fails.

        Raises:
            SpecError: the robot has no such sensor.
        """
        rate_hz = spec.state_rate_hz if sensor in ("joints", "base") else spec.camera(sensor).rate_hz
        hold_s = max(self.hold_periods / rate_hz, self.hold_min_s)
        return hold_s, max(self.fail_periods / rate_hz, self.fail_min_s, hold_s)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one command.

    Attributes:
        accepted: it is the newest target now.
        reasons: what was wrong, by the names that `GateReport.counts` uses; empty when nothing was.
        sent: (A,) the action that the robot gets, in the command's own spec: clipped where limits cut it, and
            where nothing of it goes through (refused, holding, no lease) the position held (NaN before the first
            observation) and velocity zero. Progress and termination are as asked.
    """

    accepted: bool
    reasons: tuple[str, ...]
    sent: Array


@dataclass(frozen=True, slots=True)
class GateReport:
    """A snapshot of the gate.

    Attributes:
        counts: how often each thing happened: "position", "speed", "base" (clipped commands), "no_lease",
            "non_finite", "stopped", "fault", "late" (refused commands), "stale", "watchdog", "tracking",
            "read", "write" (events), "taken_over", "dead_release" (leases).
        stopped: the reason of the stop latch.
        holding: why the robot is held although somebody has a lease; a sentence.
        steps: control steps done.
        setpoint: the last that was sent.
        asked: the last command, before the filter.
    """

    counts: Mapping[str, int]
    stopped: str | None
    holding: str | None
    steps: int
    setpoint: Setpoint | None
    asked: Command | None
