"""A robot with ideal joints behind a motion gate on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hal.clock import VirtualClock
from hal.motion import GateConfig, Lease, MotionGate, Resource, Submitted
from hal.robot import RobotError
from hal.types import (
    ActionSpec,
    BaseSpec,
    CameraSpec,
    Command,
    Frame,
    GripperSpec,
    JointSpec,
    Observation,
    RobotSpec,
    Setpoint,
)

PERIOD_S = 0.005
TICK_S = 0.040
RGB = np.zeros((2, 2, 3), np.uint8)


def robot_spec(*, base: bool = True) -> RobotSpec:
    return RobotSpec(
        name="bench",
        joints=(
            JointSpec(name="shoulder", low=-1.0, high=2.0, max_speed=2.0, max_acceleration=10.0),
            JointSpec(name="slide", low=0.0, high=0.3, max_speed=0.2, max_acceleration=0.7),
            JointSpec(name="hand", low=-0.35, high=0.85, max_speed=3.0, max_acceleration=30.0, gripper=True),
        ),
        cameras=(
            CameraSpec(name="front", width=2, height=2, rate_hz=15),
            CameraSpec(name="wrist", width=2, height=2, rate_hz=50),
        ),
        base=BaseSpec(max_linear_mps=0.4, max_angular_radps=2.0, max_linear_mps2=1.0, max_angular_radps2=5.0)
        if base
        else None,
        control_rate_hz=1 / PERIOD_S,
        state_rate_hz=200,
    )


class BenchRobot:
    """Joints are where they were sent; sensors are fresh until they are frozen."""

    def __init__(self, clock: VirtualClock, spec: RobotSpec, qpos: Sequence[float] = (0.2, 0.1, 0.0)):
        self.spec, self.clock = spec, clock
        self.qpos = np.array(qpos, dtype=float)
        self.frozen: dict[str, float] = {}
        self.follows = True
        self.read_error: Exception | None = None
        self.write_error: Exception | None = None
        self.written: list[Setpoint] = []

    def start(self) -> None: ...

    def close(self) -> None: ...

    def freeze(self, sensor: str) -> None:
        self.frozen[sensor] = self.clock.now()

    def read(self) -> Observation:
        if self.read_error:
            raise self.read_error
        now = self.clock.now()
        measured = {name: self.frozen.get(name, now) for name in ("joints", "base", *self.spec.camera_names)}
        images = {n: Frame(RGB, measured[n]) for n in self.spec.camera_names if np.isfinite(measured[n])}
        qpos = self.qpos.copy()
        return Observation(now, qpos, np.zeros_like(qpos), measured["joints"], images, base_s=measured["base"])

    def write(self, setpoint: Setpoint) -> None:
        if self.write_error:
            raise self.write_error
        self.written.append(setpoint)
        if self.follows:
            self.qpos = setpoint.qpos.copy()


class Bench:
    def __init__(
        self,
        *,
        base: bool = True,
        config: GateConfig | None = None,
        qpos: Sequence[float] = (0.2, 0.1, 0.0),
        grippers: Sequence[GripperSpec] = (),
    ):
        self.clock = VirtualClock()
        self.spec = robot_spec(base=base).model_copy(update={"grippers": tuple(grippers)})
        self.robot = BenchRobot(self.clock, self.spec, qpos)
        self.gate = MotionGate(self.robot, self.clock, config)
        self.action_spec = self.spec.action_spec(base=base, progress=True)
        self.gate.start()

    def lease(self, *resources: Resource, owner: str = "test", sensors: Sequence[str] = ("joints",)) -> Lease:
        return self.gate.acquire(owner, resources or (Resource.ARM, Resource.BASE), sensors)

    def submit(self, lease: Lease, action: Sequence[float], spec: ActionSpec | None = None) -> Submitted:
        return self.gate.submit(lease, Command(spec or self.action_spec, np.array(action, float), self.clock.now()))

    def sleep(self, seconds: float) -> None:
        self.clock.sleep_until(self.clock.now() + seconds)

    def stream(self, lease: Lease, action: Sequence[float] | Callable[[float], Sequence[float]], seconds: float,
               spec: ActionSpec | None = None) -> list[Submitted]:  # fmt: skip
        """Commands at 25 Hz; a callable is given the time since the first."""
        ticks = range(round(seconds / TICK_S))
        results = []
        for k in ticks:
            results.append(self.submit(lease, action(k * TICK_S) if callable(action) else action, spec))
            self.sleep(TICK_S)
        return results

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.gate.report().counts)

    @property
    def last(self) -> Setpoint:
        return self.robot.written[-1]

    def assert_lawful(self) -> None:
        """Every setpoint written so far: finite, within limits, and so are the speeds and accelerations between.

        A gripper's fraction is NaN until it is known, and never again.
        """
        qpos = np.array([setpoint.qpos for setpoint in self.robot.written])
        if not len(qpos):
            return
        low, high = self.spec.position_limits
        assert np.isfinite(qpos).all()
        assert (qpos >= low).all()
        assert (qpos <= high).all()
        speed = np.diff(qpos, axis=0, prepend=qpos[:1]) / PERIOD_S
        assert (np.abs(speed) <= self.spec.speed_limits + 1e-9).all()
        gain = np.abs(np.diff(speed, axis=0))
        assert (gain <= self.spec.acceleration_limits * PERIOD_S + 1e-9).all()
        if self.spec.grippers:
            fractions = np.array([setpoint.grippers for setpoint in self.robot.written])
            known = np.isfinite(fractions)
            assert (known[1:] | ~known[:-1]).all()
            assert ((fractions[known] >= 0) & (fractions[known] <= 1)).all()
            moved = np.nan_to_num(np.abs(np.diff(fractions, axis=0)))  # from NaN it may go anywhere
            assert (moved <= self.spec.gripper_rates * PERIOD_S + 1e-9).all()
        if self.spec.base is not None:
            base = np.array([setpoint.base_velocity for setpoint in self.robot.written])
            top = np.array([self.spec.base.max_linear_mps, self.spec.base.max_angular_radps])
            rise = np.array([self.spec.base.max_linear_mps2, self.spec.base.max_angular_radps2]) * PERIOD_S
            assert (np.abs(base) <= top).all()
            stands = (base[1:] == 0).all(axis=1, keepdims=True)
            assert (stands | (np.abs(np.diff(base, axis=0)) <= rise + 1e-9)).all()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def make_bench() -> type[Bench]:
    return Bench


@pytest.fixture
def silent() -> RobotError:
    return RobotError("no answer on the bus")


@pytest.fixture(scope="session")
def make_bench_once() -> type[Bench]:
    """For property-based tests, which make a bench per example."""
    return Bench
