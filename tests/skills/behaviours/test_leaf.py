from __future__ import annotations

import numpy as np
import pytest
from py_trees.behaviours import Running
from py_trees.common import ParallelPolicy, Status
from py_trees.composites import Parallel, Selector, Sequence
from py_trees.decorators import FailureIsSuccess
from skill_bench import Bench

from foundation.errors import BtruntimeError
from hal.motion import Resource
from hal.types import Command
from skills.behaviours import Leaf
from skills.outcome import Outcome


class Drives(Leaf):
    """Drives the base for ever."""

    def __init__(self, name: str, ctx: Bench, speed_mps: float):
        super().__init__(name, ctx)
        self.speed_mps, self.ends = speed_mps, 0

    def begin(self) -> None:
        self.lease = self.take(Resource)
        self.spec = self.ctx.spec.action_spec(base=True, progress=False)

    def advance(self) -> Status:
        if (fault := self.gate_fault()) is not None:
            return self.fail(Outcome.FAULT, fault)
        action = [*self.ctx.gate.setpoint.qpos, self.speed_mps, 0.0]
        self.ctx.submit(self.lease, Command(self.spec, np.array(action), self.ctx.clock.now()))
        return Status.RUNNING

    def end(self) -> None:
        self.ends += 1


class Raises(Leaf):
    def __init__(self, ctx: Bench, error: Exception, *, where: str):
        super().__init__("broken", ctx)
        self.error, self.where = error, where

    def begin(self) -> None:
        self.take([Resource.ARM])
        if self.where == "begin":
            raise self.error

    def advance(self) -> Status:
        raise self.error


class When(Leaf):
    """A condition."""

    holds = False

    def advance(self) -> Status:
        return Status.SUCCESS if self.holds else Status.FAILURE


def test_a_new_leaf_is_not_undone_by_the_end_of_the_one_it_pre_empts() -> None:
    bench = Bench()
    low, high, when = Drives("low", bench, 0.1), Drives("high", bench, -0.1), When("when", bench)
    urgent = Sequence("urgent", memory=False, children=[when, high])
    root = Selector("root", memory=False, children=[urgent, low])
    bench.run(root, 0.4)
    assert bench.robot.written[-1].base_velocity[0] == pytest.approx(0.1)
    when.holds = True
    since_s = bench.clock.now()
    bench.run(root, 0.4)
    speeds = bench.robot.bases(since_s)[:, 0]
    # From one speed to the other within the base's acceleration, never by way of a stop.
    assert np.all(np.diff(speeds) <= 1e-12)
    assert np.abs(np.diff(speeds)).max() <= 0.01 + 1e-9
    assert speeds[-1] == pytest.approx(-0.1)
    assert (low.status, low.ends, high.status) == (Status.INVALID, 1, Status.RUNNING)
    counts = bench.gate.report().counts
    assert (counts["taken_over"], counts["dead_release"]) == (1, 1)
    assert "no_lease" not in counts


def test_the_end_of_a_leaf_brings_to_rest_what_it_still_holds() -> None:
    bench = Bench()
    leaf = Drives("drive", bench, 0.2)
    bench.run(leaf, 0.4)
    stopped_s = bench.clock.now()
    leaf.stop(Status.INVALID)
    leaf.stop(Status.INVALID)
    bench.clock.sleep_until(stopped_s + 0.1)
    assert not bench.robot.bases(stopped_s + 0.011).any()


@pytest.mark.parametrize("where", ["begin", "advance"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BtruntimeError("the arm is on strike."), "the arm is on strike."),
        (KeyError("joint7"), "internal error in broken: KeyError('joint7')"),
        (AssertionError(), "internal error in broken: AssertionError()"),
    ],
)
def test_an_exception_in_a_leaf_is_its_fault_and_stops_nothing_else(error: Exception, reason: str, where: str) -> None:
    bench = Bench()
    broken, other = Raises(bench, error, where=where), Running("other")
    policy = ParallelPolicy.SuccessOnAll()
    root = Parallel("root", policy, children=[FailureIsSuccess("despite", broken), other])
    bench.tick(root)
    bench.tick(root)
    assert (broken.status, broken.outcome, broken.feedback_message) == (Status.FAILURE, Outcome.FAULT, reason)
    assert (other.status, root.status) == (Status.RUNNING, Status.RUNNING)
    assert bench.gate.report().counts.get("taken_over", 0) == 0  # what it had taken it gave back


def test_a_leaf_that_failed_can_run_again() -> None:
    bench = Bench()
    leaf = Raises(bench, BtruntimeError("once."), where="begin")
    assert bench.tick(leaf) == Status.FAILURE
    leaf.where, leaf.advance = "nowhere", lambda: Status.SUCCESS  # type: ignore[method-assign]
    assert bench.tick(leaf) == Status.SUCCESS
    assert (leaf.outcome, leaf.feedback_message) == (None, "")


def test_two_leaves_that_move_the_base_at_once_are_told_so() -> None:
    bench = Bench()
    first, second = Drives("first", bench, 0.1), Drives("second", bench, 0.2)
    root = Parallel("root", ParallelPolicy.SuccessOnAll(), children=[first, second])
    assert bench.tick(root) == Status.RUNNING
    assert bench.tick(root) == Status.FAILURE
    assert first.outcome is Outcome.FAULT
    assert first.feedback_message == "first lost the arm and the base: something else moves the robot, too."
