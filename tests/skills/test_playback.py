"""An episode as a robot: what could have recorded it, its steps, and the addresses that name it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from episode_bench import CAMERA, HEIGHT, RATE_HZ, WIDTH, make_header, make_rows, pictures, save, write_video

from hal.clock import VirtualClock
from hal.connect import connect
from hal.motion import bind_action
from hal.robot import RobotError
from hal.types import CameraSpec, GripperSpec
from skills.episodes import Episode, EpisodeError, save_episode
from skills.playback import Demonstration, EpisodePlayback, robot_of, steps_of
from skills.store import SkillStore

WAVE = Path(__file__).parents[2] / "skills/builtin/wave/data/episode_0.h5"


@pytest.fixture
def episode(tmp_path: Path) -> Path:
    return save(tmp_path / "skills" / "swing" / "data", 12, number=3)


def test_the_robot_has_room_for_what_was_done_and_a_gripper_that_nobody_measured(episode: Path) -> None:
    with Episode(episode) as opened:
        spec = robot_of(opened)
        asked = bind_action(opened.header.action, spec)
        values = np.array([asked.values(action) for action in opened.action])
        assert (values >= asked.low).all()
        assert (values <= asked.high).all()
        low, high = spec.position_limits
        assert (opened.qpos > low + 0.4).all()
        assert (opened.qpos < high - 0.4).all()
    assert spec.name == "two-joints"
    assert spec.grippers == (GripperSpec(name="claw"),)
    assert spec.base is None
    (camera,) = spec.cameras
    assert camera.model_copy(update={"rate_hz": RATE_HZ}) == CameraSpec(
        name=CAMERA, width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ
    )
    assert camera.rate_hz == pytest.approx(RATE_HZ)


def test_a_measured_gripper_and_a_base_are_found() -> None:
    with Episode(WAVE) as opened:
        spec = robot_of(opened)
        assert spec.grippers == ()
        assert spec.joint_names == opened.header.joint_names
        bind_action(opened.header.action, spec)


def test_repeated_frames_do_not_count_as_frames(tmp_path: Path) -> None:
    rows = make_rows(20)
    rows[f"timestamps/images/{CAMERA}"] = np.repeat(rows["timestamps/step"][::2], 2) - 0.01
    path = save_episode(tmp_path, make_header(), rows, frames={CAMERA: pictures(20)})
    with Episode(path) as opened:
        assert robot_of(opened).cameras[0].rate_hz == pytest.approx(RATE_HZ / 2)


def test_no_step_shows_anything_from_after_it(tmp_path: Path) -> None:
    with Episode(save(tmp_path, 6, frame_age_s=-0.02)) as opened:
        for step in steps_of(opened):
            assert step.captured_s[CAMERA] == step.at_s
            assert step.joints_s == pytest.approx(step.at_s - 0.01)
    with Episode(save(tmp_path, 6)) as opened:
        assert [step.captured_s[CAMERA] for step in steps_of(opened)] == pytest.approx((opened.step_s - 0.03).tolist())


def test_the_command_in_force_is_the_last_one_given(episode: Path) -> None:
    with Episode(episode) as opened:
        demonstration = Demonstration(opened.header.action, opened.action, opened.step_s)
        actions = opened.action
    for t_s, row in ((-1.0, 0), (0.0, 0), (0.099, 0), (0.1, 1), (0.55, 5), (9.0, 11)):
        assert demonstration.at(t_s).tolist() == actions[row].tolist()


def test_an_episode_plays_with_its_video(tmp_path: Path) -> None:
    path = save(tmp_path / "data", 8, video=write_video(tmp_path / "a.mp4", 8, b_frames=2))
    clock = VirtualClock()
    robot = EpisodePlayback(path, clock)
    robot.start()
    robot.begin()
    with Episode(path) as opened:
        for row in range(8):
            clock.sleep_until(row / RATE_HZ)
            seen = robot.read()
            assert np.array_equal(seen.images[CAMERA].rgb, opened.frame(CAMERA, row))
            assert seen.qpos.tolist() == opened.qpos[row].tolist()
    robot.close()
    (tmp_path / "data" / "episode_0_top.mp4").unlink()
    robot = EpisodePlayback(path, clock)
    with pytest.raises(RobotError, match=r"episode_0_top\.mp4: no such file"):
        robot.start()
    robot.close()


@pytest.mark.parametrize("form", ["{file}", "swing/3", "local/swing/3", "swing/episode_3", "swing/episode_3.h5"])
def test_an_address_names_a_file_or_an_episode_of_a_skill(
    episode: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("BTRUNTIME_SKILLS_DIR", str(tmp_path / "skills"))
    (episode.parents[1] / "metadata.json").write_text('{"name": "swing", "type": "learned", "execution": {}}')
    robot = connect(f"playback:{form.format(file=episode)}", VirtualClock())
    assert isinstance(robot, EpisodePlayback)
    assert robot.path == episode
    robot.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "names no file"),
        ("swing", "Expected playback:FILE.h5 or playback:SKILL/N"),
        ("swing/", "names no file"),
        ("swing/x", "names no file"),
        ("swing/" + "9" * 300, "names no file"),
        ("~nobody-of-this-name/episode_3.h5", "names no"),
        ("/nowhere/episode_3.h5", "names no file"),
        ("swing/4", r"episode_4\.h5 does not exist; there is 3\."),
        ("swung/3", "no skill in .*swung"),
        ("{file}?speed=2", "has no option speed"),
        ("{text}", "not an HDF5 file"),
    ],
)
def test_an_address_that_names_nothing_says_what_there_is(
    episode: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setenv("BTRUNTIME_SKILLS_DIR", str(tmp_path / "skills"))
    SkillStore(tmp_path / "skills")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(RobotError, match=says):
        connect(f"playback:{address.format(file=episode, text=tmp_path / 'text.h5')}", VirtualClock())


@pytest.mark.parametrize("path", ["qpos", "action", f"timestamps/images/{CAMERA}"])
def test_numbers_that_no_robot_gives_are_refused_in_a_sentence(episode: Path, path: str) -> None:
    with h5py.File(episode, "r+") as file:
        file[path][2] = np.nan
    with Episode(episode) as opened, pytest.raises(EpisodeError, match=r"episode_3\.h5: no robot can have recorded it"):
        robot_of(opened)
    with pytest.raises(RobotError, match="no robot can have recorded it"):
        connect(f"playback:{episode}", VirtualClock())
