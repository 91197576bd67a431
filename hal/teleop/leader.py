"""A leader: whoever says where the robot should go while an episode is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hal.types import Array, Observation


@dataclass(frozen=True, slots=True)
class LeaderSample:
    """What the leader asks for.

    Attributes:
        qpos: (J,) joint positions.
        base_velocity: (2,) linear x, angular z; None from a leader that drives no base.
        stamp_s: when it was said.
        grippers: (G,) fractions (0 closed, 1 open) of the grippers that are not joints; None from a leader of a
            robot without such grippers.
    """

    qpos: Array
    base_velocity: Array | None
    stamp_s: float
    grippers: Array | None = None


class Leader(Protocol):
    """A leader arm, a keyboard, a script. Called by the recorder's loop; must not block."""

    def start(self, observation: Observation, now_s: float) -> None:
        """Begin, from where the robot is now."""

    def read(self, now_s: float) -> LeaderSample | None:
        """The newest command, or None when there is none yet."""
        ...

    @property
    def finished(self) -> bool:
        """True when the leader has nothing more to show; a person's never is."""
        ...

    def close(self) -> None:
        """Let go of the device. Idempotent."""
