"""A recording as a robot: every sensor at its time, on either clock; and what the motion gate makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.clock import MonotonicClock, VirtualClock
from hal.motion import MotionGate, Resource
from hal.playback import PlaybackRobot, RecordedStep
from hal.robot import RobotError
from hal.types import Command, Observation, Setpoint

from .conftest import robot_spec

PATIENCE_S = 30.0


def frame_of(camera: str, row: int) -> np.ndarray:
    return np.full((2, 2, 3), row % 256, np.uint8)


def steps(at_s: list[float], *, age_s: float = 0.02) -> tuple[RecordedStep, ...]:
    return tuple(
        RecordedStep(
            at_s=when_s,
            qpos=np.array([0.01 * row, 0.1, 0.2]),
            qvel=np.full(3, 0.1 * row),
            joints_s=when_s - age_s / 2,
            captured_s={"front": when_s - age_s, "wrist": when_s - age_s * 1.5},
            base_velocity=np.array([0.1, row]),
            odometry=np.full(5, row),
        )
        for row, when_s in enumerate(at_s)
    )


def even(count: int = 20, rate_hz: float = 20.0) -> list[float]:
    return [5.0 + row / rate_hz for row in range(count)]


def played(recording: tuple[RecordedStep, ...], begin_after_s: float = 0.3) -> tuple[VirtualClock, PlaybackRobot]:
    clock = VirtualClock(100.0)
    robot = PlaybackRobot(robot_spec(), clock, recording, frame_of)
    robot.start()
    clock.sleep_until(clock.now() + begin_after_s)
    robot.begin()
    return clock, robot


def assert_shows(robot: PlaybackRobot, recording: tuple[RecordedStep, ...], row: int) -> None:
    seen, step, began_s = robot.read(), recording[row], robot.began_s
    assert began_s is not None
    assert seen.qpos.tolist() == step.qpos.tolist()
    assert seen.qvel.tolist() == step.qvel.tolist()
    assert seen.joints_s == pytest.approx(began_s + step.joints_s)
    assert seen.odometry is not None
    assert seen.odometry.tolist() == [row] * 5
    for camera, frame in seen.images.items():
        assert frame.rgb[0, 0, 0] == row
        assert frame.captured_s == pytest.approx(began_s + step.captured_s[camera])
        assert frame.captured_s <= seen.stamp_s


@settings(max_examples=40, deadline=None)
@given(
    gaps_ms=st.lists(st.integers(1, 200), min_size=1, max_size=20),
    age_ms=st.integers(0, 100),
    glances_ms=st.lists(st.integers(0, 120), min_size=5, max_size=60),
)
def test_every_sensor_appears_at_its_time_and_never_before(
    gaps_ms: list[int], age_ms: int, glances_ms: list[int]
) -> None:
    at_s = (7.0 + np.cumsum([0, *gaps_ms]) / 1000).tolist()
    recording = steps(at_s, age_s=age_ms / 1000)
    clock, robot = played(recording)
    begun_s = clock.now()
    assert_shows(robot, recording, 0)
    for glance_ms in np.cumsum(glances_ms):
        clock.sleep_until(begun_s + glance_ms / 1000)
        assert_shows(robot, recording, int(np.searchsorted(np.cumsum(gaps_ms), glance_ms, side="right")))
    robot.close()


def test_a_step_appears_neither_a_moment_early_nor_late() -> None:
    recording = steps([2.0, 2.033, 2.081, 2.1])
    clock, robot = played(recording)
    begun_s = clock.now()
    for row, at_s in enumerate(step.at_s - 2.0 for step in recording):
        if row:
            clock.sleep_until(begun_s + at_s - 1e-6)
            assert_shows(robot, recording, row - 1)
            assert not robot.finished
        clock.sleep_until(begun_s + at_s)
        assert_shows(robot, recording, row)
    assert robot.finished


def test_until_it_begins_it_follows_and_is_fresh() -> None:
    clock = VirtualClock()
    robot = PlaybackRobot(robot_spec(), clock, steps(even()), frame_of)
    with pytest.raises(RobotError, match="start it"):
        robot.read()
    robot.start()
    assert robot.read().qpos.tolist() == [0.0, 0.1, 0.2]
    robot.write(Setpoint(np.array([0.5, 0.2, 0.3]), np.array([0.3, 0.0]), 0.0))
    for at_s in np.arange(0, 3, 0.013):
        clock.sleep_until(at_s)
        seen = robot.read()
        assert seen.qpos.tolist() == [0.5, 0.2, 0.3]
        assert seen.joints_s == seen.base_s == at_s
        assert 0 <= at_s - seen.images["front"].captured_s <= 1 / 15 + 1e-9
        assert 0 <= at_s - seen.images["wrist"].captured_s <= 1 / 50 + 1e-9
        assert seen.images["front"].rgb[0, 0, 0] == 0
    robot.begin()
    robot.write(Setpoint(np.array([0.9, 0.2, 0.3]), None, 0.0))
    assert robot.read().qpos.tolist() == [0.0, 0.1, 0.2]
    begun_s = robot.began_s
    clock.sleep_until(3.4)
    robot.begin()
    assert robot.began_s == begun_s
    robot.close()
    robot.close()
    with pytest.raises(RobotError, match="does not run"):
        robot.read()


def test_after_its_end_it_goes_stale_and_the_gate_holds() -> None:
    clock = VirtualClock()
    recording = steps(even(10))
    robot = PlaybackRobot(robot_spec(), clock, recording, frame_of)
    robot.start()
    gate = MotionGate(robot, clock, robot.gate_config)
    gate.start()
    clock.sleep_until(0.1)
    lease = gate.acquire("policy", [Resource.ARM, Resource.BASE], ["joints", "front"])
    spec = robot.spec.action_spec(base=True, progress=False)
    robot.begin()
    end_s = clock.now() + 0.45

    def command_until(when_s: float) -> None:
        while clock.now() < when_s:
            # Far from where the recorded arm is: a playback robot is not blamed for that.
            gate.submit(lease, Command(spec, np.array([1.5, 0.1, 0.2, 0.2, 0.0]), clock.now()))
            clock.sleep_until(clock.now() + 0.04)

    command_until(end_s)
    assert robot.finished
    assert gate.report().holding is None
    command_until(end_s + 0.3)
    assert "Sensor joints is" in str(gate.report().holding)
    sent = gate.report().setpoint
    assert sent is not None
    assert sent.base_velocity is not None
    assert sent.base_velocity.tolist() == [0, 0]
    command_until(end_s + 1.0)
    assert "Sensor" in str(gate.fault(lease))
    gate.close()
    robot.close()


def test_a_recording_without_steps_is_refused() -> None:
    with pytest.raises(RobotError, match="nothing to play back on bench: the recording has no steps"):
        PlaybackRobot(robot_spec(), VirtualClock(), (), frame_of)


def test_a_frame_that_cannot_be_read_is_told_when_it_is_due() -> None:
    def torn(camera: str, row: int) -> np.ndarray:
        if row >= 3:
            raise ValueError("frame 3 is torn")
        return frame_of(camera, row)

    for clock in (VirtualClock(), MonotonicClock()):
        robot = PlaybackRobot(robot_spec(), clock, steps([0.0, 0.02, 0.04, 0.2]), torn)
        robot.start()
        robot.begin()
        assert robot.began_s is not None
        clock.sleep_until(robot.began_s + 0.06)
        if clock.virtual:
            assert robot.read().images["front"].rgb[0, 0, 0] == 2
        clock.sleep_until(robot.began_s + 0.25)
        with pytest.raises(RobotError, match="cannot be played on: frame 3 is torn"):
            robot.read()
        robot.close()


def test_a_first_frame_that_cannot_be_read_is_told_at_the_start() -> None:
    def torn(camera: str, row: int) -> np.ndarray:
        raise OSError("gone")

    robot = PlaybackRobot(robot_spec(), VirtualClock(), steps(even()), torn)
    with pytest.raises(RobotError, match="gone"):
        robot.start()
    robot.close()


# On the real clock


class Projector:
    """Gives frames up to a step; a later one only once it is let go."""

    def __init__(self, blocked_from: int):
        self.blocked_from, self.read_rows = blocked_from, list[int]()
        self.waiting, self.let_go = threading.Event(), threading.Event()

    def __call__(self, camera: str, row: int) -> np.ndarray:
        self.read_rows.append(row)
        if row >= self.blocked_from and not self.let_go.is_set():
            self.waiting.set()
            assert self.let_go.wait(PATIENCE_S)
        return frame_of(camera, row)


@pytest.fixture
def live() -> Iterator[Callable[..., PlaybackRobot]]:
    robots: list[PlaybackRobot] = []

    def make(recording: tuple[RecordedStep, ...], read_frame: Callable[[str, int], np.ndarray]) -> PlaybackRobot:
        robot = PlaybackRobot(robot_spec(), MonotonicClock(), recording, read_frame)
        robots.append(robot)
        robot.start()
        return robot

    yield make
    for robot in robots:
        robot.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "playback"]


def until(seen: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not seen():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.001)


def test_frames_that_lag_do_not_hold_up_the_joints(live: Callable[..., PlaybackRobot]) -> None:
    projector, recording = Projector(blocked_from=3), steps(even(400, 200.0))
    robot = live(recording, projector)
    robot.begin()
    assert projector.waiting.wait(PATIENCE_S)
    until(lambda: bool(robot.read().qpos[0] >= 0.2))
    seen = robot.read()  # the reader still waits
    row = round(seen.qpos[0] * 100)
    assert row >= 20
    assert robot.began_s is not None
    # The joints are those of now; the frame is the last that came, as old as it is.
    assert seen.joints_s == pytest.approx(robot.began_s + recording[row].joints_s)
    assert seen.images["front"].rgb[0, 0, 0] == 2
    assert seen.images["front"].captured_s == pytest.approx(robot.began_s + recording[2].captured_s["front"])
    projector.let_go.set()
    until(lambda: bool(robot.read().images["front"].rgb[0, 0, 0] > 3))
    # What was past by then was never read.
    assert 10 not in projector.read_rows


def test_closing_ends_the_thread_that_has_read_far_enough(live: Callable[..., PlaybackRobot]) -> None:
    projector = Projector(blocked_from=10**6)
    live(steps(even(100)), projector)  # the fixture closes it, and looks for the thread
    until(lambda: max(projector.read_rows) >= 10)


def test_closing_before_the_start_and_before_the_end(live: Callable[..., PlaybackRobot]) -> None:
    closed = []
    robot = PlaybackRobot(
        robot_spec(), MonotonicClock(), steps(even()), frame_of, close_recording=lambda: closed.append(1)
    )
    robot.close()
    robot.close()
    assert closed == [1]


def test_two_threads_may_read(live: Callable[..., PlaybackRobot]) -> None:
    """The motion gate's and the runtime's."""
    robot = live(steps(even(600, 1000.0), age_s=0.0), frame_of)
    found: list[Observation | Exception] = []

    def watch() -> None:
        try:
            while not robot.finished:
                found.append(robot.read())
        except Exception as error:  # noqa: BLE001 - looked at below
            found.append(error)

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    robot.begin()
    for thread in threads:
        thread.join()
    assert [each for each in found if isinstance(each, Exception)] == []
    assert all(
        image.captured_s <= each.stamp_s + 1e-9
        for each in found
        if isinstance(each, Observation)
        for image in each.images.values()
    )
