"""The protocol of a robot, real or simulated."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from foundation.errors import BtruntimeError
from hal.types import Observation, RobotSpec, Setpoint


class RobotError(BtruntimeError):
    """A robot cannot be reached, does not answer, or refuses."""


@runtime_checkable
class Robot(Protocol):
    """One robot. `read` is called by the runtime's thread and by the motion gate's, `write` by the motion gate alone.

    Neither may block: `read` hands out the newest of what has arrived, `write` leaves the setpoint for whoever
    talks to the hardware. Both raise `RobotError` when the robot is gone.
    """

    spec: RobotSpec

    def start(self) -> None:
        """Connect and let sensors run. Must not move anything."""

    def read(self) -> Observation:
        """The newest of every sensor; never waits for one."""
        ...

    def write(self, setpoint: Setpoint) -> None:
        """Take a setpoint. For `hal.motion.MotionGate` only."""

    def close(self) -> None:
        """Disconnect, at rest. Idempotent."""
