from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from py_trees.common import Status
from skill_bench import CAMERAS, Bench, FakePolicy, done, holding, inline, input_spec

from policies.manifest import ManifestError
from policies.runner import InlineRunner
from skills.behaviours import LoadEpisode, LoadPolicy, PolicySlot, RecordingSlot, SensorsReady
from skills.outcome import Outcome


def test_sensors_that_deliver_are_ready_at_once() -> None:
    bench = Bench()
    leaf = SensorsReady(bench, CAMERAS)
    assert bench.tick(leaf) == Status.SUCCESS
    assert leaf.feedback_message == "joints, main_camera, arm_camera"


def test_a_sensor_that_never_delivers_is_waited_for_and_then_named() -> None:
    bench = Bench(faults=["freeze:arm_camera"])
    leaf = SensorsReady(bench, CAMERAS, timeout_s=1.0)
    assert bench.tick(leaf) == Status.RUNNING
    assert leaf.feedback_message == "waiting for arm_camera (never seen)"
    # One tick of 40 ms has passed.
    assert bench.run(leaf) == pytest.approx(0.96)
    assert (leaf.outcome, leaf.feedback_message) == (
        Outcome.FAULT,
        "no fresh data after 1 s from arm_camera (never seen). Check its connection.",
    )


def test_a_sensor_that_comes_in_time_is_enough() -> None:
    bench = Bench(faults=["freeze:arm_camera", "freeze:main_camera"])
    leaf = SensorsReady(bench, CAMERAS)
    bench.run(leaf, 1.0)
    assert "main_camera (never seen), arm_camera (never seen)" in leaf.feedback_message
    bench.robot.faults.heal()
    assert bench.run(leaf) <= 0.12
    assert leaf.status == Status.SUCCESS


def test_old_frames_do_not_count() -> None:
    bench = Bench()
    bench.inject("freeze:main_camera")
    bench.clock.sleep_until(1.0)
    leaf = SensorsReady(bench, CAMERAS, timeout_s=0.0)
    assert bench.tick(leaf) == Status.FAILURE
    assert leaf.feedback_message == "no fresh data after 0 s from main_camera (last 0.8 s ago). Check its connection."


def test_joints_without_numbers_are_not_ready_and_named_beside_a_camera() -> None:
    bench = Bench(faults=["nan_joints", "freeze:main_camera"])
    leaf = SensorsReady(bench, ["main_camera"])
    assert bench.tick(leaf) == Status.RUNNING
    assert leaf.feedback_message == "waiting for joints (no numbers), main_camera (never seen)"


def test_a_camera_that_the_robot_lacks_is_a_fault() -> None:
    bench = Bench()
    leaf = SensorsReady(bench, ["tail_camera"])
    assert bench.tick(leaf) == Status.FAILURE
    assert "has no camera 'tail_camera'; it has main_camera, arm_camera" in leaf.feedback_message


class SlowRunner(InlineRunner):
    """Loaded when it is told so."""

    loaded = False
    trouble: str | None = None

    @property
    def ready(self) -> bool:
        return self.loaded

    @property
    def error(self) -> str | None:
        return self.trouble


def slow_runner(bench: Bench) -> SlowRunner:
    return SlowRunner(FakePolicy(input_spec(bench.spec), lambda inputs, t_s: holding(inputs)))


def test_loading_a_policy_is_running_until_it_is_there_and_warm() -> None:
    bench, slot = Bench(), PolicySlot()
    runner, starting = slow_runner(bench), Future()
    bench.policies = lambda path: starting
    leaf = LoadPolicy(bench, slot, Path("run_1/act_policy_step_2.pth"))
    assert [bench.tick(leaf) for _ in range(3)] == [Status.RUNNING] * 3
    assert leaf.feedback_message == "loading act_policy_step_2.pth"
    starting.set_result(runner)
    assert bench.tick(leaf) == Status.RUNNING
    runner.loaded = True
    assert bench.tick(leaf) == Status.SUCCESS
    assert (slot.runner, slot.name) == (runner, "act_policy_step_2.pth")


def test_a_loaded_policy_needs_one_tick() -> None:
    bench, slot = Bench(), PolicySlot()
    runner = inline(FakePolicy(input_spec(bench.spec), lambda inputs, t_s: holding(inputs)))
    bench.policies = lambda path: done(runner)
    assert bench.tick(LoadPolicy(bench, slot, Path("a.pth"))) == Status.SUCCESS


def test_a_policy_that_cannot_be_loaded_fails_with_its_sentence() -> None:
    bench = Bench()
    runner = slow_runner(bench)
    starting: Future[InlineRunner] = Future()
    bench.policies = lambda path: starting
    leaf = LoadPolicy(bench, PolicySlot(), Path("a.pth"))
    bench.tick(leaf)
    starting.set_exception(ManifestError("run.json is missing. Download the run again."))
    assert bench.tick(leaf) == Status.FAILURE
    assert (leaf.outcome, leaf.feedback_message) == (Outcome.FAULT, "run.json is missing. Download the run again.")
    runner.trouble = "a.pth is damaged."
    bench.policies = lambda path: done(runner)
    assert bench.tick(leaf) == Status.FAILURE
    assert leaf.feedback_message == "a.pth is damaged."


def test_an_episode_is_read_off_the_thread_and_once(tmp_path: Path) -> None:
    bench, slot, reading, asked = Bench(), RecordingSlot(), Future(), []

    def later(work):
        asked.append(work)
        return reading

    bench.background = later
    leaf = LoadEpisode(bench, slot, Path(__file__).parents[3] / "skills/builtin/wave/data/episode_0.h5")
    assert bench.tick(leaf) == Status.RUNNING
    assert leaf.feedback_message == "reading episode_0.h5"
    reading.set_result(asked[0]())
    assert bench.tick(leaf) == Status.SUCCESS
    steps = len(slot.recording.times_s)
    assert leaf.feedback_message == f"episode_0.h5, {steps} steps"
    assert slot.recording.times_s[0] == 0
    assert slot.recording.action.shape == (steps, slot.recording.spec.size)
    np.testing.assert_array_equal(slot.first_pose(bench.spec.joint_names), slot.recording.qpos[0])
    assert bench.tick(leaf) == Status.SUCCESS
    assert len(asked) == 1


@pytest.mark.parametrize("content", [None, b"", b"no episode at all"])
def test_an_episode_that_cannot_be_read_is_a_fault_that_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    bench, path = Bench(), tmp_path / "episode_3.h5"
    if content is not None:
        path.write_bytes(content)
    leaf = LoadEpisode(bench, RecordingSlot(), path)
    assert bench.tick(leaf) == Status.FAILURE
    assert leaf.outcome is Outcome.FAULT
    assert "episode_3.h5" in leaf.feedback_message
    assert "internal error" not in leaf.feedback_message
