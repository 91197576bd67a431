"""How long after a stop the base is told to stand, in every state of a run, on the real clock.

Real threads, the simulated robot, a full-size policy in its process. In each state the base moves: the policy or the
replay drives it, and elsewhere a leaf beside the skill does. Some ticks later, at a random moment, another thread calls
`Runtime.stop`; `policy_sigint` sends SIGINT to a `btruntime run` of the same skill instead.

`latency_ms` is from just before the call (or the signal) until the robot has taken the first setpoint with a base
velocity of zero, `arm_still_ms` until it has taken the last one that moves the arm, which brakes within its limits. The
gate sends a setpoint each control period, so half of one is the least to expect on average. A base that is told to move
again afterwards ends the benchmark with an error. Where the base stood already when the stop came, there was nothing to
measure, and it is done again (a starved policy holds: on a busy machine a forward pass may outlast its chunk).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from loop import PERIOD_S, CountingRunner, full_size_run, write_skill
from py_trees.behaviour import Behaviour
from py_trees.common import ParallelPolicy, Status
from py_trees.composites import Parallel

from btruntime.events import NodeStatus, Outcome, TickRecord
from btruntime.runtime import PolicyPool, Runtime
from hal.clock import Clock, MonotonicClock
from hal.connect import Address, connect
from hal.motion import Resource
from hal.robot import Robot
from hal.sim.robot import REST_POSE
from hal.types import ActionKind, ActionSpec, Array, Command, Observation, Setpoint
from skills.behaviours import Leaf, RecordingSlot, ReplayLoop
from skills.behaviours.load import Recording
from skills.context import SkillContext
from skills.kinds import build
from skills.store import SkillStore

HERE = Path(__file__).resolve().parent
SIM = "sim:"
SIGINT = "policy_sigint"
MOVING_TICKS = 12
RANDOM_S = 2 * PERIOD_S
REST_S = 0.2
LONGEST_S = 60.0
ATTEMPTS = 5
POSES = ((1.2, *REST_POSE[1:]), (-1.2, *REST_POSE[1:]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--n", type=int, metavar="N", help="stops in each state (default: 20, quick: 2); half by SIGINT"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    args = parser.parse_args()
    count = args.n or (2 if args.quick else 20)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory(prefix="btruntime-stop-") as place:
        write_skills(Path(place))
        stops = measure(Path(place), count, rng)
    rows = {name: figures(found) for name, found in stops.items()}
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print("| state | n | latency p50 / max ms | arm still p50 / max ms |")
    print("|---|---|---|---|")
    for name, row in rows.items():
        print(
            f"| {name} | {row['n']} | {row['latency_ms_p50']:.1f} / {row['latency_ms_max']:.1f} "
            f"| {row['arm_still_ms_p50']:.1f} / {row['arm_still_ms_max']:.1f} |"
        )
    if args.json:
        print(json.dumps(rows))
    return 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """One stop: seconds from it to a base at zero, and to an arm at rest."""

    latency_s: float
    arm_still_s: float


def figures(stops: Sequence[Stopped]) -> dict[str, Any]:
    """Of at least one stop in one state."""
    latencies, stills = [s.latency_s * 1e3 for s in stops], [s.arm_still_s * 1e3 for s in stops]
    return {
        "n": len(stops),
        "latency_ms_p50": statistics.median(latencies),
        "latency_ms_max": max(latencies),
        "arm_still_ms_p50": statistics.median(stills),
        "arm_still_ms_max": max(stills),
    }


class RolledOnError(Exception):
    """The base was told to move after it was stopped, or was never stopped."""


class StoodAlreadyError(Exception):
    """The base did not move when the stop came."""


def stopped(pressed_s: float, times_s: Array, bases: Array, arms: Array) -> Stopped:
    """What the setpoints say about a stop.

    Args:
        pressed_s: when it was asked for.
        times_s: (N,) when the robot had taken a setpoint; increasing.
        bases: (N, 2) base velocities.
        arms: (N, J) joint positions.

    Raises:
        RolledOnError: the base moved again, or never stopped.
        StoodAlreadyError: it did not move before.
    """
    moves = (bases != 0).any(axis=1)
    after = np.asarray(times_s >= pressed_s)
    if not moves[~after][-1:].any():
        raise StoodAlreadyError
    zero = np.flatnonzero(after & ~moves)
    if len(zero) == 0 or moves[zero[0] :].any():
        raise RolledOnError("the base moved after the stop")
    moved = 1 + np.flatnonzero((np.diff(arms, axis=0) != 0).any(axis=1))
    last_s = times_s[moved[-1]] if len(moved) else pressed_s
    return Stopped(float(times_s[zero[0]] - pressed_s), float(max(last_s - pressed_s, 0.0)))


# The robot


class WatchedRobot:
    """A robot that remembers when it had taken which setpoint, and writes it to `log`, if there is one, when closed."""

    def __init__(self, robot: Robot, log: Path | None = None):
        self.spec, self._robot, self._log = robot.spec, robot, log
        self._taken: list[tuple[float, Setpoint]] = []

    def start(self) -> None:
        self._robot.start()

    def read(self) -> Observation:
        return self._robot.read()

    def write(self, setpoint: Setpoint) -> None:
        self._robot.write(setpoint)
        self._taken.append((time.monotonic(), setpoint))

    def close(self) -> None:
        self._robot.close()
        if self._log is not None:
            np.savez(self._log, *self.taken())
            self._log = None

    def taken(self) -> tuple[Array, Array, Array]:
        """(N,) times, (N, 2) base velocities, (N, J) joint positions."""
        times_s = np.array([time_s for time_s, _ in self._taken])
        setpoints = [setpoint for _, setpoint in self._taken]
        return times_s, np.array([s.base_velocity for s in setpoints]), np.array([s.qpos for s in setpoints])


def connect_watched(address: Address, clock: Clock) -> WatchedRobot:
    """`watched:?log=FILE`: what the command in another process connects to."""
    return WatchedRobot(connect(SIM, clock), Path(address.options["log"][-1]))


# The states


@dataclass(frozen=True, slots=True)
class State:
    """One state of a run.

    Attributes:
        skill: that gets there.
        node: that runs in this state.
        drives: the skill itself moves the base.
        address: of the robot.
        loaded: the policy is loaded before.
    """

    skill: str
    node: str
    drives: bool = False
    address: str = SIM
    loaded: bool = True


STATES = {
    "loading": State("pick", "LoadPolicy", loaded=False),
    "sensors": State("pick", "SensorsReady", address="sim:?fault=freeze:arm_camera"),
    "start_pose": State("pick", "start_pose"),
    "policy": State("pick", "PolicyLoop", drives=True),
    "end_pose": State("place", "end_pose"),
    "replay": State("", "ReplayLoop", drives=True),
    "poses": State("nod", "pose 2"),
}


def write_skills(skills_dir: Path) -> None:
    """Those that `STATES` names."""
    checkpoint = full_size_run(skills_dir, connect(SIM, MonotonicClock()).spec)
    near, far = POSES
    write_skill(skills_dir, "pick", checkpoint, duration=1e6, start_pose=far, start_pose_time=1.0)
    # Its policy says 0.3 from the start.
    write_skill(skills_dir, "place", checkpoint, progress_threshold=0.1, end_pose=far, end_pose_time=1.0)
    write_skill(skills_dir, "nod", poses=[near, far], steps=0.8)


def tree(state: State, skills_dir: Path, ctx: SkillContext) -> Behaviour:
    """What runs in a state, with the base in motion."""
    if not state.skill:
        return ReplayLoop(ctx, RecordingSlot(circling(ctx)))
    root = build(SkillStore(skills_dir).get(f"local/{state.skill}"), ctx)
    if state.drives:
        return root
    beside = next(node for node in root.iterate() if node.name == state.node)
    policy = ParallelPolicy.SuccessOnAll(synchronise=False)
    return Parallel("both", policy, children=[root, Drive(ctx, beside)])


def circling(ctx: SkillContext) -> Recording:
    """A long recording in which arm and base move."""
    times_s = np.arange(0.0, LONGEST_S, PERIOD_S)
    qpos = np.tile(REST_POSE, (len(times_s), 1))
    qpos[:, 0] = 0.4 * np.sin(times_s)
    action = np.column_stack([qpos, np.full_like(times_s, 0.2), np.full_like(times_s, 0.5)])
    spec = ctx.spec.action_spec(base=True, progress=False)
    return Recording(action, times_s, qpos, spec, ctx.spec.joint_names, ctx.spec.name)


class Drive(Leaf):
    """Moves the base while another node runs."""

    def __init__(self, ctx: SkillContext, beside: Behaviour):
        super().__init__("drive", ctx)
        self._beside = beside

    def begin(self) -> None:
        dims = self.ctx.spec.action_spec(base=True, progress=False).dims
        self._spec = ActionSpec(dims=tuple(dim for dim in dims if dim.kind is ActionKind.BASE_VELOCITY))

    def advance(self) -> Status:
        if self._beside.status == Status.RUNNING:
            lease = self._lease or self.take([Resource.BASE])
            self.ctx.submit(lease, Command(self._spec, np.array([0.2, 0.5]), self.ctx.clock.now()))
        return Status.RUNNING


# Stopping


def measure(skills_dir: Path, count: int, rng: np.random.Generator) -> dict[str, list[Stopped]]:
    """The stops by state."""

    def repeat(times: int, stop: Callable[[float], Stopped]) -> list[Stopped]:
        return [moving(lambda: stop(float(rng.uniform(0, RANDOM_S)))) for _ in range(times)]

    loaded = PolicyPool(CountingRunner.of)
    try:
        stops = {
            name: repeat(count, partial(stop_once if state.loaded else stop_while_loading, state, skills_dir, loaded))
            for name, state in STATES.items()
        }
    finally:
        loaded.close()
    # Each is a program that starts and loads: half as many.
    return {**stops, SIGINT: repeat(max(1, count // 2), partial(interrupt_once, skills_dir))}


def moving(stop: Callable[[], Stopped]) -> Stopped:
    """A stop that had something to stop."""
    for _ in range(ATTEMPTS):
        with suppress(StoodAlreadyError):
            return stop()
    raise SystemExit(f"the base stood already in {ATTEMPTS} stops out of {ATTEMPTS}; is the machine too busy?")


def stop_while_loading(state: State, skills_dir: Path, _: PolicyPool, wait_s: float) -> Stopped:
    """As `stop_once`, with a policy that has not been loaded."""
    fresh = PolicyPool(CountingRunner.of)
    try:
        return stop_once(state, skills_dir, fresh, wait_s)
    finally:
        fresh.close()


def stop_once(state: State, skills_dir: Path, pool: PolicyPool, wait_s: float) -> Stopped:
    """Run into the state, and stop there."""
    clock = MonotonicClock()
    robot = WatchedRobot(connect(state.address, clock))
    pressed_s: list[float] = []

    def press() -> None:
        pressed_s.append(time.monotonic())
        runtime.stop("the red button.")

    with Runtime(robot, clock, pool) as runtime:
        button = threading.Timer(wait_s, press)
        result = runtime.run(tree(state, skills_dir, runtime.context), [watcher(state.node, button.start)])
        if result.outcome is not Outcome.CANCELLED:
            raise SystemExit(f"{state.node} was not reached: {result.outcome}: {result.reason}")
        button.join()
        time.sleep(REST_S)
    return stopped(pressed_s[0], *robot.taken())


def watcher(node_name: str, then: Callable[[], None]) -> Callable[[TickRecord], None]:
    """Calls `then` once, when the node has run and the base has moved for some ticks."""
    ticks = 0

    def watch(record: TickRecord) -> None:
        nonlocal ticks
        runs = any(node.name == node_name and node.status is NodeStatus.RUNNING for node in record.tree.nodes)
        moves = record.sent is not None and any(record.sent[-2:])
        ticks += runs and moves
        if ticks == MOVING_TICKS and runs and moves:
            then()

    return watch


def interrupt_once(skills_dir: Path, wait_s: float) -> Stopped:
    """SIGINT to a run of its own process, in the policy loop."""
    with tempfile.TemporaryDirectory(prefix="btruntime-sigint-") as place:
        log, flights = Path(place) / "setpoints.npz", Path(place) / "flights"
        # How other packages add robots; on the path, it is as good as installed.
        package = Path(place) / "watched-0.dist-info"
        package.mkdir()
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: watched\nVersion: 0\n")
        (package / "entry_points.txt").write_text("[btruntime.robots]\nwatched = stop:connect_watched\n")
        program = "import sys; from btruntime.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", program, "run", "local/pick", "--quiet", "--device", "cpu"]
        command += ["--robot", f"watched:?log={log}", "--skills-dir", str(skills_dir), "--flights-dir", str(flights)]
        path = os.pathsep.join([place, str(HERE), str(HERE.parent)])
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            wait_until_driving(flights, process)
            time.sleep(wait_s)
            # Linux's monotonic clock is one for all processes.
            pressed_s = time.monotonic()
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=LONGEST_S)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 128 + signal.SIGINT:
            raise SystemExit(f"btruntime run ended with {process.returncode}: {output}")
        with np.load(log) as taken:
            return stopped(pressed_s, *(taken[f"arr_{number}"] for number in range(3)))


def wait_until_driving(flights: Path, process: subprocess.Popen[str]) -> None:
    """Until the flight record has some ticks in which the base moves; before the policy loop it does not."""
    give_up_s = time.monotonic() + LONGEST_S
    while time.monotonic() < give_up_s:
        for flight in flights.glob("*.jsonl"):
            lines = [json.loads(line) for line in flight.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            if sum(any(line.get("sent", [0.0])[-2:]) for line in lines) >= MOVING_TICKS:
                return
        if process.poll() is not None:
            raise SystemExit(f"btruntime run ended by itself: {process.communicate()[0]}")
        time.sleep(0.05)
    raise SystemExit("btruntime run did not get to its policy loop")


if __name__ == "__main__":
    sys.exit(main())
