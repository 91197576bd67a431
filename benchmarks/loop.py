"""The 25 Hz loop, ours beside the usual ways to pace one, each on the simulated robot and for the same time.

| contender | what paces it | policy |
|---|---|---|
| `ours_idle` | `Runtime`, moving arm and base | none |
| `ours` | `Runtime`, a learned skill | full size, in its process, looking at every frame |
| `tick_tock` | `py_trees.trees.BehaviourTree.tick_tock`, the same skill | the same |
| `relative_sleep` | the rest of 40 ms since the tick began, the same skill | the same |

Robot, motion gate, tree and policy process are the same for all; each tick reads the robot, ticks the tree and takes a
snapshot of it. The robot is the reference one, simulated, whose cameras deliver 640x480 pictures at their rates, each
rendered once: a camera's driver does not draw triangles in the interpreter of the loop. `--robot sim:` renders them
all, which disturbs every loop here.

All figures come from the times at which ticks began, by one function. Lateness is against the grid of 40 ms that begins
with the first tick: a demonstration's timestamps feel the distance to that grid. `Runtime` says which point of the grid
a tick was for, so one that skipped a point is not late for ever (`skipped` counts them); a loop without deadlines has a
tick for each point. `jitter_ms_p99` is |period - median period|, `drift_ms` the lateness of the last tick.

`forward_cpu_ms` is what a forward pass costs, and `policy_busy` the share of the time that the policy process computes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from py_trees.behaviour import Behaviour
from py_trees.common import Status
from py_trees.trees import BehaviourTree

from btruntime.events import TickRecord, TreeSnapshot, snapshot
from btruntime.runtime import PolicyPool, Runtime
from hal.clock import MonotonicClock
from hal.connect import connect
from hal.motion import Resource
from hal.robot import Robot
from hal.sim.robot import SimRobot
from hal.sim.specs import reference_spec
from hal.types import ActionKind, CameraSpec, Command, Frame, Image, RobotSpec
from policies.act.loading import load_act_policy
from policies.chunk import Chunk
from policies.manifest import read_run
from policies.process import ProcessRunner
from skills.behaviours import Leaf
from skills.context import SkillContext
from skills.kinds import build
from skills.store import SkillStore

PERIOD_S = 0.04
COLUMNS = {
    "ticks": "{:d}",
    "period_ms_mean": "{:.4f}",
    "lateness_ms_p50": "{:.3f}",
    "lateness_ms_p99": "{:.3f}",
    "lateness_ms_max": "{:.3f}",
    "jitter_ms_p99": "{:.3f}",
    "drift_ms": "{:.3f}",
    "skipped": "{:d}",
    "forward_passes": "{:d}",
    "forward_cpu_ms": "{:.1f}",
    "policy_busy": "{:.0%}",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, metavar="S", help="for each contender (default: 60, quick: 7)")
    parser.add_argument("--robot", metavar="ADDRESS", help="another simulated robot, for example sim:")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    args = parser.parse_args()
    seconds = args.seconds or (7.0 if args.quick else 60.0)
    with tempfile.TemporaryDirectory(prefix="btruntime-loop-") as place:
        checkpoint = full_size_run(Path(place), robot_at(args.robot, MonotonicClock()).spec)
        write_skill(Path(place), "busy", checkpoint, duration=1e6)
        rows = measure(Path(place), args.robot, round(seconds / PERIOD_S))
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print(f"| | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, row in rows.items():
        shown = ["" if row[key] is None else form.format(row[key]) for key, form in COLUMNS.items()]
        print(f"| `{name}` | {' | '.join(shown)} |")
    if args.json:
        print(json.dumps(rows))
    return 0


class StillRobot(SimRobot):
    """The simulated robot with cameras that deliver the same picture again and again, newly captured."""

    def __init__(self, clock: MonotonicClock):
        self._pictures: dict[str, Image] = {}
        super().__init__(reference_spec(), clock)

    def capture(self, camera: CameraSpec) -> Frame:
        if camera.name not in self._pictures:
            self._pictures[camera.name] = super().capture(camera).rgb
        return Frame(self._pictures[camera.name], self._clock.now())


def robot_at(address: str | None, clock: MonotonicClock) -> Robot:
    """The robot of an address; without one, the reference robot with still pictures."""
    return StillRobot(clock) if address is None else connect(address, clock)


def measure(skills_dir: Path, robot: str | None, ticks: int) -> dict[str, dict[str, Any]]:
    """The figures of all contenders, one after the other."""
    runners: list[CountingRunner] = []

    def make(checkpoint: Path) -> CountingRunner:
        runners.append(CountingRunner.of(checkpoint))
        return runners[-1]

    pool = PolicyPool(make)
    entry = SkillStore(skills_dir).get("local/busy")
    checkpoint = next(entry.path.glob("run_1/*.pth"))
    try:
        rows = {"ours_idle": contend(robot, pool, Sway, runtime_loop, ticks)}
        policy = pool.get(checkpoint)
        while not policy.ready:
            if policy.error is not None:
                raise SystemExit(policy.error)
            time.sleep(0.01)
        for name, loop in (("ours", runtime_loop), ("tick_tock", tick_tock), ("relative_sleep", relative_sleep)):
            rows[name] = contend(robot, pool, partial(build, entry), loop, ticks, runners[-1])
    finally:
        pool.close()
    return rows


@dataclass
class Ticks:
    """When ticks began, and which point of the grid each was for."""

    starts_s: list[float] = field(default_factory=list)
    points: list[int] = field(default_factory=list)

    def add(self, start_s: float, point: int | None = None) -> None:
        """One tick; for the point after the last if it does not say."""
        self.starts_s.append(start_s)
        self.points.append(point if point is not None else len(self.points))


Loop = Callable[[Runtime, Behaviour, int], Ticks]


def contend(
    robot: str | None,
    pool: PolicyPool,
    make_root: Callable[[Any], Behaviour],
    loop: Loop,
    ticks: int,
    policy: CountingRunner | None = None,
) -> dict[str, Any]:
    """One contender on a fresh robot; the policy, if there is one, is loaded."""
    clock = MonotonicClock()
    with Runtime(robot_at(robot, clock), clock, pool) as runtime:
        root = make_root(runtime.context)
        passes, cpu_s = (0, 0.0) if policy is None else (policy.forward_passes, cpu_time_s(policy.pid))
        ran = loop(runtime, root, ticks)
        if policy is None:
            work: dict[str, Any] = {"forward_passes": 0, "forward_cpu_ms": None, "policy_busy": None}
        else:
            passes, cpu_s = policy.forward_passes - passes, cpu_time_s(policy.pid) - cpu_s
            work = {
                "forward_passes": passes,
                "forward_cpu_ms": cpu_s / passes * 1e3 if passes else None,
                "policy_busy": cpu_s / (ran.starts_s[-1] - ran.starts_s[0]),
            }
    return {**timing(ran.starts_s, ran.points, PERIOD_S), **work}


def timing(starts_s: Sequence[float], points: Sequence[int], period_s: float) -> dict[str, Any]:
    """The figures of a series of ticks.

    Args:
        starts_s: (N,) when they began, N at least 2.
        points: (N,) which point of the grid each was for, from 0; increasing.
        period_s: of the grid, which begins with the first tick.
    """
    starts, grid = np.asarray(starts_s, dtype=np.float64), np.asarray(points)
    periods_ms = np.diff(starts) * 1e3
    lateness_ms = (starts - starts[0] - grid * period_s) * 1e3
    return {
        "ticks": len(starts),
        "period_ms_mean": float(periods_ms.mean()),
        "lateness_ms_p50": float(np.percentile(lateness_ms, 50)),
        "lateness_ms_p99": float(np.percentile(lateness_ms, 99)),
        "lateness_ms_max": float(lateness_ms.max()),
        "jitter_ms_p99": float(np.percentile(np.abs(periods_ms - np.median(periods_ms)), 99)),
        "drift_ms": float(lateness_ms[-1]),
        "skipped": int(grid[-1]) + 1 - len(grid),
    }


# The loops


def runtime_loop(runtime: Runtime, root: Behaviour, ticks: int) -> Ticks:
    """Ours."""
    ran = Ticks()

    def watch(record: TickRecord) -> None:
        first_s = ran.starts_s[0] if ran.starts_s else record.time_s
        ran.add(record.time_s, round((record.time_s - record.lateness_s - first_s) / PERIOD_S))
        if len(ran.starts_s) == ticks:
            runtime.stop("measured.")

    result = runtime.run(root, [watch])
    if result.reason != "measured.":
        raise SystemExit(f"the run ended after {result.ticks} of {ticks} ticks: {result.reason}")
    return ran


def tick_tock(runtime: Runtime, root: Behaviour, ticks: int) -> Ticks:
    """py_trees' own."""
    ran, looked = Ticks(), Looked(root)

    def before(_: BehaviourTree) -> None:
        ran.add(time.monotonic())
        runtime.context.begin_tick(runtime.robot.read())

    tree = BehaviourTree(root)
    tree.tick_tock(round(PERIOD_S * 1e3), ticks, pre_tick_handler=before, post_tick_handler=lambda _: looked.again())
    end(root)
    return ran


