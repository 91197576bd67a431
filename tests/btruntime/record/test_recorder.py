"""The recorder's states, what it refuses, and what ends up in the file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from btruntime.record.recorder import RecorderError, RecorderState
from foundation.errors import BtruntimeError
from hal.motion import Resource
from hal.robot import RobotError
from hal.sim.robot import REST_POSE
from hal.sim.scene import Box, Look, SceneSpec
from hal.types import ActionKind, GripperSpec, SpecError
from skills.episodes import Episode, EpisodeWriteError, StepError, recover

RESTING = np.array(REST_POSE)
GRIPPERS = (GripperSpec(name="claw", max_rate_per_s=1.0), GripperSpec(name="suction"))

# States


def test_the_life_of_an_episode(make_studio, make_hand, data_dir):
    studio, hand = make_studio(), make_hand()
    recorder = studio.recorder
    assert (recorder.state, recorder.steps) == (RecorderState.IDLE, 0)
    recorder.new(hand)
    assert recorder.state is RecorderState.RECORDING
    studio.steps(5)
    assert recorder.steps == 5
    recorder.stop()
    assert recorder.state is RecorderState.STOPPED
    assert hand.closed == 1
    saved = recorder.save()
    assert (recorder.state, recorder.steps) == (RecorderState.IDLE, 0)
    assert (saved.path, saved.steps, saved.duration_s) == (data_dir / "episode_0.h5", 5, 0.25)
    recorder.new(make_hand())
    studio.steps(2)
    recorder.stop()
    assert recorder.save().path == data_dir / "episode_1.h5"


@pytest.mark.parametrize(
    ("state", "wrong"),
    [
        ("idle", ["step", "stop", "save", "discard"]),
        ("recording", ["new", "save", "discard"]),
        ("stopped", ["new", "step", "stop"]),
    ],
)
def test_every_wrong_order_is_refused(make_studio, make_hand, state, wrong):
    studio = make_studio()
    recorder = studio.recorder
    if state != "idle":
        recorder.new(make_hand())
        studio.steps(2)
    if state == "stopped":
        recorder.stop()
    for name in wrong:
        with pytest.raises(RecorderError, match=f"the recorder is {state}, expected (idle|recording|stopped)"):
            recorder.new(make_hand()) if name == "new" else getattr(recorder, name)()
        assert recorder.state == state
        assert recorder.steps == (0 if state == "idle" else 2)


def test_it_stops_by_itself_at_the_limit(make_studio, make_hand):
    studio = make_studio(max_timesteps=4)
    studio.recorder.record(make_hand())
    assert studio.recorder.state is RecorderState.STOPPED
    assert studio.recorder.save().steps == 4


def test_it_stops_when_the_leader_has_finished_and_when_cancelled(make_studio, make_hand):
    studio = make_studio()
    hand = make_hand()
    hand.finished = True
    studio.recorder.record(hand)
    assert studio.recorder.steps == 1
    studio.recorder.discard()
    studio.recorder.record(make_hand(), cancelled=lambda: studio.recorder.steps >= 3)
    assert studio.recorder.state is RecorderState.STOPPED
    assert studio.recorder.steps == 3


def test_discard_goes_to_the_trash(make_studio, make_hand, data_dir):
    studio = make_studio()
    studio.recorder.new(make_hand())
    studio.steps(3)
    studio.recorder.stop()
    trashed = studio.recorder.discard()
    assert trashed.parent == data_dir / ".trash"
    assert trashed.is_file()
    assert not list(data_dir.glob("episode_*.h5"))
    assert studio.recorder.state is RecorderState.IDLE


def test_nothing_recorded_cannot_be_saved_but_discarded(make_studio, make_hand):
    studio = make_studio()
    studio.recorder.new(make_hand())
    studio.recorder.stop()
    with pytest.raises(EpisodeWriteError, match="Discard it"):
        studio.recorder.save()
    assert studio.recorder.discard().is_file()


def test_close_leaves_an_unsaved_episode_to_be_recovered(make_studio, make_hand, data_dir):
    studio, hand = make_studio(), make_hand()
    studio.recorder.new(hand)
    studio.steps(7)
    studio.recorder.close()
    studio.recorder.close()
    assert (studio.recorder.state, hand.closed) == (RecorderState.IDLE, 1)
    (found,) = recover(data_dir)
    assert found.steps == 7


# Refusals at the beginning


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("freeze:arm_camera", "arm_camera has never delivered"),
        ("freeze:main_camera@1", "main_camera last delivered 2.1 s ago"),
        ("drop_joints", "joints last delivered 3.0 s ago"),
        ("slow:0.5", "joints last delivered 0.5 s ago"),
        ("nan_joints", "not finite"),
    ],
)
def test_it_does_not_begin_with_a_dead_stream(make_studio, make_hand, data_dir, fault, says):
    studio, hand = make_studio(faults=(fault,), settle_s=3.0), make_hand()
    with pytest.raises(RecorderError, match=f"cannot begin an episode: .*{says}"):
        studio.recorder.new(hand)
    assert studio.recorder.state is RecorderState.IDLE
    assert not data_dir.exists()


def test_it_does_not_begin_with_a_robot_that_is_gone(make_studio, make_hand):
    studio = make_studio(settle_s=0.3)
    studio.inject("gone")
    with pytest.raises(RobotError):
        studio.recorder.new(make_hand())
    assert studio.recorder.state is RecorderState.IDLE


def test_it_does_not_begin_without_commands_and_lets_the_leader_go(make_studio, make_hand, data_dir):
    studio, hand = make_studio(), make_hand()
    hand.silent = True
    with pytest.raises(RecorderError, match="the leader gives no commands"):
        studio.recorder.new(hand)
    assert hand.closed == 1
    assert not data_dir.exists()
    studio.recorder.new(make_hand())


def test_it_does_not_begin_with_the_leader_of_another_robot(make_studio, make_hand):
    hand = make_hand(lambda t: np.zeros(7))
    with pytest.raises(RecorderError, match=r"positions \(7,\), robot reference has 6 joints"):
        make_studio().recorder.new(hand)
    assert hand.closed == 1


@pytest.mark.parametrize(
    ("grippers", "fractions", "says"),
    [
        (GRIPPERS, None, r"fractions \(0,\), expected \(2,\): .* not joints: claw, suction\. Is it the leader"),
        (GRIPPERS, np.zeros(3), r"fractions \(3,\), expected \(2,\)"),
        (GRIPPERS, np.zeros((2, 1)), r"fractions \(2, 1\), expected \(2,\)"),
        ((), np.zeros(1), r"fractions \(1,\), expected \(0,\): .* not joints: none\. Is it the leader"),
    ],
)
def test_it_does_not_begin_with_a_leader_of_other_grippers(make_studio, make_hand, grippers, fractions, says):
    hand = make_hand(grippers=None if fractions is None else lambda t: fractions)
    with pytest.raises(RecorderError, match=says):
        make_studio(grippers=grippers).recorder.new(hand)
    assert hand.closed == 1


def test_a_disk_that_refuses_leaves_no_lease_behind(make_studio, make_hand, data_dir):
    studio, hand = make_studio(), make_hand()
    data_dir.write_text("a file where the directory should be")
    with pytest.raises(EpisodeWriteError):
        studio.recorder.new(hand)
    assert hand.closed == 1
    assert studio.recorder.state is RecorderState.IDLE
    data_dir.unlink()
    studio.recorder.new(make_hand())


def test_it_does_not_begin_while_the_robot_is_stopped(make_studio, make_hand):
    studio = make_studio()
    studio.gate.stop("somebody pressed it")
    with pytest.raises(RecorderError, match="stopped: somebody pressed it"):
        studio.recorder.new(make_hand())


def test_unknown_cameras_are_named(make_studio, make_hand):
    with pytest.raises(SpecError, match="no camera 'nose'; it has main_camera, arm_camera"):
        make_studio(cameras=["nose"]).recorder.new(make_hand())


# Trouble on the way


def troubled(studio, hand, cause, error, says: str, data_dir) -> Episode:
    """Record 10 steps, let `cause` happen, expect the error, and save what there is."""
    studio.recorder.new(hand)
    studio.steps(10)
    cause()
    with pytest.raises(error, match=says):
        studio.steps(60)
    assert studio.recorder.state is RecorderState.STOPPED
    assert hand.closed == 1
    steps = studio.recorder.steps
    assert 10 <= steps < 40
    studio.recorder.close()
    (found,) = recover(data_dir)
    assert found.steps == steps
    return Episode(found.episode)


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("drop_joints", RecorderError, "Sensor joints is .* old"),
        ("freeze:arm_camera", RecorderError, "Sensor arm_camera is .* old"),
        ("gone", BtruntimeError, "does not answer"),
        ("nan_joints", StepError, "qpos .* finite"),
    ],
)
def test_a_stream_that_dies_ends_the_episode_and_keeps_its_steps(make_studio, make_hand, data_dir, fault, error, says):
    studio = make_studio()
    with troubled(studio, make_hand(), lambda: studio.inject(fault), error, says, data_dir) as episode:
        assert np.isfinite(episode.qpos).all()


def test_a_leader_that_falls_silent(make_studio, make_hand, data_dir):
    studio, hand = make_studio(), make_hand()
    troubled(studio, hand, lambda: setattr(hand, "silent", True), RecorderError, "leader went silent", data_dir).close()


def test_a_leader_that_repeats_itself(make_studio, make_hand, data_dir):
    """Found in review: commands were stamped by the recorder, so that a dead leader's last one moved on for ever."""
    studio, hand = make_studio(), make_hand()
    troubled(studio, hand, lambda: setattr(hand, "stuck", True), RecorderError, "No command came", data_dir).close()


