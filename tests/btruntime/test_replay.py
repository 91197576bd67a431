"""`btruntime dataset replay`: what fits is repeated, what does not is refused or cut, and a signal stops it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from episode_bench import CAMERA, make_header, make_rows, pictures, save

from btruntime.cli.main import main
from hal.sim.specs import demo_spec
from hal.types import ActionDim, ActionSpec
from skills.behaviours import ReplayLoop
from skills.behaviours.load import Recording
from skills.check import check_replay
from skills.episodes import Episode, save_episode
from skills.playback import robot_of
from skills.store import SkillStore

WAVE = Path(__file__).parents[2] / "skills/builtin/wave/data/episode_0.h5"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Skill `x`: 0 fits, 1 and 2 are beyond the robot's limits (actions; the first pose too), 3 is of another robot."""
    data_dir = SkillStore(tmp_path).create("x").data_dir
    data_dir.mkdir()
    for number in range(3):
        shutil.copy(WAVE, data_dir / f"episode_{number}.h5")
    high = demo_spec().position_limits[1][0]
    for number in (1, 2):
        with h5py.File(data_dir / f"episode_{number}.h5", "r+") as file:
            half = len(file["action"]) // 2
            file["action"][half:, 0] = high + 0.3
            if number == 2:
                file["qpos"][0, 0] = high + 0.3
    save(data_dir, 5, number=3)
    return data_dir


def replay(
    data_dir: Path, capsys: pytest.CaptureFixture[str], number: int, *options: str
) -> tuple[int, dict[str, object], str]:
    skills, flights = str(data_dir.parents[1]), str(data_dir.parents[1] / ".flights")
    words = ["dataset", "replay", "x", str(number), "--robot", "sim:demo", "--fast", "--quiet", "--json"]
    status = main([*words, "--skills-dir", skills, "--flights-dir", flights, *options])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, json.loads(out.splitlines()[-1]) if out else {}, out + err


