from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from py_trees.behaviour import Behaviour
from py_trees.behaviours import Failure, Running, Success
from py_trees.common import ParallelPolicy, Status
from py_trees.composites import Parallel, Sequence
from skill_bench import (
    TICK_S,
    FakePolicy,
    SpiedRobot,
    holding,
    inline,
    input_spec,
    small_spec,
    write_learned,
    write_skill,
)

from btruntime.events import NodeStatus, TickRecord
from btruntime.runtime import PolicyPool, Runtime
from foundation.errors import BtruntimeError
from hal.clock import MonotonicClock, VirtualClock
from hal.motion import Resource
from hal.robot import RobotError
from hal.sim.faults import Fault
from policies.runner import InlineRunner
from skills.kinds import build
from skills.outcome import Outcome

START = [0.5, -0.6, 1.4, -0.7, 0.0, 0.0]
END = [-0.9, -0.6, 1.4, -0.7, 0.0, 0.0]
PERIOD_S = 0.01
WAVE = Path(__file__).parents[3] / "skills/builtin/wave/data/episode_0.h5"


class SlowRunner(InlineRunner):
    """Not ready before a time."""

    def __init__(self, policy: FakePolicy, clock: VirtualClock, ready_s: float):
        super().__init__(policy)
        self._clock, self._ready_s = clock, ready_s

    @property
    def ready(self) -> bool:
        return self._clock.now() >= self._ready_s


class Rig:
    """A runtime on the virtual clock, with a policy that drives on and swings joint 2."""

    def __init__(self, *, progress: Callable[[float], float] | None = None, ready_s: float = 0.0):
        self.clock = VirtualClock()
        self.spec = small_spec()
        self.robot = SpiedRobot(self.spec, self.clock)
        self.input_spec = input_spec(self.spec, progress=progress is not None)
        self.policy = FakePolicy(self.input_spec, self._act)
        self.progress = progress
        self.pool = PolicyPool(lambda checkpoint: SlowRunner(self.policy, self.clock, ready_s))
        self.runtime = Runtime(self.robot, self.clock, self.pool)
        self.records: list[TickRecord] = []

    def _act(self, inputs, t_s: float) -> list[float]:
        now_s = inputs.oldest_capture_s + t_s
        row = holding(inputs, base=(0.2, 0.5), progress=None if self.progress is None else self.progress(now_s))
        row[0] = START[0] + 0.3 * np.sin(2 * now_s)
        return row

    def learned(self, root: Path, **execution: object) -> Behaviour:
        execution = {"start_pose": START, "end_pose": END, **execution}
        return build(write_learned(root, "pick", self.input_spec, **execution), self.runtime.context)

    def at(self, when_s: float, work: Callable[[], None]) -> None:
        """Do something once, between two control steps."""
        self.clock.every(1e9, work, name="test", phase_s=when_s - self.clock.now())

    def run(self, root: Behaviour):
        return self.runtime.run(root, [self.records.append])


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    with made.runtime:
        yield made


class Odd(Behaviour):
    """Somebody else's node: counts what happens to it, and raises where it is told to."""

    def __init__(self, name: str, raises: str = "", error: Exception | None = None, after: int = 0):
        super().__init__(name)
        self.raises, self.error, self.after = raises, error or ValueError("odd"), after
        self.calls: list[str] = []

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.raises and self.calls.count(call) > self.after:
            raise self.error

    def setup(self, **kwargs: object) -> None:
        self._note("setup")

    def initialise(self) -> None:
        self._note("initialise")

    def update(self) -> Status:
        self._note("update")
        return Status.RUNNING

    def terminate(self, new_status: Status) -> None:
        self._note("terminate")

    def shutdown(self) -> None:
        self._note("shutdown")


def assert_stopped(root: Behaviour) -> None:
    assert {node.status for node in root.iterate()} == {Status.INVALID}


