"""What a running skill may ask for. The runtime implements it; leaves hold it and touch it only once they run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

from foundation.errors import BtruntimeError
from hal.clock import Clock
from hal.motion import MotionGate, Submitted
from hal.motion.lease import Lease
from hal.types import Command, Observation, RobotSpec
from policies.runner import PolicyRunner

T = TypeVar("T")


class SkillContext(Protocol):
    """One robot, as a running tree sees it. Used on the runtime's thread only; nothing here blocks."""

    clock: Clock
    spec: RobotSpec
    gate: MotionGate

    @property
    def observation(self) -> Observation:
        """The snapshot of this tick."""
        ...

    def policy(self, checkpoint: Path) -> Future[PolicyRunner]:
        """The policy of a checkpoint file, loading or loaded; the same one for the same file."""
        ...

    def in_background(self, work: Callable[[], T]) -> Future[T]:
        """Do what may block (reading files) off this thread."""
        ...

    def submit(self, lease: Lease, command: Command) -> Submitted:
        """Ask the motion gate for a motion, and let the flight record know."""
        ...


class DrawnOnlyError(BtruntimeError):
    """A tree that was built to be drawn is ticked."""


class DrawingContext:
    """Stands in for a context when a tree is only drawn; a node that reaches for the robot gets an error."""

    def __getattr__(self, name: str) -> Any:
        raise DrawnOnlyError(f"this tree was built to be drawn: it has no {name} and cannot be ticked")
