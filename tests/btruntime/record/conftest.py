"""A recorder on a simulated robot with small cameras, on the virtual clock; files are real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from btruntime.record.config import RecorderConfig
from btruntime.record.recorder import Recorder
from hal.clock import VirtualClock
from hal.motion import MotionGate
from hal.sim.faults import Fault
from hal.sim.robot import REST_POSE, SimRobot
from hal.sim.scene import Look, SceneSpec
from hal.sim.specs import reference_spec
from hal.teleop.leader import LeaderSample
from hal.types import Array, GripperSpec, Observation

HZ = 20.0
SPEC = reference_spec(width=16, height=12, main_hz=10.0, wrist_hz=20.0)


class Hand:
    """A person's leader arm: says what `plan` says, until `silent_at_s` or for ever, and counts its closings."""

    def __init__(
        self,
        plan: Callable[[float], Array] | None = None,
        base: tuple[float, float] | None = (0.1, 0.2),
        grippers: Callable[[float], Array] | None = None,
    ):
        self.grippers = grippers
        self.plan = plan or (lambda t: np.array(REST_POSE) + 0.1 * np.sin(t))
        self.base = None if base is None else np.array(base)
        self.silent = self.stuck = False
        self.finished = False
        self.closed = 0
        self._last: LeaderSample | None = None
        self._began_s = 0.0

    def start(self, observation: Observation, now_s: float) -> None:
        self._began_s = now_s

    def read(self, now_s: float) -> LeaderSample | None:
        if self.silent:
            return None
        if self.stuck and self._last is not None:
            return self._last
        elapsed_s = now_s - self._began_s
        fractions = None if self.grippers is None else self.grippers(elapsed_s)
        self._last = LeaderSample(self.plan(elapsed_s), self.base, now_s, fractions)
        return self._last

    def close(self) -> None:
        self.closed += 1


class Studio:
    def __init__(
        self,
        data_dir: Path,
        *,
        faults: tuple[str, ...] = (),
        settle_s: float = 0.3,
        grippers: tuple[GripperSpec, ...] = (),
        **config: object,
    ):
        self.clock = VirtualClock()
        self.robot = SimRobot(
            SPEC.model_copy(update={"grippers": grippers}), self.clock, scene=SceneSpec(look=Look(noise=0.0))
        )
        for fault in faults:
            self.inject(fault)
        self.gate = MotionGate(self.robot, self.clock)
        self.robot.start()
        self.gate.start()
        self.clock.sleep_until(settle_s)
        self.config = RecorderConfig.model_validate({"data_frequency": HZ, **config})
        self.recorder = Recorder(self.robot, self.clock, self.gate, data_dir, self.config, software="test 1")

    def inject(self, fault: str) -> None:
        self.robot.inject(Fault.parse(fault))

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.recorder.step()
            self.clock.sleep_until(self.clock.now() + 1 / HZ)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def make_studio(data_dir: Path) -> Callable[..., Studio]:
    return lambda **settings: Studio(data_dir, **settings)


@pytest.fixture
def make_hand() -> type[Hand]:
    return Hand
