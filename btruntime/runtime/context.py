"""What the runtime lets a running skill do (`skills.context.SkillContext`)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TypeVar

from btruntime.runtime.pool import PolicyPool
from hal.clock import Clock
from hal.motion import MotionGate, Submitted
from hal.motion.lease import Lease
from hal.types import Command, Observation, RobotSpec
from policies.runner import PolicyRunner

T = TypeVar("T")


class RobotContext:
    """The runtime's side of a skill context. Its thread sets `observation` before each tick.

    Attributes:
        asked: what was asked for in this tick, by the names of the action dimensions, for the flight record.
    """

    def __init__(self, spec: RobotSpec, clock: Clock, gate: MotionGate, pool: PolicyPool, executor: Executor | None):
        self.spec, self.clock, self.gate = spec, clock, gate
        self.asked: dict[str, float] = {}
        self._pool, self._executor = pool, executor
        self._observation: Observation | None = None

    @property
    def observation(self) -> Observation:
        """The snapshot of this tick."""
        assert self._observation is not None, "no tick has begun"
        return self._observation

    def begin_tick(self, observation: Observation) -> None:
        """A new tick begins with this snapshot."""
        self._observation, self.asked = observation, {}

    def policy(self, checkpoint: Path) -> Future[PolicyRunner]:
        """The policy of a checkpoint file; starting it happens off this thread."""
        return self.in_background(lambda: self._pool.get(checkpoint))

    def in_background(self, work: Callable[[], T]) -> Future[T]:
        """Do what may block on another thread; at once, on this one, where the clock is virtual."""
        if self._executor is not None:
            return self._executor.submit(work)
        done: Future[T] = Future()
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - handed over, as an executor does
            done.set_exception(error)
        return done

    def submit(self, lease: Lease, command: Command) -> Submitted:
        """Ask the motion gate, and remember what was asked."""
        submitted = self.gate.submit(lease, command)
        self.asked.update(zip(command.spec.names, command.action.tolist(), strict=True))
        return submitted
