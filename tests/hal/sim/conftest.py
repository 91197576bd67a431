"""A simulated robot behind a motion gate on a virtual clock, with cameras small enough to cost nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hal.clock import VirtualClock
from hal.motion import Lease, MotionGate, Resource
from hal.sim.faults import Fault
from hal.sim.robot import SimRobot
from hal.sim.scene import SceneSpec
from hal.sim.specs import reference_spec
from hal.types import Array, Command, Observation

SPEC = reference_spec(width=16, height=12, main_hz=10.0, wrist_hz=20.0)


class Bench:
    def __init__(
        self, *, seed: int = 0, scene: SceneSpec | None = None, faults: tuple[str, ...] = (), delay_s: float = 0.01
    ):
        self.clock = VirtualClock()
        self.robot = SimRobot(SPEC, self.clock, seed=seed, scene=scene, camera_delay_s=delay_s)
        for fault in faults:
            self.robot.inject(Fault.parse(fault))
        self.gate = MotionGate(self.robot, self.clock)
        self.robot.start()
        self.gate.start()

    def inject(self, fault: str) -> None:
        self.robot.inject(Fault.parse(fault))

    def sleep(self, seconds: float) -> Observation:
        self.clock.sleep_until(self.clock.now() + seconds)
        return self.robot.read()

    def age_s(self, sensor: str) -> float:
        return self.robot.read().age_s(sensor, self.clock.now())

    def lease(self) -> Lease:
        return self.gate.acquire("test", [Resource.ARM, Resource.BASE])

    def stream(self, lease: Lease, action: Array | Callable[[float], Array], seconds: float) -> None:
        """Commands of six joints and the base at 25 Hz."""
        spec = SPEC.action_spec(base=True, progress=False)
        for tick in range(round(seconds / 0.04)):
            asked = action(tick * 0.04) if callable(action) else action
            self.gate.submit(lease, Command(spec, np.asarray(asked, float), self.clock.now()))
            self.sleep(0.04)


@pytest.fixture(scope="session")
def make_bench() -> type[Bench]:
    return Bench
