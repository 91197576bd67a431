from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from py_trees.common import Status
from skill_bench import TICK_S, Bench, small_spec

from hal.motion import Resource
from hal.types import Command, SpecError
from skills.behaviours import RecordingSlot, ReplayLoop
from skills.behaviours.load import Recording
from skills.outcome import Outcome

# Trapezoid of 1.00 m; the recording goes on for a while after it.
DRIVE_MPS, RAMP_S, DRIVE_S, LENGTH_S = 0.32, 0.5, 1.0 / 0.32 + 0.5, 4.0


def bench_without_views() -> Bench:
    """Nobody looks: a frame each second saves most of the time."""
    return Bench(spec=small_spec(cameras_hz=1.0))


@functools.cache
def demonstrate(hz: float) -> tuple[Recording, float]:
    """Drive on for 1.00 m while joint 1 swings; returns the recording and the metres that were driven."""
    bench = bench_without_views()
    spec = bench.spec.action_spec(base=True, progress=True)
    lease = bench.gate.acquire("demonstrator", Resource)
    start, began_s = bench.observation.qpos, bench.clock.now()
    actions, times_s, qpos = [], [], []
    for step in range(round(LENGTH_S * hz) + 1):
        t_s = step / hz
        speed = DRIVE_MPS * float(np.clip(min(t_s, DRIVE_S - t_s) / RAMP_S, 0, 1))
        action = np.array([start[0] + 0.4 * np.sin(t_s), *start[1:], speed, 0.0, 0.0, 0.0])
        actions.append(action)
        times_s.append(t_s)
        qpos.append(bench.robot.read().qpos)
        bench.gate.submit(lease, Command(spec, action, bench.clock.now()))
        bench.clock.sleep_until(began_s + (step + 1) / hz)
    bench.clock.sleep_until(bench.clock.now() + 1.0)
    names = bench.spec.joint_names
    recording = Recording(np.array(actions), np.array(times_s), np.array(qpos), spec, names, bench.spec.name)
    return recording, float(bench.robot.read().odometry[0])


def replay(recording: Recording, **options: float) -> tuple[Bench, ReplayLoop, float, float]:
    """The bench, the leaf, the seconds it took, and the metres that were driven."""
    bench = bench_without_views()
    leaf = ReplayLoop(bench, RecordingSlot(recording), **options)
    took_s = bench.run(leaf, 30.0)
    bench.clock.sleep_until(bench.clock.now() + 1.0)
    return bench, leaf, took_s, float(bench.robot.read().odometry[0])


@pytest.mark.parametrize("hz", [10.0, 20.0, 30.0])
@pytest.mark.parametrize("speed", [1.0, 0.5])
def test_a_metre_is_a_metre_and_the_duration_is_kept(hz: float, speed: float) -> None:
    recording, driven_m = demonstrate(hz)
    assert driven_m == pytest.approx(1.0, abs=0.02)
    bench, leaf, took_s, replayed_m = replay(recording, speed=speed)
    assert leaf.status == Status.SUCCESS
    assert replayed_m == pytest.approx(driven_m, abs=0.02)
    assert took_s == pytest.approx(LENGTH_S / speed, abs=TICK_S + 1e-9)
    assert not bench.gate.report().counts


@pytest.mark.parametrize(("frequency_hz", "stretch"), [(12.0, 1.0), (30.0, 2.0)])
def test_another_frequency_changes_the_time_and_not_the_distance(frequency_hz: float, stretch: float) -> None:
    recording, driven_m = demonstrate(30.0)
    action = recording.action / np.array([1] * 6 + [stretch] * 2 + [1] * 2)
    slow = dataclasses.replace(recording, action=action, times_s=recording.times_s * stretch)
    _, leaf, took_s, replayed_m = replay(slow, frequency_hz=frequency_hz)
    assert leaf.status == Status.SUCCESS
    assert took_s == pytest.approx(120 / frequency_hz, abs=TICK_S + 1e-9)
    assert replayed_m == pytest.approx(driven_m, abs=0.02)


def test_the_arm_is_where_it_was_and_the_error_is_told() -> None:
    recording, _ = demonstrate(30.0)
    bench, leaf, _, _ = replay(recording)
    # The replay is behind its commands as the demonstration was: by the lag of gate and joints.
    assert leaf.tracking_error_rad < 0.01
    assert leaf.feedback_message == f"4.0 s, tracking error {leaf.tracking_error_rad:.3f} rad"
    np.testing.assert_allclose(bench.robot.read().qpos, recording.qpos[-1], atol=0.03)


def test_an_arm_that_starts_elsewhere_has_a_tracking_error() -> None:
    recording, _ = demonstrate(10.0)
    moved = recording.qpos + np.array([0.5, 0, 0, 0, 0, 9.0])
    elsewhere = dataclasses.replace(recording, qpos=moved)
    _, leaf, _, _ = replay(elsewhere)
    # Half a radian in one of five joints; the gripper does not count.
    assert leaf.tracking_error_rad == pytest.approx(0.1, abs=0.02)


def test_a_blocked_joint_ends_the_replay() -> None:
    recording, _ = demonstrate(10.0)
    action = recording.action.copy()
    action[:, 0] += np.linspace(0, 1.2, len(action))
    bench = bench_without_views()
    bench.robot.block(0)
    leaf = ReplayLoop(bench, RecordingSlot(dataclasses.replace(recording, action=action)))
    bench.run(leaf)
    assert leaf.outcome is Outcome.FAULT
    assert "joint1" in leaf.feedback_message
    since_s = bench.clock.now()
    bench.clock.sleep_until(since_s + 0.1)
    assert not bench.robot.bases(since_s).any()


def test_a_recording_of_one_step_is_over_at_once() -> None:
    recording, _ = demonstrate(10.0)
    one = dataclasses.replace(
        recording, action=recording.action[:1], times_s=recording.times_s[:1], qpos=recording.qpos[:1]
    )
    bench = Bench()
    assert bench.tick(ReplayLoop(bench, RecordingSlot(one))) == Status.SUCCESS


def test_joints_that_were_not_recorded_are_named() -> None:
    recording, _ = demonstrate(10.0)
    fewer = dataclasses.replace(recording, joint_names=("joint1", "joint2"))
    with pytest.raises(SpecError, match="joint1, joint2, and not joint3, joint4, joint5, joint6"):
        RecordingSlot(fewer).first_pose(recording.joint_names)
    bench = Bench()
    leaf = ReplayLoop(bench, RecordingSlot(fewer))
    assert bench.tick(leaf) == Status.FAILURE
    assert "and not joint3" in leaf.feedback_message
    assert not bench.asked
