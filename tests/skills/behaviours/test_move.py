from __future__ import annotations

import numpy as np
import pytest
from py_trees.common import Status
from skill_bench import Bench, small_spec

from hal.motion import Resource
from hal.types import ActionDim, ActionSpec, Command, GripperSpec
from skills.behaviours import MoveTo
from skills.behaviours.move import move_duration_s
from skills.outcome import Outcome

GRIPPER = 5


def target(bench: Bench, **offsets_rad: float) -> np.ndarray:
    pose = bench.robot.read().qpos.copy()
    for joint, offset in offsets_rad.items():
        pose[bench.spec.joint_names.index(joint)] += offset
    return pose


def profile(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return share**3 * (10 - 15 * share + 6 * share**2)


def test_a_move_takes_the_wished_time_or_what_the_limits_need() -> None:
    spec, start = Bench().spec, np.zeros(6)
    far, near = np.array([1.2, 0, 0, 0, 0, 0.0]), np.array([0.01, 0, 0, 0, 0, 0.0])
    assert move_duration_s(spec, start, far, 3.0) == 3.0
    # 15/8 of the mean speed is 80 % of 2 rad/s; 10/sqrt(3) of the mean acceleration 80 % of 20 rad/s^2.
    assert move_duration_s(spec, start, far, 0.1) == pytest.approx(1.2 * 15 / 8 / 1.6)
    assert move_duration_s(spec, start, near, 0.01) == pytest.approx(np.sqrt(0.01 * 10 / np.sqrt(3) / 16))


def test_a_move_is_minimum_jerk_within_the_limits_and_arrives() -> None:
    bench = Bench()
    pose = target(bench, joint1=1.2, joint3=-0.4)
    start, began_s = bench.gate.setpoint.qpos, bench.clock.now()
    leaf = MoveTo(bench, pose, duration_s=0.5)
    took_s = bench.run(leaf)
    duration_s = 1.2 * 15 / 8 / 1.6
    assert leaf.status == Status.SUCCESS
    assert duration_s <= took_s <= duration_s + 0.3
    np.testing.assert_allclose(bench.robot.read().qpos, pose, atol=0.05)
    sent = bench.robot.sent(began_s, began_s + duration_s)
    shares = np.array([(s.qpos[0] - start[0]) / 1.2 for s in sent])
    elapsed_s = np.array([s.stamp_s for s in sent]) - began_s
    # Never ahead of the profile by more than a thousandth, never behind by more than 100 ms.
    assert np.all(shares <= profile(elapsed_s / duration_s) + 1e-3)
    assert np.all(shares >= profile((elapsed_s - 0.1) / duration_s) - 1e-3)
    speeds = np.abs(np.diff(bench.robot.arms(began_s), axis=0)) * bench.spec.control_rate_hz
    assert speeds.max() <= 0.85 * 2.0
    assert not bench.gate.report().counts


def test_a_move_waits_until_the_arm_has_settled() -> None:
    bench = Bench()
    pose = target(bench, joint1=0.6)
    leaf = MoveTo(bench, pose, duration_s=0.4, tolerance_rad=0.002)
    bench.run(leaf, 0.8)
    assert leaf.feedback_message == "settling"
    bench.run(leaf)
    assert leaf.status == Status.SUCCESS
    assert abs(bench.robot.read().qpos[0] - pose[0]) <= 0.002
    assert leaf.feedback_message.startswith("there, ")


def test_a_joint_that_is_blocked_a_little_is_named_when_it_does_not_settle() -> None:
    bench = Bench()
    pose = target(bench, joint1=0.3)
    bench.robot.block(0)
    leaf = MoveTo(bench, pose, duration_s=0.5, name="start_pose")
    took_s = bench.run(leaf)
    assert took_s == pytest.approx(0.5 + 1.5, abs=0.09)
    assert (leaf.status, leaf.outcome) == (Status.FAILURE, Outcome.FAULT)
    assert "start_pose: joint1 is still 0.300 rad from the pose" in leaf.feedback_message
    assert "Is something in the way?" in leaf.feedback_message


def test_a_joint_that_is_blocked_in_mid_move_is_a_tracking_fault() -> None:
    bench = Bench()
    pose = target(bench, joint1=1.2)
    bench.robot.block(0)
    leaf = MoveTo(bench, pose, duration_s=2.0)
    assert bench.run(leaf) < 2.0
    assert leaf.outcome is Outcome.FAULT
    assert "joint1" in leaf.feedback_message
    assert "Free the arm, or check that joint's motor" in leaf.feedback_message


def test_a_gripper_that_is_stopped_by_what_it_holds_is_not_waited_for() -> None:
    bench = Bench()
    pose = target(bench, joint1=0.2, joint6=0.5)
    bench.robot.block(GRIPPER)
    leaf = MoveTo(bench, pose, duration_s=0.5)
    bench.run(leaf)
    assert leaf.status == Status.SUCCESS


def test_a_pose_a_hair_beyond_a_limit_means_the_limit() -> None:
    bench = Bench()
    pose = target(bench)
    high = bench.spec.joints[0].high
    pose[0] = high + 0.049
    leaf = MoveTo(bench, pose)
    bench.run(leaf)
    assert leaf.status == Status.SUCCESS
    assert bench.robot.written[-1].qpos[0] == pytest.approx(high)


@pytest.mark.parametrize(
    ("pose", "reason"),
    [
        ([0.0, 0.0, 0.0], "the pose has shape (3,), robot bench has 6 joints."),
        ([0.0, 0.0, 0.0, 2.2, 0.0, 0.0], "the pose has joint4 at 2.2, robot bench allows -1.7453 to 1.9199."),
        ([0.0, 0.0, 0.0, np.nan, 0.0, 0.0], "the pose has joint4 at nan, robot bench allows -1.7453 to 1.9199."),
    ],
)
def test_a_pose_that_is_none_of_this_robot_is_refused_before_anything_moves(pose: list[float], reason: str) -> None:
    bench = Bench()
    leaf = MoveTo(bench, np.array(pose))
    assert bench.tick(leaf) == Status.FAILURE
    assert (leaf.outcome, leaf.feedback_message) == (Outcome.FAULT, reason)
    assert not bench.asked


def test_a_pose_may_be_known_only_when_the_move_begins() -> None:
    bench, poses = Bench(), []
    leaf = MoveTo(bench, lambda: poses[0])
    poses.append(target(bench, joint2=0.2))
    bench.run(leaf)
    assert leaf.status == Status.SUCCESS
    np.testing.assert_allclose(bench.robot.written[-1].qpos, poses[0], atol=1e-3)


def test_a_move_to_where_the_arm_is_takes_no_time_at_all() -> None:
    bench = Bench()
    leaf = MoveTo(bench, bench.gate.setpoint.qpos, duration_s=0.0)
    assert bench.tick(leaf) == Status.SUCCESS


def test_somebody_else_who_takes_the_arm_ends_the_move() -> None:
    bench = Bench()
    leaf = MoveTo(bench, target(bench, joint1=1.0))
    bench.run(leaf, 0.2)
    bench.gate.acquire("operator", [Resource.ARM])
    assert bench.tick(leaf) == Status.FAILURE
    assert leaf.feedback_message == "MoveTo lost the arm: something else moves the robot, too."


def test_a_gripper_that_is_not_a_joint_stays_as_it_is() -> None:
    spec = small_spec().model_copy(update={"grippers": (GripperSpec(name="claw"),)})
    bench = Bench(spec=spec)
    for commanded in (None, 0.25):
        if commanded is not None:
            lease = bench.gate.acquire("test", [Resource.ARM])
            claw = ActionSpec(dims=(ActionDim.fraction("claw"),))
            bench.gate.submit(lease, Command(claw, np.array([commanded]), bench.clock.now()))
            bench.clock.sleep_until(bench.clock.now() + 0.1)
        began_s = bench.clock.now()
        leaf = MoveTo(bench, target(bench, joint1=0.2))
        bench.run(leaf)
        assert leaf.status == Status.SUCCESS
        fractions = {setpoint.grippers[0] for setpoint in bench.robot.sent(began_s)}
        assert fractions == {commanded} or (commanded is None and all(np.isnan(list(fractions))))
        assert "claw" not in bench.asked[-1].spec.names