def relative_sleep(runtime: Runtime, root: Behaviour, ticks: int) -> Ticks:
    """What most loops on robots do."""
    ran, looked = Ticks(), Looked(root)
    for _ in range(ticks):
        began_s = time.monotonic()
        ran.add(began_s)
        runtime.context.begin_tick(runtime.robot.read())
        root.tick_once()
        looked.again()
        time.sleep(max(0.0, PERIOD_S - (time.monotonic() - began_s)))
    end(root)
    return ran


class Looked:
    """The snapshot after each tick, as our runtime takes it."""

    def __init__(self, root: Behaviour):
        self._root = root
        self._tree: TreeSnapshot | None = None
        self._ticks = 0

    def again(self) -> None:
        """After a tick."""
        self._ticks += 1
        self._tree = snapshot(self._root, self._ticks, time.monotonic(), self._tree)


def end(root: Behaviour) -> None:
    """Stop the nodes; none may have ended by itself, or less was measured than is said."""
    if root.status != Status.RUNNING:
        tip = root.tip() or root
        raise SystemExit(f"the tree ended before its time: {tip.feedback_message or tip.name}")
    root.stop(Status.INVALID)


class Sway(Leaf):
    """Swings the first joint and drives in a circle, without a policy."""

    def __init__(self, ctx: SkillContext):
        super().__init__("sway", ctx)

    def begin(self) -> None:
        self._spec = self.ctx.spec.action_spec(base=True, progress=False)
        self._from = self.ctx.observation.qpos.copy()
        self._began_s = self.ctx.clock.now()
        self._sway_lease = self.take(Resource)

    def advance(self) -> Status:
        if (fault := self.gate_fault()) is not None:
            raise SystemExit(fault)
        now_s = self.ctx.clock.now()
        qpos = self._from.copy()
        qpos[0] += 0.3 * math.sin(now_s - self._began_s)
        self.ctx.submit(self._sway_lease, Command(self._spec, np.array([*qpos, 0.1, 0.4]), now_s))
        return Status.RUNNING