def test_a_leader_that_loses_its_grippers(make_studio, make_hand, data_dir):
    studio, hand = make_studio(grippers=GRIPPERS), make_hand(grippers=lambda t: np.ones(2))
    lose = lambda: setattr(hand, "grippers", None)  # noqa: E731
    troubled(studio, hand, lose, RecorderError, r"gripper fractions \(0,\), expected \(2,\)", data_dir).close()


def test_somebody_else_takes_the_robot(make_studio, make_hand, data_dir):
    studio = make_studio()
    take = lambda: studio.gate.acquire("other", [Resource.BASE])  # noqa: E731
    troubled(studio, make_hand(), take, RecorderError, "somebody else took over", data_dir).close()


def test_the_stop_button(make_studio, make_hand, data_dir):
    studio = make_studio()
    press = lambda: studio.gate.stop("the button")  # noqa: E731
    troubled(studio, make_hand(), press, RecorderError, "stopped: the button", data_dir).close()


def test_after_trouble_the_episode_can_also_be_saved(make_studio, make_hand):
    studio, hand = make_studio(), make_hand()
    studio.recorder.new(hand)
    studio.steps(4)
    hand.silent = True
    with pytest.raises(RecorderError, match="stopped after 4 steps"):
        studio.recorder.step()
    assert studio.recorder.save().steps == 4