def assert_at_rest_from(rig: Rig, stopped_s: float) -> None:
    """From one control period after `stopped_s`: base commanded exactly zero, arm only braking."""
    rig.clock.sleep_until(rig.clock.now() + 0.5)
    assert not rig.robot.bases(stopped_s + PERIOD_S).any()
    arm = rig.robot.arms(stopped_s)
    speeds = np.abs(np.diff(arm, axis=0)) / PERIOD_S
    step = rig.spec.acceleration_limits * PERIOD_S
    assert np.all(speeds[1:] <= np.maximum(speeds[:-1] - step, 0) + 1e-9)
    assert not speeds[-30:].any()


# How a run ends


def test_done(tmp_path: Path) -> None:
    rig = Rig(progress=lambda t_s: 1.0 if t_s > 2.0 else 0.1)
    with rig.runtime:
        root = rig.learned(tmp_path)
        result = rig.run(root)
        assert (result.outcome, result.success) == (Outcome.DONE, True)
        assert result.reason.startswith("there, ")
        assert rig.robot.read().qpos[0] == pytest.approx(END[0], abs=0.05)
        assert_stopped(root)
    assert result.duration_s == pytest.approx((result.ticks - 1) * TICK_S)
    assert [record.tick for record in rig.records] == list(range(1, result.ticks + 1))


def test_timeout_runs_no_end_pose(tmp_path: Path) -> None:
    rig = Rig(progress=lambda t_s: 0.4)
    with rig.runtime:
        root = rig.learned(tmp_path, duration=1.0)
        result = rig.run(root)
        assert (result.outcome, result.success) == (Outcome.TIMEOUT, False)
        assert result.reason == "progress was 0.40 when the 1 s of the skill were over."
        assert_stopped(root)
        assert_at_rest_from(rig, result.ended_s)
        assert rig.robot.read().qpos[0] > 0.0


def test_a_fault_has_its_cause(rig: Rig, tmp_path: Path) -> None:
    rig.robot.inject(Fault.parse("freeze:arm_camera@2.5"))
    root = rig.learned(tmp_path)
    result = rig.run(root)
    assert result.outcome is Outcome.FAULT
    assert result.reason.startswith("Sensor arm_camera is 0.5")
    assert result.ended_s == pytest.approx(2.5 + 0.5, abs=0.1)
    assert_stopped(root)
    assert_at_rest_from(rig, result.ended_s)


def test_a_robot_that_is_gone_is_a_fault(rig: Rig, tmp_path: Path) -> None:
    rig.robot.inject(Fault.parse("gone@2.5"))
    root = rig.learned(tmp_path)
    result = rig.run(root)
    assert (result.outcome, result.reason) == (
        Outcome.FAULT,
        "robot bench does not answer. Check its power and its connection.",
    )
    assert result.ended_s == pytest.approx(2.5, abs=TICK_S)
    assert_stopped(root)


def test_a_failure_of_somebody_elses_node_is_a_fault_with_its_message(rig: Rig) -> None:
    class Fails(Behaviour):
        def update(self) -> Status:
            self.feedback_message = self.name and None  # authors leave None there
            return Status.FAILURE

    result = rig.run(Sequence("root", memory=True, children=[Success("first"), Fails("second")]))
    assert (result.outcome, result.reason) == (Outcome.FAULT, "second failed without saying why.")


# Stop

