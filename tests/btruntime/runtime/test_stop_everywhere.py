"""Stop in every state that a run can be in, on the virtual clock: a watcher sees the state and stops the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from py_trees.behaviour import Behaviour
from py_trees.common import ParallelPolicy, Status
from py_trees.composites import Parallel, Selector
from py_trees.composites import Sequence as Then
from py_trees.decorators import Retry
from skill_bench import (
    TICK_S,
    FakePolicy,
    SpiedRobot,
    holding,
    input_spec,
    small_spec,
    write_learned,
    write_skill,
)

from btruntime.events import NodeStatus, RunResult, TickRecord
from btruntime.runtime import PolicyPool, Runtime
from hal.clock import VirtualClock
from hal.motion import Lease, Resource
from hal.sim.faults import Fault
from hal.types import ActionKind, ActionSpec, Command
from policies.runner import InlineRunner
from skills.behaviours import Leaf, RecordingSlot, ReplayLoop
from skills.behaviours.load import Recording
from skills.context import SkillContext
from skills.kinds import build
from skills.outcome import Outcome

CONTROL_S = 0.01
START = [0.5, -0.6, 1.4, -0.7, 0.0, 0.0]
END = [-0.9, -0.6, 1.4, -0.7, 0.0, 0.0]
WAVE = Path(__file__).parents[3] / "skills/builtin/wave/data/episode_0.h5"
WHY = "the red button."


class ScriptedRunner(InlineRunner):
    """Ready after some time, and silent from some time on."""

    def __init__(self, policy: FakePolicy, clock: VirtualClock, ready_s: float, silent_s: float):
        super().__init__(policy)
        self._clock, self._ready_s, self._silent_s = clock, ready_s, silent_s

    @property
    def ready(self) -> bool:
        return self._clock.now() >= self._ready_s

    def offer(self, inputs: Any, now_s: float) -> bool:
        return now_s < self._silent_s and super().offer(inputs, now_s)


class Drive(Leaf):
    """Drives on, beside whatever the arm does: a stop has something to stop in every state."""

    def __init__(self, ctx: SkillContext):
        super().__init__("drive", ctx)

    def begin(self) -> None:
        dims = self.ctx.spec.action_spec(base=True, progress=False).dims
        self._spec = ActionSpec(dims=tuple(dim for dim in dims if dim.kind is ActionKind.BASE_VELOCITY))
        self._base_lease = self.take([Resource.BASE])

    def advance(self) -> Status:
        self.ctx.submit(self._base_lease, Command(self._spec, np.array([0.3, 1.0]), self.ctx.clock.now()))
        return Status.RUNNING


class Rig:
    """A runtime whose leases are known, with a policy that swings joint 1 and drives where it may."""

    def __init__(
        self, *, base: bool = True, ready_s: float = 0.0, silent_s: float = np.inf, faults: Sequence[str] = ()
    ):
        self.clock = VirtualClock()
        self.spec = small_spec(cameras_hz=15.0)
        self.robot = SpiedRobot(self.spec, self.clock)
        for fault in faults:
            self.robot.inject(Fault.parse(fault))
        self.input_spec = input_spec(self.spec, base=base)
        policy = FakePolicy(self.input_spec, self._act)
        self.pool = PolicyPool(lambda checkpoint: ScriptedRunner(policy, self.clock, ready_s, silent_s))
        self.runtime = Runtime(self.robot, self.clock, self.pool)
        self.records: list[TickRecord] = []
        self.leases: list[Lease] = []
        self._acquire = self.runtime.gate.acquire
        self.runtime.gate.acquire = self._noted  # type: ignore[method-assign]

    def _noted(self, *arguments: Any) -> Lease:
        self.leases.append(self._acquire(*arguments))
        return self.leases[-1]

    def _act(self, inputs: Any, t_s: float) -> list[float]:
        row = holding(inputs, base=(0.2, 0.5))
        row[0] = START[0] + 0.3 * float(np.sin(2 * (inputs.oldest_capture_s + t_s)))
        return row[: self.input_spec.action_dim]

    def learned(self, root: Path, **execution: object) -> Behaviour:
        execution = {"start_pose": START, "end_pose": END, "duration": 1.0, **execution}
        return build(write_learned(root, "pick", self.input_spec, **execution), self.runtime.context)

    def driving(self, root: Behaviour) -> Behaviour:
        """The tree, and beside it a leaf that moves the base."""
        policy = ParallelPolicy.SuccessOnAll(synchronise=False)
        return Parallel("both", policy, children=[Drive(self.runtime.context), root])


# The states: each makes a rig with its tree, and says which node to wait for, and by which feedback.

Scene = tuple[Rig, Behaviour, str, str]


def loading(root: Path) -> Scene:
    rig = Rig(base=False, ready_s=5.0)
    return rig, rig.driving(rig.learned(root)), "LoadPolicy", "loading"


def waiting_for_sensors(root: Path) -> Scene:
    rig = Rig(base=False, faults=["freeze:arm_camera"])
    return rig, rig.driving(rig.learned(root)), "SensorsReady", "waiting for arm_camera"


def start_pose(root: Path) -> Scene:
    rig = Rig(base=False)
    return rig, rig.driving(rig.learned(root)), "start_pose", ""


def settling(root: Path) -> Scene:
    rig = Rig(base=False)
    rig.robot.blocked[0] = START[0] - 0.2
    return rig, rig.driving(rig.learned(root)), "start_pose", "settling"


def before_the_first_action(root: Path) -> Scene:
    rig = Rig(base=False, silent_s=-1.0)
    return rig, rig.driving(rig.learned(root, start_pose=None)), "PolicyLoop", "waiting for the first action"


def policy(root: Path) -> Scene:
    rig = Rig()
    return rig, rig.learned(root), "PolicyLoop", "of 1 s"


def policy_of_the_arm_alone(root: Path) -> Scene:
    rig = Rig(base=False)
    return rig, rig.driving(rig.learned(root)), "PolicyLoop", "of 1 s"


def starving(root: Path) -> Scene:
    rig = Rig(base=False, silent_s=1.0)
    return rig, rig.driving(rig.learned(root, start_pose=None, duration=9.0)), "PolicyLoop", "waiting for an action"


def end_pose(root: Path) -> Scene:
    rig = Rig(base=False)
    return rig, rig.driving(rig.learned(root, start_pose=None)), "end_pose", ""


def reading_the_episode(root: Path) -> Scene:
    rig = Rig()
    never: Future[Any] = Future()
    rig.runtime.context.in_background = lambda work: never  # type: ignore[method-assign, assignment]
    return rig, rig.driving(wave(rig, root)), "LoadEpisode", "reading"


def first_pose(root: Path) -> Scene:
    rig = Rig()
    return rig, rig.driving(wave(rig, root)), "first_pose", ""


def wave(rig: Rig, root: Path) -> Behaviour:
    (root / "wave/data").mkdir(parents=True)
    (root / "wave/data/episode_0.h5").write_bytes(WAVE.read_bytes())
    entry = write_skill(root, "wave", {"type": "replay", "execution": {"replay_file": "data/episode_0.h5"}})
    return build(entry, rig.runtime.context)


def replay(root: Path) -> Scene:
    """Of an episode in which arm and base move."""
    rig = Rig()
    times_s = np.arange(0.0, 3.0, TICK_S)
    still = rig.robot.read().qpos
    qpos = np.tile(still, (len(times_s), 1))
    qpos[:, 0] += 0.4 * np.sin(times_s)
    action = np.column_stack([qpos, np.full_like(times_s, 0.3), np.full_like(times_s, -1.0)])
    spec = rig.spec.action_spec(base=True, progress=False)
    slot = RecordingSlot(Recording(action, times_s, qpos, spec, rig.spec.joint_names, rig.spec.name))
    return rig, ReplayLoop(rig.runtime.context, slot), "ReplayLoop", "of 3.0 s"


def first_of_the_poses(root: Path) -> Scene:
    return poses(root, "pose 1")


def last_of_the_poses(root: Path) -> Scene:
    return poses(root, "pose 2")


def poses(root: Path, name: str) -> Scene:
    rig = Rig()
    document = {"type": "poses", "execution": {"poses": [START, END], "steps": 1.0}}
    return rig, rig.driving(build(write_skill(root, "nod", document), rig.runtime.context)), name, ""


STATES: list[Callable[[Path], Scene]] = [
    loading,
    waiting_for_sensors,
    start_pose,
    settling,
    before_the_first_action,
    policy,
    policy_of_the_arm_alone,
    starving,
    end_pose,
    reading_the_episode,
    first_pose,
    replay,
    first_of_the_poses,
    last_of_the_poses,
]
ARM_MOVES = {start_pose, policy, policy_of_the_arm_alone, end_pose, first_pose, replay}
ARM_MOVES |= {first_of_the_poses, last_of_the_poses}


@contextmanager
def open_rig(rig: Rig) -> Iterator[None]:
    """Sensors have delivered when the run begins."""
    with rig.runtime:
        rig.clock.sleep_until(0.2)
        yield


def stop_in(rig: Rig, root: Behaviour, name: str, feedback: str, ticks: int, later_s: float) -> tuple[RunResult, float]:
    """Run, and stop so long after the node was seen in that state for the so-manieth tick; how it ended, and when.

    A stop that comes at once comes from the watcher, between a tick and the control step of the same time; one that
    comes later, between two control steps or together with one.
    """
    stopped_s: list[float] = []
    seen = 0

    def stop() -> None:
        stopped_s.append(rig.clock.now())
        rig.runtime.stop(WHY)

    def watch(record: TickRecord) -> None:
        nonlocal seen
        rig.records.append(record)
        node = next(node for node in record.tree.nodes if node.name == name)
        if node.status is not NodeStatus.RUNNING or not node.feedback.startswith(feedback):
            return
        seen += 1
        if seen == ticks and later_s:
            rig.clock.every(1e9, stop, name="red button", phase_s=later_s)
        elif seen == ticks:
            stop()

    result = rig.runtime.run(root, [watch])
    assert stopped_s, f"{name} was not seen in {ticks} ticks: {result.reason}"
    return result, stopped_s[0]


def assert_stopped(rig: Rig, root: Behaviour, result: RunResult, stopped_s: float) -> None:
    """The run was cancelled within a period, nobody may move the robot, and it came to rest and stays there."""
    assert (result.outcome, result.reason) == (Outcome.CANCELLED, WHY)
    assert result.ended_s - stopped_s <= TICK_S + 1e-9
    assert {node.status for node in root.iterate()} == {Status.INVALID}
    assert not any(rig.runtime.gate.holds(lease, resource) for lease in rig.leases for resource in lease.resources)
    rig.clock.sleep_until(rig.clock.now() + 0.5)
    assert not rig.robot.bases(stopped_s + CONTROL_S).any()
    speeds = np.diff(rig.robot.arms(stopped_s - 1.5 * CONTROL_S), axis=0) / CONTROL_S
    slower = np.maximum(np.abs(speeds[:-1]) - rig.spec.acceleration_limits * CONTROL_S, 0)
    # The step that the stop came together with may have been taken before it.
    assert np.all(np.abs(speeds[2:]) <= slower[1:] + 1e-9)
    assert not speeds[-30:].any()


@pytest.mark.parametrize(("ticks", "later_s"), [(1, 0.0), (2, 0.02), (7, 0.013)])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_stop(tmp_path: Path, state: Callable[[Path], Scene], ticks: int, later_s: float) -> None:
    rig, root, name, feedback = state(tmp_path)
    with open_rig(rig):
        result, stopped_s = stop_in(rig, root, name, feedback, ticks, later_s)
        assert_stopped(rig, root, result, stopped_s)
        last = {node.name: node.status for node in rig.records[-1].tree.nodes}
        assert last[name] is NodeStatus.RUNNING
        if state is not end_pose and "end_pose" in last:
            assert last["end_pose"] is NodeStatus.INVALID
        before = rig.robot.sent(stopped_s - 2 * CONTROL_S, stopped_s - 1e-6)
        if ticks > 2:
            # There was something to stop.
            assert before[-1].base_velocity.any()
            assert (np.abs(before[-1].qpos - before[-2].qpos).max() > 1e-4) == (state in ARM_MOVES)


class Presses(Behaviour):
    """Presses the red button in one of its ticks, and succeeds."""

    def __init__(self, rig: Rig, ticks: int = 10):
        super().__init__("presses")
        self.rig, self.ticks, self.stopped_s = rig, ticks, 0.0

    def update(self) -> Status:
        self.ticks -= 1
        if self.ticks:
            return Status.RUNNING
        self.stopped_s = self.rig.clock.now()
        self.rig.runtime.stop(WHY)
        return Status.SUCCESS


def test_what_begins_in_the_tick_of_the_stop_does_not_move(tmp_path: Path) -> None:
    rig = Rig()
    entry = write_skill(tmp_path, "nod", {"type": "poses", "execution": {"poses": [END]}})
    presses = Presses(rig)
    nod = build(entry, rig.runtime.context)
    root = rig.driving(Then("root", memory=True, children=[presses, nod]))
    with open_rig(rig):
        began = rig.robot.read().qpos
        result = rig.runtime.run(root, [rig.records.append])
        assert_stopped(rig, root, result, presses.stopped_s)
        assert {node.name: node.status for node in rig.records[-1].tree.nodes}["pose 1"] is NodeStatus.RUNNING
        assert np.ptp(np.vstack([began, rig.robot.arms(0.0)]), axis=0).max() < 1e-9


def test_a_tree_that_ends_in_the_tick_of_the_stop_was_cancelled() -> None:
    rig = Rig()
    presses = Presses(rig)
    root = Parallel("both", ParallelPolicy.SuccessOnOne(), children=[Drive(rig.runtime.context), presses])
    with open_rig(rig):
        assert_stopped(rig, root, rig.runtime.run(root), presses.stopped_s)


def test_neither_a_retry_nor_a_fallback_begins_after_the_stop(tmp_path: Path) -> None:
    rig = Rig()
    entry = write_skill(tmp_path, "nod", {"type": "poses", "execution": {"poses": [END]}})
    root = Selector(
        "root",
        memory=True,
        children=[Retry("again", rig.learned(tmp_path), num_failures=3), build(entry, rig.runtime.context)],
    )
    with open_rig(rig):
        result, stopped_s = stop_in(rig, root, "PolicyLoop", "of 1 s", 5, 0.02)
        assert_stopped(rig, root, result, stopped_s)
        last = {node.name: node.status for node in rig.records[-1].tree.nodes}
        assert (last["PolicyLoop"], last["nod"]) == (NodeStatus.RUNNING, NodeStatus.INVALID)
        assert [lease.owner for lease in rig.leases] == ["start_pose", "PolicyLoop"]


def test_a_stop_before_the_robot_was_read_for_the_first_time(tmp_path: Path) -> None:
    rig = Rig(base=False, ready_s=5.0)
    root = rig.driving(rig.learned(tmp_path))
    with rig.runtime:
        result, stopped_s = stop_in(rig, root, "LoadPolicy", "loading", 1, 0.0)
        assert (stopped_s, rig.robot.written[0].stamp_s) == (0.0, 0.0)
        assert_stopped(rig, root, result, stopped_s)
        assert np.ptp(rig.robot.arms(0.0), axis=0).max() == 0.0