# What is in the file


def recorded(studio, hand, steps: int = 24) -> Episode:
    studio.recorder.new(hand)
    studio.steps(steps)
    studio.recorder.stop()
    return Episode(studio.recorder.save().path)


def test_without_a_base(make_studio, make_hand):
    with recorded(make_studio(base=False), make_hand(), 12) as episode:
        assert episode.action.shape == (12, 6)
        assert episode.applied_action.shape == (12, 6)
        assert episode.cmd_vel is None
        assert episode.odom is None


def test_with_a_base(make_studio, make_hand):
    with recorded(make_studio(), make_hand()) as episode:
        spec = episode.header.action
        assert episode.action.shape == (24, 10)
        assert spec.index(ActionKind.PROGRESS) == 8
        for action in (episode.action, episode.applied_action):
            assert action[:, 8] == pytest.approx(np.linspace(0, 1, 24))
            assert action[:, 9].tolist() == [0.0] * 14 + [1.0] * 10
        assert (episode.action[:, 6:8] == [0.1, 0.2]).all()
        assert (episode.cmd_vel == [0.1, 0.2]).all()
        assert episode.odom[-1, 0] > 0.05
        assert (episode.header.source, episode.header.software) == ("teleop", "test 1")
        assert episode.header.data_frequency_hz == 20.0


@pytest.mark.parametrize("base", [True, False])
def test_grippers_that_are_not_joints_are_recorded_after_the_joints(make_studio, make_hand, base):
    studio = make_studio(grippers=GRIPPERS, base=base)
    plan = lambda t: np.array([0.5, 1.01])  # noqa: E731
    with recorded(studio, make_hand(grippers=plan)) as episode:
        assert episode.header.action.names[6:8] == ("claw", "suction")
        assert episode.action.shape == (24, 12 if base else 8)
        assert (episode.action[:, 6:8] == [0.5, 1.01]).all()
        assert (episode.applied_action[:, 6:8] == [0.5, 1.0]).all()
        if base:
            assert (episode.action[:, 8:10] == [0.1, 0.2]).all()
        assert episode.qpos.shape == (24, 6)
    assert studio.gate.setpoint.grippers.tolist() == [0.5, 1.0]


def test_a_leader_without_a_base_records_a_base_at_rest(make_studio, make_hand):
    with recorded(make_studio(), make_hand(base=None), 3) as episode:
        assert not episode.action[:, 6:8].any()
        assert not episode.cmd_vel.any()