STATES = {
    "loading": 0.5,
    "start pose": 1.5,
    "policy": 3.0,
    "end pose": 4.9,
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("offset_s", [0.0, 0.013, 0.02])
def test_stop_halts_within_a_control_period_and_runs_no_end_pose(tmp_path: Path, state: str, offset_s: float) -> None:
    rig, stopped_s = Rig(progress=lambda t_s: 1.0 if t_s > 4.0 else 0.1, ready_s=1.0), STATES[state] + offset_s
    with rig.runtime:
        root = rig.learned(tmp_path)
        rig.at(stopped_s, lambda: rig.runtime.stop("the red button."))
        result = rig.run(root)
        assert (result.outcome, result.reason) == (Outcome.CANCELLED, "the red button.")
        assert result.ended_s - stopped_s <= TICK_S + 1e-9
        assert (
            running_leaf(rig.records[-1])
            == {
                "loading": "LoadPolicy",
                "start pose": "start_pose",
                "policy": "PolicyLoop",
                "end pose": "end_pose",
            }[state]
        )
        assert_stopped(root)
        assert_at_rest_from(rig, stopped_s)
        if state == "policy":
            assert rig.robot.bases(stopped_s - PERIOD_S, stopped_s - 1e-6).any()
        if state in ("start pose", "policy"):
            assert rig.robot.read().qpos[0] > 0.0


@pytest.mark.parametrize("offset_s", [0.0, 0.02])
def test_stop_halts_a_replay(rig: Rig, tmp_path: Path, offset_s: float) -> None:
    (tmp_path / "wave/data").mkdir(parents=True)
    (tmp_path / "wave/data/episode_0.h5").write_bytes(WAVE.read_bytes())
    entry = write_skill(tmp_path, "wave", {"type": "replay", "execution": {"replay_file": "data/episode_0.h5"}})
    root, stopped_s = build(entry, rig.runtime.context), 3.0 + offset_s
    rig.at(stopped_s, lambda: rig.runtime.stop("enough."))
    result = rig.run(root)
    assert (result.outcome, running_leaf(rig.records[-1])) == (Outcome.CANCELLED, "ReplayLoop")
    assert_stopped(root)
    assert_at_rest_from(rig, stopped_s)


def running_leaf(record: TickRecord) -> str:
    return next(node.name for node in reversed(record.tree.nodes) if node.status is NodeStatus.RUNNING)


def test_a_stop_before_the_run_lets_nothing_begin(rig: Rig, tmp_path: Path) -> None:
    rig.runtime.stop("not today.")
    result = rig.run(rig.learned(tmp_path))
    assert (result.outcome, result.reason, result.ticks) == (Outcome.CANCELLED, "not today.", 0)
    assert not rig.policy.seen


def test_a_second_run_in_the_same_runtime_after_the_stop_is_cleared(tmp_path: Path) -> None:
    rig = Rig()
    with rig.runtime:
        rig.at(2.5, lambda: rig.runtime.stop("wait."))
        assert rig.run(rig.learned(tmp_path)).outcome is Outcome.CANCELLED
        rig.runtime.clear_stop()
        began_s = rig.clock.now()
        result = rig.run(rig.learned(tmp_path, duration=1.0))
        assert (result.outcome, result.started_s) == (Outcome.DONE, began_s)
        assert result.timing.ticks == result.ticks - 1
        assert rig.robot.read().qpos[0] == pytest.approx(END[0], abs=0.05)
    assert rig.policy.resets == 2


# Nodes of others


@pytest.mark.parametrize(("where", "after"), [("setup", 0), ("initialise", 0), ("update", 0), ("update", 3)])
def test_an_exception_in_somebody_elses_node_is_a_fault_and_the_robot_rests(where: str, after: int) -> None:
    rig = Rig()
    odd, other = Odd("odd", where, after=after), Odd("other")
    with rig.runtime:
        drive = Drive(rig)
        root = Parallel("root", ParallelPolicy.SuccessOnAll(), children=[drive, other, odd])
        result = rig.run(root)
        assert result.outcome is Outcome.FAULT
        assert result.reason.startswith("internal error: ValueError('odd') (test_runtime.py, line ")
        assert_stopped(root)
        assert_at_rest_from(rig, result.ended_s)
    for node in (odd, other):
        assert node.calls.count("terminate") == 1
        assert node.calls[-1] == "shutdown"
    assert result.ticks == after


class Drive(Behaviour):
    """Drives on and lets go of nothing."""

    def __init__(self, rig: Rig):
        super().__init__("drive")
        self.rig = rig

    def initialise(self) -> None:
        self.lease = self.rig.runtime.gate.acquire("drive", Resource)

    def update(self) -> Status:
        from hal.types import Command

        spec = self.rig.spec.action_spec(base=True, progress=False)
        action = np.array([*self.rig.runtime.context.observation.qpos, 0.3, 0.0])
        self.rig.runtime.context.submit(self.lease, Command(spec, action, self.rig.clock.now()))
        return Status.RUNNING

    def terminate(self, new_status: Status) -> None:
        if hasattr(self, "lease"):
            self.rig.runtime.gate.release(self.lease)


class Clings(Drive):
    """Drives on, and raises instead of letting go."""

    def terminate(self, new_status: Status) -> None:
        raise KeyError("lease")


@pytest.mark.parametrize("raises", ["terminate", "shutdown"])
def test_a_node_that_cannot_be_stopped_does_not_keep_the_others_from_it(rig: Rig, raises: str) -> None:
    odd, other = Odd("odd", raises), Odd("other")
    root = Parallel("root", ParallelPolicy.SuccessOnAll(), children=[odd, Clings(rig), other])
    rig.at(1.0, lambda: rig.runtime.stop("enough."))
    result = rig.run(root)
    rig.runtime.clear_stop()
    assert result.outcome is Outcome.CANCELLED
    assert result.reason.startswith("enough. ")
    assert "drive could not be stopped: KeyError('lease')" in result.reason
    assert_stopped(root)
    assert "shutdown" in other.calls
    assert other.calls.count("terminate") >= 1
    # Its lease is over, though it did not give it back.
    assert_at_rest_from(rig, 1.0)


def test_an_error_of_ours_is_told_as_it_is(rig: Rig) -> None:
    result = rig.run(Odd("odd", "update", BtruntimeError("the arm is on strike.")))
    assert (result.outcome, result.reason) == (Outcome.FAULT, "the arm is on strike.")


def test_a_driver_that_raises_what_it_should_not_is_a_fault(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Running("wait")

    def broken() -> None:
        raise OSError(5, "Input/output error")

    rig.at(0.5, lambda: monkeypatch.setattr(rig.robot, "read", broken))
    result = rig.run(node)
    assert result.outcome is Outcome.FAULT
    assert result.reason.startswith("internal error: OSError(5, 'Input/output error')")
    assert node.status == Status.INVALID


def test_ctrl_c_in_a_node_stops_the_nodes_and_goes_on(rig: Rig) -> None:
    odd = Odd("odd", "update", KeyboardInterrupt(), after=2)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        rig.run(odd)
    assert odd.calls[-2:] == ["terminate", "shutdown"]


# What watchers are told


def test_watchers_get_every_tick_and_what_was_asked_and_sent(rig: Rig) -> None:
    rig.at(1.0, lambda: rig.runtime.stop("enough."))
    result = rig.run(Drive(rig))
    assert result.ticks == len(rig.records) == 25
    for number, record in enumerate(rig.records, start=1):
        assert (record.tick, record.lateness_s, record.work_s) == (number, 0.0, 0.0)
        assert record.time_s == pytest.approx((number - 1) * TICK_S)
        assert (record.asked["base_linear"], record.asked["base_angular"]) == (0.3, 0.0)
        assert set(record.ages) == {"joints", "base", "main_camera", "arm_camera"}
    assert rig.records[0].sent is None
    assert rig.records[-1].sent[6] == pytest.approx(0.3)
    assert rig.records[10].holding is None


def test_the_period_is_that_of_the_rate(rig: Rig) -> None:
    rig.at(2.0, lambda: rig.runtime.stop("enough."))
    result = rig.run(Running("wait"))
    assert result.timing.period_ms_mean == pytest.approx(40.0)
    assert (result.timing.late_ticks, result.timing.drift_ms) == (0, pytest.approx(0.0))


def test_what_comes_before_the_first_tick_makes_no_tick_late(rig: Rig) -> None:
    class Connects(Odd):
        def setup(self, **kwargs: object) -> None:
            rig.clock.sleep_until(rig.clock.now() + 1.01)

    rig.at(2.0, lambda: rig.runtime.stop("enough."))
    result = rig.run(Connects("slow setup"))
    assert (result.timing.late_ticks, result.timing.lateness_ms_max) == (0, pytest.approx(0.0))
    assert result.ticks == 25


def test_a_watcher_that_raises_ends_the_run_at_rest(rig: Rig) -> None:
    def broken(record: TickRecord) -> None:
        raise ZeroDivisionError

    node = Drive(rig)
    result = rig.runtime.run(node, [broken])
    assert result.outcome is Outcome.FAULT
    assert "ZeroDivisionError" in result.reason
    assert_at_rest_from(rig, result.ended_s)


# Enough


def test_a_run_that_need_not_go_on_is_done_at_rest_with_the_reason(rig: Rig) -> None:
    node = Odd("on and on")
    told = iter([None, None, "that is enough."])
    result = rig.runtime.run(node, [rig.records.append], until=lambda: next(told))
    assert (result.outcome, result.reason, result.ticks) == (Outcome.DONE, "that is enough.", 3)
    assert len(rig.records) == 3
    assert node.calls[-3:] == ["update", "terminate", "shutdown"]


def test_how_the_tree_ended_and_a_stop_count_more_than_enough(rig: Rig) -> None:
    def enough() -> str:
        return "that is enough."

    assert rig.runtime.run(Success("yes"), until=enough).reason == "success"
    failed = rig.runtime.run(Failure("no"), until=enough)
    assert (failed.outcome, failed.reason) == (Outcome.FAULT, "failure")

    def stop_first() -> str:
        rig.runtime.stop("stopped by hand.")
        return "that is enough."

    stopped = rig.runtime.run(Running("wait"), until=stop_first)
    assert (stopped.outcome, stopped.reason) == (Outcome.CANCELLED, "stopped by hand.")


def test_asking_whether_it_is_enough_may_fail(rig: Rig) -> None:
    def broken() -> str | None:
        raise ZeroDivisionError

    result = rig.runtime.run(Running("wait"), until=broken)
    assert result.outcome is Outcome.FAULT
    assert "ZeroDivisionError" in result.reason


# Life


def test_leaving_the_block_brings_all_to_rest_and_may_be_repeated() -> None:
    rig = Rig()
    with rig.runtime:
        lease = rig.runtime.gate.acquire("somebody", Resource)
        assert lease is not None
        rig.clock.sleep_until(1.0)
    rig.runtime.close()
    assert not rig.robot.written[-1].base_velocity.any()
    assert rig.robot.closed >= 1


def test_a_robot_that_does_not_start_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()

    def refuse() -> None:
        raise RobotError("no power.")

    monkeypatch.setattr(rig.robot, "start", refuse)
    with pytest.raises(RobotError), rig.runtime:
        pass
    assert rig.robot.closed == 1


def test_in_real_time_stop_comes_from_another_thread_and_loading_does_not_block() -> None:
    """No assertion on time: only that a run on threads begins, is stopped, and leaves nothing behind."""
    clock = MonotonicClock()
    robot = SpiedRobot(small_spec(), clock)
    runtime = Runtime(robot, clock, PolicyPool(lambda checkpoint: inline(None)))  # type: ignore[arg-type]
    with runtime:
        future = runtime.context.in_background(lambda: 1 / 0)
        assert isinstance(future.exception(timeout=10), ZeroDivisionError)
        stopping = threading.Thread(target=runtime.stop, args=["from a thread."])
        result = runtime.run(Running("wait"), [lambda record: stopping.start() if record.tick == 3 else None])
        stopping.join()
    assert (result.outcome, result.reason) == (Outcome.CANCELLED, "from a thread.")
    assert result.ticks >= 3