# The policy


class CountingRunner(ProcessRunner):
    """A policy process that counts its chunks."""

    forward_passes = 0

    @classmethod
    def of(cls, checkpoint: Path) -> CountingRunner:
        """That of a checkpoint file, as a run starts it."""
        return cls(partial(load_act_policy, checkpoint, "cpu"), read_run(checkpoint.parent).input_spec)

    def poll(self, now_s: float) -> Chunk | None:
        chunk = super().poll(now_s)
        self.forward_passes += chunk is not None
        return chunk


def cpu_time_s(pid: int) -> float:
    """Processor time of all threads of a process so far, from Linux's /proc."""
    # The second field is the program's name in brackets, which may hold spaces.
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def write_skill(skills_dir: Path, name: str, checkpoint: Path | None = None, **execution: object) -> None:
    """A learned skill with its own link to the files of a run, or a poses skill without one."""
    directory = skills_dir / name
    directory.mkdir()
    if checkpoint is not None:
        (directory / "run_1").mkdir()
        for file in checkpoint.parent.iterdir():
            os.link(file, directory / "run_1" / file.name)
        execution = {"checkpoint": f"run_1/{checkpoint.name}", **execution}
    kind = "poses" if checkpoint is None else "learned"
    document = {"name": name, "type": kind, "inputs": {}, "execution": execution}
    (directory / "metadata.json").write_text(json.dumps(document))


def full_size_run(directory: Path, robot: RobotSpec) -> Path:
    """The checkpoint of a policy as the default preset builds it, with random weights, that circles on the spot.

    It is made in another process, so that this one has no torch in it, as a run has none.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere:
        return elsewhere.submit(_write_run, directory, robot.model_dump_json()).result()


def _write_run(directory: Path, robot_json: str) -> Path:
    import torch

    from btruntime.training.trainer.config import make_config
    from policies.act.model import ACTNetwork
    from policies.checkpoint import save
    from policies.normalize import MeanStd, Statistics
    from policies.spec import CameraInput, InputSpec

    robot, config = RobotSpec.model_validate_json(robot_json), make_config()
    action = robot.action_spec(base=True, progress=True)
    spec = InputSpec(
        cameras=tuple(
            CameraInput(name=name, height=config.image_height, width=config.image_width) for name in robot.camera_names
        ),
        joint_names=robot.joint_names,
        action=tuple(dim.model_dump(mode="json") for dim in action.dims),
        # A chunk lasts 3 s, so that the policy does not starve where other work slows its forward passes down.
        data_frequency_hz=config.chunk_size / 3.0,
        chunk_size=config.chunk_size,
        robot=robot.name,
    )
    low, high = robot.position_limits
    middle = ((low + high) / 2).astype(np.float32)
    wanted = {ActionKind.BASE_VELOCITY: 0.2, ActionKind.PROGRESS: 0.3, ActionKind.TERMINATION: 0.0}
    mean = np.array([*middle, *(wanted[dim.kind] for dim in action.dims[len(middle) :])], np.float32)
    image = MeanStd(np.full((3, 1, 1), 0.4, np.float32), np.full((3, 1, 1), 0.2, np.float32))
    statistics = Statistics(
        state=MeanStd(middle, np.full_like(middle, 0.5)),
        action=MeanStd(mean, np.full_like(mean, 0.02)),
        images=dict.fromkeys(robot.camera_names, image),
    )
    torch.manual_seed(0)
    network = ACTNetwork(config.network(spec), statistics)
    run = directory / ".run"
    run.mkdir()
    return save(run, 1, network.state_dict(), statistics, spec, network.config)


if __name__ == "__main__":
    sys.exit(main())
