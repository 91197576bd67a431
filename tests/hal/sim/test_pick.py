"""The pick task: its scenes, its leader, and the yardstick that must fail."""

from __future__ import annotations

import numpy as np
import pytest

from hal.clock import VirtualClock
from hal.motion import MotionGate, Resource
from hal.sim import arm
from hal.sim.pick import CUBE, PickTask
from hal.sim.robot import SimRobot
from hal.sim.specs import reference_spec
from hal.types import Command

RATE_HZ = 15.0
SPEC = reference_spec(width=4, height=3, main_hz=0.5, wrist_hz=0.5)
ACTION = SPEC.action_spec(base=False, progress=False)
TASK = PickTask()


def attempt(seed: int, *, blind: bool) -> tuple[bool, np.ndarray]:
    """Whether the leader succeeded, and where everything was in the end."""
    clock = VirtualClock()
    robot = SimRobot(SPEC, clock, seed=seed)
    robot.reset(TASK.scene(seed), TASK.perturbed_start(seed))
    gate = MotionGate(robot, clock)
    robot.start()
    gate.start()
    clock.sleep_until(0.1)
    leader = TASK.leader(robot, seed=seed, blind=blind)
    leader.start(robot.read(), clock.now())
    lease = gate.acquire("leader", [Resource.ARM])
    tick = 0
    while not leader.finished:
        sample = leader.read(clock.now())
        gate.submit(lease, Command(ACTION, sample.qpos, clock.now()))
        tick += 1
        clock.sleep_until(0.1 + tick / RATE_HZ)
    return TASK.succeeded(robot), np.concatenate([robot.read().qpos, robot.scene.box(CUBE).centre])


def test_the_leader_that_looks_succeeds():
    results = [attempt(seed, blind=False) for seed in range(20)]
    assert sum(succeeded for succeeded, _ in results) >= 19
    again = attempt(3, blind=False)
    assert (again[1] == results[3][1]).all()


def test_the_leader_that_does_not_look_fails():
    assert sum(attempt(seed, blind=True)[0] for seed in range(40)) <= 2


def test_cubes_lie_in_the_stated_arc_on_the_table():
    places, yaws = [], []
    for seed in range(300):
        (cube,) = TASK.scene(seed).boxes
        assert cube.name == CUBE
        assert cube.size == (TASK.edge_m,) * 3
        assert cube.centre[2] == TASK.edge_m / 2
        away = np.array(cube.centre[:2]) - arm.SHOULDER_YAW[:2]
        places.append((np.hypot(*away), np.arctan2(away[1], away[0])))
        yaws.append(cube.yaw_rad - places[-1][1])
    radius, bearing = np.array(places).T
    assert radius.min() >= TASK.radius_m[0] - 1e-9
    assert radius.max() <= TASK.radius_m[1] + 1e-9
    assert np.abs(bearing).max() <= TASK.bearing_rad
    # All of the arc is used.
    assert np.ptp(radius) > 0.9 * np.diff(TASK.radius_m)[0]
    assert np.ptp(bearing) > 1.8 * TASK.bearing_rad
    assert np.abs(yaws).max() <= 0.15 + 1e-9


def test_a_seed_gives_the_same_scene_and_start_and_another_seed_another():
    assert TASK.scene(5) == TASK.scene(5)
    assert (TASK.perturbed_start(5) == TASK.perturbed_start(5)).all()
    assert TASK.scene(5) != TASK.scene(6)
    assert (TASK.perturbed_start(5) != TASK.perturbed_start(6)).any()


def test_starts_are_within_the_joint_limits_and_well_above_the_table():
    low, high = SPEC.position_limits
    for pose in [TASK.start_pose(), *(TASK.perturbed_start(seed) for seed in range(200))]:
        assert (pose >= low).all()
        assert (pose <= high).all()
        assert arm.forward(pose).tool[2] > 0.06


def test_a_cube_that_lies_there_was_not_picked_up():
    robot = SimRobot(SPEC, VirtualClock(), scene=TASK.scene(0))
    assert not TASK.succeeded(robot)
    robot.scene.held = CUBE
    assert not TASK.succeeded(robot)  # held, but not lifted


@pytest.mark.parametrize("seed", range(4))
def test_the_leader_never_asks_beyond_the_joints_limits(seed):
    low, high = SPEC.position_limits
    robot = SimRobot(SPEC, VirtualClock())
    robot.reset(TASK.scene(seed), TASK.perturbed_start(seed))
    leader = TASK.leader(robot, seed=seed)
    leader.start(robot.read(), 0.0)
    for time_s in np.arange(0.0, 5.0, 0.02):
        asked = leader.read(float(time_s)).qpos
        assert (asked >= low).all()
        assert (asked <= high).all()