def test_what_fits_is_repeated_and_measured(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found, out = replay(data_dir, capsys, 0)
    assert (status, found["outcome"], found["cut"], found["gate"]) == (0, "done", {}, {}), out
    joints = demo_spec().joints
    assert list(found["tracking"]) == [joint.name for joint in joints]
    means = [found["tracking"][joint.name]["mean"] for joint in joints if not joint.gripper]
    assert found["tracking_error_rad"] == pytest.approx(sum(means) / len(means))
    assert found["tracking_error_rad"] < 0.05
    assert all(each["mean"] <= each["largest"] for each in found["tracking"].values())
    assert Path(found["flight"]).is_file()


def test_half_the_speed_takes_twice_the_time(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Episode(data_dir / "episode_0.h5") as episode:
        duration_s = episode.duration_s
    for speed in ("1", "0.5"):
        found = replay(data_dir, capsys, 0, "--speed", speed)[1]
        assert f"{duration_s / float(speed):.1f} s, tracking error" in found["reason"]


def test_beyond_the_limits_the_gate_ends_it_and_clipped_it_goes_on(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found, out = replay(data_dir, capsys, 1)
    assert (status, found["outcome"]) == (1, "fault")
    assert "beyond the position limits" in out
    status, found, out = replay(data_dir, capsys, 1, "--clip")
    joint = demo_spec().joints[0].name
    assert list(found["cut"]) == [joint]
    assert found["cut"][joint]["share"] == pytest.approx(0.5, abs=0.02)
    assert found["cut"][joint] | {"share": 0} == {"share": 0, "largest": pytest.approx(0.3), "unit": "rad"}
    assert "position" not in found["gate"]
    assert f"cut to the limits of {demo_spec().name}: {joint} in 50% of the steps, by up to 0.30 rad" in out


def test_a_first_pose_beyond_the_limits_needs_clip(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, out = replay(data_dir, capsys, 2)
    assert status == 1
    assert "episode_2.h5 cannot be replayed on" in out
    assert "With --clip, what is beyond the limits is cut off." in out
    assert replay(data_dir, capsys, 2, "--clip")[1]["outcome"] in ("done", "fault")


def test_another_robots_episode_is_refused_with_and_without_clip(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ((), ("--clip",)):
        status, _, out = replay(data_dir, capsys, 3, *options)
        assert status == 1
        assert "episode_3.h5 cannot be replayed on" in out
        assert "made for the joints shoulder, elbow" in out
        assert "With --clip" not in out


def test_an_action_that_does_not_fit_is_a_problem_clipped_or_not(tmp_path: Path) -> None:
    header, rows = make_header(), make_rows(5)
    dims = (*header.action.dims, ActionDim.base("linear", 0.5))
    rows["action"] = rows["applied_action"] = np.column_stack([rows["action"], np.zeros(5)])
    header = make_header(action=ActionSpec(dims=dims))
    path = save_episode(tmp_path / "data", header, rows, frames={CAMERA: pictures(5)})
    with Episode(path) as episode:
        robot = robot_of(episode)
    for clip in (False, True):
        assert check_replay(path, robot, clip=clip) == ()
        (problem,) = check_replay(path, robot.model_copy(update={"base": None}), clip=clip)
        assert "base" in problem


def test_a_missing_number_and_wrong_options_are_said(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, out = replay(data_dir, capsys, 8)
    assert (status, "episode_8.h5: no such file" in out) == (1, True)
    words = ["dataset", "replay", "x", "0", "--skills-dir", str(data_dir.parents[1])]
    assert main([*words, "--fast", "--robot", f"playback:{WAVE}"]) == 1
    assert "--fast is for simulated robots" in capsys.readouterr().err
    for wrong in (["--speed", "3"], ["--speed", "fast"]):
        with pytest.raises(SystemExit):
            main([*words, *wrong])
        assert "is no time factor of 0.1 to 2" in capsys.readouterr().err


def test_ctrl_c_stops_the_robot(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, calls = ReplayLoop.advance, []

    def interrupted(leaf: ReplayLoop) -> object:
        calls.append(1)
        if len(calls) == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(leaf)

    monkeypatch.setattr(ReplayLoop, "advance", interrupted)
    status, found, _ = replay(data_dir, capsys, 0)
    assert (status, found["outcome"], found["reason"]) == (130, "cancelled", "stopped by SIGINT.")
    assert len(calls) == 10
    assert found["tracking"]


def test_velocities_are_cut_for_the_speed_at_which_they_are_replayed(tmp_path: Path) -> None:
    path = save(tmp_path / "data", 6)
    with Episode(path) as episode:
        robot = robot_of(episode)
    recording = Recording.read(path)
    action, limit = recording.action.copy(), robot.joints[0].max_speed
    action[:, 0] = 0.8 * limit
    fast = dataclasses.replace(recording, action=action)
    assert fast.within(robot)[1] == ()
    cut, (told,) = fast.within(robot, speed=2.0)
    assert cut.action[:, 0] == pytest.approx(limit / 2)
    np.testing.assert_array_equal(cut.action[:, 1:], action[:, 1:])
    assert (told.name, told.unit, told.share) == ("shoulder_vel", "rad/s", 1.0)
    assert told.largest == pytest.approx(0.3 * limit)


def test_what_is_cut_of_a_gripper_is_told_in_its_own_unit() -> None:
    recording, robot = Recording.read(WAVE), demo_spec()
    gripper = next(joint.name for joint in robot.joints if joint.gripper)
    fraction = ActionSpec(dims=(ActionDim.fraction(gripper),))
    action = np.linspace(0, 1.5, len(recording.action))[:, None]
    cut, (told,) = dataclasses.replace(recording, spec=fraction, action=action).within(robot)
    assert cut.action.max() == pytest.approx(1.0)
    assert (told.unit, told.largest) == ("1", pytest.approx(0.5))


def test_joints_in_another_order_are_cut_by_their_names() -> None:
    recording, robot = Recording.read(WAVE), demo_spec()
    turned = dataclasses.replace(
        recording, joint_names=recording.joint_names[::-1], qpos=recording.qpos[:, ::-1] + 10.0
    )
    cut, _ = turned.within(robot)
    assert cut.qpos[0].tolist() == robot.position_limits[1][::-1].tolist()
