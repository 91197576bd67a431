"""The simulated robot: joints, base, table, cameras, faults, and that a seed says everything."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.clock import VirtualClock
from hal.robot import Robot, RobotError
from hal.sim import arm
from hal.sim.faults import KINDS, Fault, FaultError
from hal.sim.pick import PickTask
from hal.sim.robot import JOINT_LAG_S, REST_POSE, SimRobot
from hal.sim.scene import Look, SceneSpec, lowest_point_m
from hal.sim.specs import demo_spec, reference_spec
from hal.types import JointSpec, Observation, Setpoint, SpecError

SPEC = reference_spec(width=16, height=12, main_hz=10.0, wrist_hz=20.0)
LOW, HIGH = SPEC.position_limits
STEP_S = 1 / SPEC.control_rate_hz
CAMERA_S = {"main_camera": 0.1, "arm_camera": 0.05}


def free_robot() -> tuple[SimRobot, VirtualClock]:
    """A robot without a gate, its hand in the air."""
    clock = VirtualClock()
    robot = SimRobot(SPEC, clock)
    robot.start()
    return robot, clock


def sink_m(robot: SimRobot) -> float:
    pose = arm.forward(robot.read().qpos)
    return -lowest_point_m(pose, *pose.links[-1])


def test_it_is_a_robot_and_rests_where_it_was_put(make_bench):
    bench = make_bench()
    assert isinstance(bench.robot, Robot)
    seen = bench.sleep(0.5)
    assert seen.qpos == pytest.approx(REST_POSE)
    assert not seen.qvel.any()
    assert not seen.odometry.any()


def test_a_small_step_is_followed_with_the_lag():
    robot, clock = free_robot()
    target = np.array(REST_POSE) + [0.02, 0.02, -0.02, 0.02, 0.02, 0.02]
    robot.write(Setpoint(target, None, 0.0))
    clock.sleep_until(JOINT_LAG_S - STEP_S)  # the first step is at 0 s
    left = np.abs(target - robot.read().qpos) / 0.02
    assert left == pytest.approx(np.full(6, np.exp(-1)), abs=0.05)
    clock.sleep_until(10 * JOINT_LAG_S)
    assert robot.read().qpos == pytest.approx(target, abs=1e-4)


def test_no_joint_is_faster_than_its_limit_and_velocities_are_true():
    robot, clock = free_robot()
    robot.write(Setpoint(np.array([1.5, 1.0, 0.0, 1.0, 1.5, 0.8]), None, 0.0))
    clock.sleep_until(0.0)
    last = robot.read()
    for _ in range(60):
        clock.sleep_until(clock.now() + STEP_S)
        seen = robot.read()
        assert (np.abs(seen.qvel) <= SPEC.speed_limits + 1e-9).all()
        assert seen.qvel == pytest.approx((seen.qpos - last.qpos) / STEP_S, abs=1e-9)
        last = seen


def test_joints_stop_at_their_ends_whatever_is_written():
    robot, clock = free_robot()
    for way in (9.0, -9.0):
        robot.write(Setpoint(np.full(6, way), None, 0.0))
        clock.sleep_until(clock.now() + 3.0)
        assert (robot.read().qpos >= LOW).all()
        assert (robot.read().qpos <= HIGH).all()


def test_reset_clips_the_pose_and_forgets_what_was():
    robot, clock = free_robot()
    robot.write(Setpoint(np.zeros(6), np.array([0.3, 0.1]), 0.0))
    clock.sleep_until(1.0)
    robot.reset(SceneSpec(), np.full(6, 9.0))
    seen = robot.read()
    assert (seen.qpos == HIGH).all()
    assert seen.joints_s == 1.0
    assert not seen.images
    assert not seen.odometry.any()


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(*(st.floats(a, b) for a, b in zip(LOW, HIGH, strict=True))), min_size=1, max_size=4))
def test_the_table_stops_the_fingers(targets):
    robot, clock = free_robot()
    for target in targets:
        robot.write(Setpoint(np.array(target), None, 0.0))
        for _ in range(100):
            clock.sleep_until(clock.now() + STEP_S)
            assert sink_m(robot) <= 1e-3


def test_fingers_come_down_to_the_table_and_up_again():
    robot, clock = free_robot()
    above = np.append(arm.inverse(np.array([0.22, -0.05, 0.06]), pitch_rad=np.pi / 2), 0.3)
    below = np.append(arm.inverse(np.array([0.22, -0.05, -0.03]), pitch_rad=np.pi / 2), 0.3)
    robot.reset(SceneSpec(), above)
    robot.write(Setpoint(below, None, 0.0))
    clock.sleep_until(1.0)
    assert -0.01 < sink_m(robot) <= 0.0
    robot.write(Setpoint(above, None, 0.0))
    clock.sleep_until(2.0)
    assert robot.read().qpos == pytest.approx(above, abs=1e-3)


def test_a_metre_that_is_commanded_is_a_metre_in_odometry(make_bench):
    bench = make_bench()
    arm_at = np.array(REST_POSE)
    lease = bench.lease()
    bench.stream(lease, np.append(arm_at, [0.25, 0.0]), 4.0)
    bench.stream(lease, np.append(arm_at, [0.0, 0.0]), 1.0)
    x, y, yaw, linear, angular = bench.robot.read().odometry
    assert x == pytest.approx(1.0, rel=0.02)
    assert (y, yaw) == (0.0, 0.0)
    assert abs(linear) < 1e-3
    bench.stream(lease, np.append(arm_at, [0.0, 0.5]), 2.0)
    bench.stream(lease, np.append(arm_at, [0.0, 0.0]), 1.0)
    _, _, yaw, _, angular = bench.robot.read().odometry
    assert yaw == pytest.approx(1.0, rel=0.02)
    assert abs(angular) < 1e-3


def test_driving_in_a_circle_comes_back():
    robot, clock = free_robot()
    robot.write(Setpoint(np.array(REST_POSE), np.array([0.2, 1.0]), 0.0))
    clock.sleep_until(2.0)
    begin = robot.read().odometry
    clock.sleep_until(2.0 + 2 * np.pi)
    assert robot.read().odometry[:2] == pytest.approx(begin[:2], abs=5e-3)


def test_frames_arrive_at_each_cameras_own_rate_after_the_delay(make_bench):
    bench = make_bench(delay_s=0.03)
    captured: dict[str, list[float]] = {name: [] for name in CAMERA_S}
    for _ in range(200):
        seen = bench.sleep(0.005)
        for name, frame in seen.images.items():
            assert frame.rgb.shape == (12, 16, 3)
            assert not frame.rgb.flags.writeable
            age_s = seen.age_s(name, bench.clock.now())
            assert 0.03 - 1e-9 <= age_s <= 0.03 + CAMERA_S[name] + 1e-9
            if frame.captured_s not in captured[name]:
                captured[name].append(frame.captured_s)
    for name, period_s in CAMERA_S.items():
        assert captured[name] == pytest.approx(np.arange(len(captured[name])) * period_s)
        assert len(captured[name]) == int(0.97 / period_s + 1e-9) + 1


def test_before_the_delay_there_is_no_frame(make_bench):
    bench = make_bench(delay_s=0.03)
    assert not bench.sleep(0.02).images
    assert set(bench.sleep(0.02).images) == set(CAMERA_S)


# Faults


def test_freeze_stops_one_camera(make_bench):
    bench = make_bench()
    bench.sleep(0.5)
    bench.inject("freeze:arm_camera@0.25")
    bench.sleep(0.2)
    assert bench.age_s("arm_camera") <= 0.07
    bench.sleep(2.05)
    assert bench.age_s("arm_camera") == pytest.approx(2.05, abs=0.06)
    assert bench.age_s("main_camera") <= 0.12
    bench.robot.faults.heal()
    bench.sleep(0.1)
    assert bench.age_s("arm_camera") <= 0.07


@pytest.mark.parametrize("seconds", [0.3, 6.0])
def test_late_frames_come_late_but_at_their_rate_and_never_go_back(make_bench, seconds):
    """Found in review: more than 64 periods of delay lost the camera altogether."""
    bench = make_bench()
    bench.sleep(0.5)
    bench.inject(f"late:arm_camera:{seconds}")
    newest_s = 0.0
    for _ in range(round((seconds + 0.5) / 0.05)):
        seen = bench.sleep(0.05)
        assert seen.images["arm_camera"].captured_s >= newest_s
        newest_s = seen.images["arm_camera"].captured_s
    assert bench.age_s("arm_camera") == pytest.approx(seconds, abs=0.07)
    assert bench.age_s("main_camera") <= 0.12


def test_drop_joints_leaves_the_base_and_the_cameras_alone(make_bench):
    bench = make_bench()
    bench.sleep(0.5)
    bench.inject("drop_joints")
    before = bench.robot.read()
    bench.robot.write(Setpoint(np.zeros(6), np.array([0.2, 0.0]), bench.clock.now()))
    seen = bench.sleep(0.5)
    assert bench.age_s("joints") == pytest.approx(0.5, abs=0.011)
    assert (seen.qpos == before.qpos).all()
    assert bench.age_s("base") <= 0.011
    assert bench.age_s("arm_camera") <= 0.07


def test_nan_joints_are_fresh_and_not_a_number(make_bench):
    bench = make_bench()
    bench.sleep(0.5)
    bench.inject("nan_joints")
    seen = bench.sleep(0.1)
    assert np.isnan(seen.qpos).all()
    assert np.isnan(seen.qvel).all()
    assert bench.age_s("joints") <= 0.011


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_slow_joints_are_old_and_were_true_then(make_bench, seconds):
    """Found in review: the delay ended at 0.64 s, whatever was asked."""
    bench = make_bench()
    bench.inject(f"slow:{seconds}")
    bench.robot.write(Setpoint(np.array(REST_POSE) + 0.3, None, 0.0))
    bench.sleep(seconds + 1.0)
    assert bench.age_s("joints") == pytest.approx(seconds, abs=0.011)


def test_gone_answers_nothing(make_bench):
    bench = make_bench()
    bench.inject("gone@0.5")
    bench.sleep(0.4)
    bench.clock.sleep_until(0.6)
    with pytest.raises(RobotError, match="reference does not answer"):
        bench.robot.read()
    with pytest.raises(RobotError, match="does not answer"):
        bench.robot.write(Setpoint(np.zeros(6), None, 0.0))


def test_a_simulation_that_fails_says_so():
    """Found in review: an error in the physics was swallowed, and the robot looked frozen."""
    robot, clock = free_robot()
    robot.scene = None
    clock.sleep_until(0.1)
    with pytest.raises(RobotError, match="simulation of robot reference failed: AttributeError"):
        robot.read()


def test_faults_are_read_from_text():
    assert Fault.parse("freeze:arm_camera@3.5") == Fault("freeze", "arm_camera", 0.0, 3.5)
    assert Fault.parse("late:main-cam.2:0.25") == Fault("late", "main-cam.2", 0.25)
    assert Fault.parse("slow:2") == Fault("slow", None, 2.0)
    assert Fault.parse("gone") == Fault("gone")


@pytest.mark.parametrize("text", ["", "melt", "freeze arm", "gone@soon", "late:cam:-1", "slow:", "@3"])
def test_an_unknown_fault_lists_the_known(text):
    with pytest.raises(FaultError, match="not understood") as raised:
        Fault.parse(text)
    assert all(kind in str(raised.value) for kind in KINDS)


@pytest.mark.parametrize("text", ["freeze", "freeze:cam:2", "late:cam", "late:2", "slow", "slow:cam:2", "gone:cam"])
def test_a_fault_with_the_wrong_parts_says_its_form(text):
    with pytest.raises(FaultError, match="wrong parts"):
        Fault.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_fault_or_refused(text):
    with suppress(FaultError):
        assert Fault.parse(text).kind in KINDS


def test_a_fault_of_a_camera_that_is_not_there_is_refused(make_bench):
    with pytest.raises(SpecError, match="no camera 'nose'"):
        make_bench().inject("freeze:nose")


# Seeds


def wander(seed: int, make_bench) -> list[Observation]:
    bench = make_bench(seed=seed, scene=PickTask().scene(1))
    seen = []
    lease = bench.lease()
    for tick in range(25):
        bench.stream(lease, np.append(np.array(REST_POSE) + 0.2 * np.sin(0.3 * tick), [0.1, 0.2]), 0.04)
        seen.append(bench.robot.read())
    return seen


def difference(one: list[Observation], other: list[Observation]) -> tuple[bool, bool]:
    """Whether joints or base, and whether any picture, differ."""
    pairs = list(zip(one, other, strict=True))
    numbers = any((a.qpos != b.qpos).any() or (a.odometry != b.odometry).any() for a, b in pairs)
    pictures = any(
        a.images[n].captured_s != b.images[n].captured_s or (a.images[n].rgb != b.images[n].rgb).any()
        for a, b in pairs
        for n in a.images
    )
    return numbers, pictures


def test_a_seed_says_everything(make_bench):
    first = wander(3, make_bench)
    assert difference(first, wander(3, make_bench)) == (False, False)
    assert difference(first, wander(4, make_bench)) == (False, True)  # only the cameras are noisy


def test_noise_is_as_strong_as_the_look_says():
    """Found in review: any level but 0 was taken for 2."""
    robot = SimRobot(reference_spec(width=64, height=48), VirtualClock())
    camera = robot.spec.cameras[0]
    robot.reset(SceneSpec(look=Look(noise=0.0)))
    clean = robot.capture(camera).rgb.astype(float)
    for level in (1.0, 6.0, 2.0):
        robot.reset(SceneSpec(look=Look(noise=level)))
        assert (robot.capture(camera).rgb - clean).std() == pytest.approx(level, rel=0.1)


def test_other_robots_are_refused():
    joints = tuple(JointSpec(name=f"j{i}", low=-1, high=1, max_speed=1, max_acceleration=1) for i in range(3))
    with pytest.raises(RobotError, match=r"6 joints and a base; spec .* has 3 joints and a base"):
        SimRobot(SPEC.model_copy(update={"joints": joints}), VirtualClock())
    with pytest.raises(RobotError, match="has 6 joints and no base"):
        SimRobot(SPEC.model_copy(update={"base": None}), VirtualClock())


def test_the_demo_robot_is_the_reference_robot_with_small_cameras():
    assert demo_spec().joints == reference_spec().joints
    assert [(c.name, c.width, c.height) for c in demo_spec().cameras] == [
        ("main_camera", 96, 96),
        ("arm_camera", 96, 96),
    ]


def test_closing_twice_and_starting_again(make_bench):
    bench = make_bench()
    bench.sleep(0.2)
    bench.robot.close()
    bench.robot.close()
    bench.sleep(0.2)
    assert bench.age_s("joints") >= 0.2 - 1e-9
    bench.robot.start()
    bench.robot.start()
    bench.sleep(0.2)
    assert bench.age_s("joints") <= 0.011
