"""Who runs a policy: the protocols, and the runner that does it in the caller's own process."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from foundation.errors import BtruntimeError
from policies.chunk import Chunk
from policies.spec import InputSpec, PolicyInput, check_input

# Sums of periods miss the times they are meant to meet by rounding.
_SLACK_S = 1e-9


class PolicyError(BtruntimeError):
    """A policy gave something that is no chunk of actions."""


class Policy(Protocol):
    """From one observation to a chunk of actions. Used by one thread; `predict` takes as long as it takes.

    One that is a `Reporting` too can tell what computes its chunks.
    """

    spec: InputSpec

    def predict(self, inputs: PolicyInput) -> NDArray[np.float32]:
        """(H, A) float32 actions in physical units, one per `1 / spec.data_frequency_hz` seconds."""
        ...

    def reset(self) -> None:
        """Forget what came before: another run begins."""


@runtime_checkable
class Reporting(Protocol):
    """A policy that tells of itself."""

    @property
    def report(self) -> str | None:
        """What computes the chunks, how fast and how exactly, in one line for people."""
        ...


def report_of(policy: Policy) -> str | None:
    """What a policy tells of itself; None from one that does not."""
    return policy.report if isinstance(policy, Reporting) else None


class PolicyRunner(Protocol):
    """Runs a policy beside a control loop. Called by the loop's thread; only `close` may block."""

    @property
    def spec(self) -> InputSpec:
        """What the policy sees and gives."""
        ...

    @property
    def ready(self) -> bool:
        """True once the policy is loaded."""
        ...

    @property
    def error(self) -> str | None:
        """Why there will be no more chunks; None while there is nothing wrong."""
        ...

    @property
    def report(self) -> str | None:
        """What the policy reports of itself once it is loaded; see `report_of`."""
        ...

    def offer(self, inputs: PolicyInput, now_s: float) -> bool:
        """Here is the newest observation. True when the policy was free and took it; else it is forgotten.

        Raises:
            PolicyInputError: the observation is not what the spec describes.
        """
        ...

    def poll(self, now_s: float) -> Chunk | None:
        """A chunk that was finished by `now_s`, each once; None if there is none."""
        ...

    def reset(self, *, speed: float | None = None) -> None:
        """Drop everything in flight: no chunk from before comes out afterwards. `speed` sets a new one."""

    def close(self) -> None:
        """Release everything. Idempotent."""


def checked_actions(actions: Any, spec: InputSpec) -> NDArray[np.float32]:
    """What a policy returned, as (H, A) float32.

    Raises:
        PolicyError: it has another shape than the spec says, or a value that is not finite.
    """
    array = np.asarray(actions, dtype=np.float32)
    if array.shape != (spec.chunk_size, spec.action_dim):
        raise PolicyError(f"the policy gave actions {array.shape}, expected ({spec.chunk_size}, {spec.action_dim}).")
    if not np.isfinite(array).all():
        step, dim = np.argwhere(~np.isfinite(array))[0]
        raise PolicyError(
            f"the policy gave {array[step, dim]} as action {dim} of step {step}, which is not finite: its weights are "
            f"damaged, or its training diverged. Activate another run, or train it again."
        )
    return array


def timed(actions: NDArray[np.float32], spec: InputSpec, *, origin_s: float, speed: float) -> Chunk:
    """The chunk that starts at the capture of what it was made from, at `speed` times the demonstrated speed."""
    return Chunk.regular(actions, origin_s=origin_s, period_s=1.0 / (spec.data_frequency_hz * speed))


def checked_speed(speed: float) -> float:
    """A speed that is a positive number.

    Raises:
        ValueError: it is not.
    """
    if not (np.isfinite(speed) and speed > 0):
        raise ValueError(f"speed is {speed}, expected a number above 0")
    return speed


class InlineRunner:
    """Runs the policy inside `offer`, for the virtual clock: deterministic, and as late as it is told to be.

    A `BtruntimeError` of the policy ends the runner, as it would end a policy process, and stands in `error`.

    Args:
        policy: used by this runner alone.
        latency_s: how long a forward pass is taken to last.
        speed: 1.0 plays the actions at the demonstrated speed.
    """

    def __init__(self, policy: Policy, *, latency_s: float = 0.0, speed: float = 1.0):
        self._policy = policy
        self._latency_s = latency_s
        self._speed = checked_speed(speed)
        self._in_flight: tuple[Chunk, float] | None = None
        self._error: str | None = None

    @property
    def spec(self) -> InputSpec:
        return self._policy.spec

    @property
    def ready(self) -> bool:
        return True

    @property
    def error(self) -> str | None:
        return self._error

    @property
    def report(self) -> str | None:
        return report_of(self._policy)

    def offer(self, inputs: PolicyInput, now_s: float) -> bool:
        """Run the policy on it, unless a chunk is in flight or the policy has failed.

        Raises:
            PolicyInputError: the observation is not what the spec describes.
        """
        if self._in_flight is not None or self._error is not None:
            return False
        check_input(self.spec, inputs)
        try:
            actions = checked_actions(self._policy.predict(inputs), self.spec)
        except BtruntimeError as error:
            self._error = str(error)
            return False
        chunk = timed(actions, self.spec, origin_s=inputs.oldest_capture_s, speed=self._speed)
        self._in_flight = chunk, now_s + self._latency_s
        return True

    def poll(self, now_s: float) -> Chunk | None:
        """The chunk in flight, once its latency has passed."""
        if self._in_flight is None or now_s < self._in_flight[1] - _SLACK_S:
            return None
        chunk, self._in_flight = self._in_flight[0], None
        return chunk

    def reset(self, *, speed: float | None = None) -> None:
        """See `PolicyRunner.reset`. An error stays: the policy will not get better."""
        if speed is not None:
            self._speed = checked_speed(speed)
        self._in_flight = None
        self._policy.reset()

    def close(self) -> None:
        """Nothing to release."""
        self._in_flight = None