def test_asked_and_applied_differ_where_limits_cut(make_studio, make_hand):
    beyond = RESTING + [0.0, 0.0, 0.11, 0.0, 0.0, 0.0]  # 1.587, limit 1.5708: too little for a fault
    with recorded(make_studio(), make_hand(lambda t: beyond, base=(0.404, 0.0))) as episode:
        assert episode.action[:, 2] == pytest.approx(beyond[2])
        assert episode.applied_action[:, 2] == pytest.approx(1.5708)
        assert episode.action[:, 6] == pytest.approx(0.404)
        assert episode.applied_action[:, 6] == pytest.approx(0.4)
        same = [0, 1, 3, 4, 5, 7, 8, 9]
        assert episode.applied_action[:, same] == pytest.approx(episode.action[:, same])


def test_a_slower_camera_repeats_and_says_so(make_studio, make_hand):
    with recorded(make_studio(), make_hand()) as episode:
        assert not episode.stale("arm_camera").any()
        slower = episode.stale("main_camera")
        assert not slower[0]
        assert slower.sum() in (11, 12)
        for step in range(1, 24):
            repeats = episode.image_s("main_camera")[step] == episode.image_s("main_camera")[step - 1]
            assert slower[step] == repeats
            if repeats:
                assert (episode.frame("main_camera", step) == episode.frame("main_camera", step - 1)).all()


def test_times_are_those_of_the_measurements(make_studio, make_hand):
    with recorded(make_studio(), make_hand()) as episode:
        assert episode.step_s == pytest.approx(np.arange(24) / 20.0)
        assert (np.abs(episode.step_s - episode.arm_s) <= 0.011).all()
        age_s = episode.step_s - episode.image_s("arm_camera")
        assert age_s.min() >= 0.01 - 1e-9
        assert age_s.max() <= 0.061


def test_joints_are_the_followers_not_the_leaders(make_studio, make_hand):
    with recorded(make_studio(), make_hand(lambda t: RESTING + [0.3 * min(t, 1.0), 0, 0, 0, 0, 0])) as episode:
        lag = episode.action[:, 0] - episode.qpos[:, 0]
        assert lag[10:19].min() > 0.01
        assert episode.qvel[10:19, 0] == pytest.approx(0.3, abs=0.05)


def test_cameras_can_be_chosen_and_resized(make_studio, make_hand):
    studio = make_studio(cameras=["arm_camera"], image_width=8, image_height=6)
    studio.recorder.new(make_hand())
    seen = studio.robot.read().images["arm_camera"].rgb
    studio.steps(2)
    studio.recorder.stop()
    with Episode(studio.recorder.save().path) as episode:
        assert episode.camera_names == ("arm_camera",)
        frame = episode.frame("arm_camera", 0)
        assert frame.shape == (6, 8, 3)
        # Area: each pixel is the mean of those it covers (pitfall R1 is bilinear by accident).
        means = seen.reshape(6, 2, 8, 2, 3).astype(float).mean(axis=(1, 3))
        assert np.abs(frame - means).max() <= 0.51
        assert (frame == cv2.resize(seen, (8, 6), interpolation=cv2.INTER_AREA)).all()


def test_frames_are_what_the_robot_saw_and_red_is_red(make_studio, make_hand):
    studio = make_studio()
    look = Look(light_direction=(0.0, 0.0, 1.0), ambient=0.5, diffuse=0.5, noise=0.0)
    red = (200 / 255, 10 / 255, 20 / 255)
    # It fills the left of the head's picture; the arm is on the right.
    board = Box("board", (0.6, 0.9, 0.004), (0.45, 0.0, 0.002), 0.0, red)
    studio.robot.reset(SceneSpec((board,), look), RESTING + [-1.3, 0, 0, 0, 0, 0])
    studio.clock.sleep_until(studio.clock.now() + 0.5)
    studio.recorder.new(make_hand(lambda t: RESTING + [-1.3, 0, 0, 0, 0, 0], base=(0.0, 0.0)))
    seen = []
    for _ in range(5):
        seen.append(studio.robot.read().images)
        studio.steps(1)
    studio.recorder.stop()
    with Episode(studio.recorder.save().path) as episode:
        for camera in episode.camera_names:
            for step, images in enumerate(seen):
                assert (episode.frame(camera, step) == images[camera].rgb).all()
        board_seen = episode.frame("main_camera", 4)[4:7, 2:6].reshape(-1, 3)
        assert np.abs(board_seen.mean(axis=0) - [200, 10, 20]).max() <= 3
