"""A small simulated robot behind the real motion gate on the virtual clock, fake policies, skills on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from py_trees.behaviour import Behaviour
from py_trees.common import Status

from foundation.files import sha256_of
from hal.clock import Rate, VirtualClock
from hal.motion import Lease, MotionGate, Submitted
from hal.sim.faults import Fault
from hal.sim.robot import SimRobot
from hal.sim.specs import reference_spec
from hal.types import Command, Observation, RobotSpec, Setpoint
from policies.manifest import FileEntry, RunManifest, checkpoint_name, write_run
from policies.runner import InlineRunner, PolicyRunner
from policies.spec import CameraInput, InputSpec, PolicyInput
from skills.store import SkillEntry, SkillStore

TICK_S = 0.04
HZ = 25.0
CAMERAS = ("main_camera", "arm_camera")


def small_spec(*, cameras_hz: float = 30.0) -> RobotSpec:
    return reference_spec(name="bench", width=8, height=6, main_hz=cameras_hz, wrist_hz=cameras_hz)


class SpiedRobot(SimRobot):
    """Keeps every setpoint. A joint in `blocked` stays where it is, whatever it is sent."""

    def __init__(self, spec: RobotSpec, clock: VirtualClock):
        super().__init__(spec, clock)
        self.written: list[Setpoint] = []
        self.blocked: dict[int, float] = {}
        self.closed = 0

    def write(self, setpoint: Setpoint) -> None:
        self.written.append(setpoint)
        qpos = setpoint.qpos.copy()
        for joint, angle in self.blocked.items():
            qpos[joint] = angle
        super().write(Setpoint(qpos, setpoint.base_velocity, setpoint.stamp_s))

    def close(self) -> None:
        self.closed += 1
        super().close()

    def block(self, joint: int) -> None:
        self.blocked[joint] = float(self.read().qpos[joint])

    def sent(self, since_s: float, until_s: float = np.inf) -> list[Setpoint]:
        return [s for s in self.written if since_s - 1e-9 <= s.stamp_s <= until_s + 1e-9]

    def bases(self, since_s: float, until_s: float = np.inf) -> np.ndarray:
        """(N, 2) commanded base velocities."""
        return np.array([s.base_velocity for s in self.sent(since_s, until_s)])

    def arms(self, since_s: float, until_s: float = np.inf) -> np.ndarray:
        """(N, 6) commanded joint positions."""
        return np.array([s.qpos for s in self.sent(since_s, until_s)])


class Bench:
    """A `SkillContext` that ticks a tree itself, so that leaves can be looked at between two ticks."""

    def __init__(self, *, spec: RobotSpec | None = None, faults: Sequence[str] = (), settle_s: float = 0.2):
        self.clock = VirtualClock()
        self.spec = spec or small_spec()
        self.robot = SpiedRobot(self.spec, self.clock)
        self.gate = MotionGate(self.robot, self.clock)
        for fault in faults:
            self.robot.inject(Fault.parse(fault))
        self.robot.start()
        self.gate.start()
        self.clock.sleep_until(settle_s)
        self.observation: Observation = self.robot.read()
        self.asked: list[Command] = []
        self.policies: Callable[[Path], Future[PolicyRunner]] = lambda path: done(None)
        self.background: Callable[[Callable[[], Any]], Future[Any]] = at_once
        self.rate = Rate(self.clock, TICK_S)

    def policy(self, checkpoint: Path) -> Future[PolicyRunner]:
        return self.policies(checkpoint)

    def in_background(self, work: Callable[[], Any]) -> Future[Any]:
        return self.background(work)

    def submit(self, lease: Lease, command: Command) -> Submitted:
        self.asked.append(command)
        return self.gate.submit(lease, command)

    def inject(self, fault: str) -> None:
        self.robot.inject(Fault.parse(fault))

    def tick(self, root: Behaviour) -> Status:
        """One tick now, then sleep to the next."""
        self.observation = self.robot.read()
        root.tick_once()
        status = root.status
        self.rate.wait()
        return status

    def run(self, root: Behaviour, limit_s: float = 20.0) -> float:
        """Tick until it ends, or for so long; returns the seconds from the first tick to the last."""
        began_s = self.clock.now()
        while True:
            now_s = self.clock.now()
            if self.tick(root) != Status.RUNNING or now_s - began_s >= limit_s - 1e-9:
                return now_s - began_s


def done(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def at_once(work: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001 - as an executor
        future.set_exception(error)
    return future


def input_spec(
    robot: RobotSpec,
    *,
    base: bool = True,
    progress: bool = False,
    chunk_size: int = 20,
    hz: float = HZ,
    cameras: Sequence[str] = CAMERAS,
    **changes: Any,
) -> InputSpec:
    action = robot.action_spec(base=base, progress=progress)
    return InputSpec(
        cameras=tuple(CameraInput(name=name, height=6, width=8) for name in cameras),
        joint_names=robot.joint_names,
        action=tuple(dim.model_dump(mode="json") for dim in action.dims),
        data_frequency_hz=hz,
        chunk_size=chunk_size,
        robot=robot.name,
    ).model_copy(update=changes)


class FakePolicy:
    """Row k of a chunk is `act(inputs, seconds after the capture that row is meant for, in the demonstration)`."""

    def __init__(self, spec: InputSpec, act: Callable[[PolicyInput, float], Sequence[float]]):
        self.spec, self._act = spec, act
        self.seen: list[PolicyInput] = []
        self.resets = 0

    def predict(self, inputs: PolicyInput) -> np.ndarray:
        self.seen.append(inputs)
        rows = [self._act(inputs, k / self.spec.data_frequency_hz) for k in range(self.spec.chunk_size)]
        return np.array(rows, dtype=np.float32)

    def reset(self) -> None:
        self.resets += 1


def holding(
    inputs: PolicyInput, *, base: tuple[float, float] = (0.0, 0.0), progress: float | None = None
) -> list[float]:
    """Joints as they are, and the base as it is told."""
    tail = [] if progress is None else [progress, 0.0]
    return [*(float(q) for q in inputs.state), *base, *tail]


def inline(policy: FakePolicy, **options: Any) -> InlineRunner:
    return InlineRunner(policy, **options)


# Skills on disk


def write_skill(root: Path, name: str, document: dict[str, Any]) -> SkillEntry:
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "metadata.json").write_text(json.dumps({"name": name, "inputs": {}, **document}))
    return SkillStore(root, root / "no-builtins").get(f"local/{name}")


def write_learned(root: Path, name: str, spec: InputSpec, **execution: Any) -> SkillEntry:
    """A learned skill with a run whose checkpoint is no network."""
    run = root / name / "run_1"
    run.mkdir(parents=True, exist_ok=True)
    for file in (checkpoint_name(2), "dataset_stats.pt"):
        (run / file).write_bytes(file.encode() * 3)
    files = {
        p.name: FileEntry(sha256=sha256_of(p), size=p.stat().st_size) for p in run.iterdir() if p.suffix != ".json"
    }
    write_run(run, RunManifest(input_spec=spec, config={}, files=files))
    found = {"checkpoint": f"run_1/{checkpoint_name(2)}", **execution}
    return write_skill(root, name, {"type": "learned", "execution": found})
