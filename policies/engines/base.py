"""What an engine is, and how one proves itself: it computes what the network computes, within a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.errors import BtruntimeError
from policies.checkpoint import Checkpoint
from policies.spec import Image

Precision = Literal["float32", "half", "int8"]

BOUNDS: dict[Precision, float] = {"float32": 1e-3, "half": 0.02, "int8": 0.05}
"""Largest error of an action against the network in float32, in deviations of the training data."""


class EngineError(BtruntimeError):
    """An engine that was asked for is unknown, or cannot run this policy on this machine."""


class Engine(Protocol):
    """A forward pass from bytes to actions. Used by one thread.

    Attributes:
        name: short, for `--engine`.
        description: what computes, for people.
    """

    name: str
    description: str

    def __call__(self, state: NDArray[np.float32], frames: Sequence[Image]) -> NDArray[np.float32]:
        """The chunk (C, A) float32 in physical units.

        Args:
            state: (S,) float32, in physical units.
            frames: per camera of the spec (H, W, 3) uint8 RGB, of the size that the spec says.
        """
        ...

    def close(self) -> None:
        """Release what it holds. Idempotent."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that may be chosen.

    Attributes:
        name: of the engine.
        precision: what bounds its error.
        build: makes it; whatever it raises is the reason why it cannot be used.
        slow: it takes many seconds to build, so that it is built only where it is asked for by name.
        instead_of: it is tried only where none of these engines can be used.
    """

    name: str
    precision: Precision
    build: Callable[[Checkpoint], Engine]
    slow: bool = False
    instead_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """How a candidate did.

    Attributes:
        name: of the engine.
        latency_ms: median of a few passes; None if it was not timed.
        max_error: in deviations of the training data; None if it was not compared.
        refused: why it cannot be chosen; None if it can.
    """

    name: str
    latency_ms: float | None = None
    max_error: float | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class EngineReport:
    """Which engine runs a policy, and why.

    Attributes:
        chosen: name of the engine.
        description: of the engine.
        latency_ms: median of a few passes when it was chosen; None if it was not timed.
        max_error: against the network in float32, in deviations of the training data; None if not compared.
        trials: all that were tried, in order.
    """

    chosen: str
    description: str
    latency_ms: float | None
    max_error: float | None
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        """One line, such as "packed bfloat16, 34 ms, error 0.006", with those that were refused after it."""
        parts = [self.description]
        if self.latency_ms is not None:
            parts.append(f"{self.latency_ms:.0f} ms")
        if self.max_error is not None:
            parts.append(f"error {self.max_error:.2g}")
        refused = [f"{trial.name}: {trial.refused}" for trial in self.trials if trial.refused is not None]
        return ", ".join(parts) + (f"; refused {'; '.join(refused)}" if refused else "")
