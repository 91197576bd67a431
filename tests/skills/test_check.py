from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skill_bench import input_spec, small_spec, write_learned, write_skill

from hal.types import ActionDim, ActionKind, ActionSpec, RobotSpec
from policies.manifest import read_run, write_run
from skills.check import CheckReport, check
from skills.episodes import EpisodeHeader, EpisodeStep, EpisodeWriter
from skills.store import SkillEntry, SkillStore

ROBOT = small_spec()
POSE = [0.1, -0.6, 1.4, -0.7, 0.0, 0.0]


def checked(root: Path, robot: RobotSpec = ROBOT, *, action: Any = None, **execution: Any) -> CheckReport:
    changes = {} if action is None else {"action": action}
    entry = write_learned(root, "pick", input_spec(ROBOT, **changes), **execution)
    return check(entry, robot)


def beyond(joint: int, excess_rad: float) -> list[float]:
    pose = list(POSE)
    pose[joint] = ROBOT.joints[joint].high + excess_rad
    return pose


def without(robot: RobotSpec, **fields: Any) -> RobotSpec:
    return robot.model_copy(update=fields)


def test_a_skill_that_fits(tmp_path: Path) -> None:
    report = checked(tmp_path, start_pose=POSE, action_dim=8, stats_file="run_1/dataset_stats.pt")
    assert report == CheckReport("local/pick", "bench", (), ())
    assert report.runnable


def test_other_cameras(tmp_path: Path) -> None:
    report = checked(tmp_path, without(ROBOT, cameras=ROBOT.cameras[:1]))
    assert report.problems == (
        "run_1/run.json: input_spec.cameras: the policy sees camera arm_camera; robot bench has main_camera. "
        "Use a skill that was made for this robot.",
    )


def test_other_joints(tmp_path: Path) -> None:
    swapped = (ROBOT.joints[1], ROBOT.joints[0], *ROBOT.joints[2:])
    report = checked(tmp_path, without(ROBOT, joints=swapped))
    assert len(report.problems) == 1
    assert report.problems[0].startswith("run_1/run.json: input_spec.joint_names: made for the joints joint1, joint2,")
    assert report.problems[0].endswith(
        "robot bench has joint2, joint1, joint3, joint4, joint5, joint6, in this order. "
        "Use a skill that was made for this robot."
    )


def test_a_policy_that_drives_a_robot_without_a_base(tmp_path: Path) -> None:
    report = checked(tmp_path, without(ROBOT, base=None))
    assert len(report.problems) == 1
    assert report.problems[0].startswith("run_1/run.json: input_spec.action: action base_linear moves a base")


def test_an_action_of_an_unknown_kind(tmp_path: Path) -> None:
    dims = input_spec(ROBOT).action
    report = checked(tmp_path, action=({**dims[0], "kind": "joint_torque"}, *dims[1:]))
    assert len(report.problems) == 1
    assert report.problems[0].startswith("run_1/run.json: input_spec.action: kind: Input should be 'joint_position'")


def test_an_action_in_another_unit(tmp_path: Path) -> None:
    dims = input_spec(ROBOT).action
    report = checked(tmp_path, action=({**dims[0], "unit": "rad/s"}, *dims[1:]))
    assert report.problems == (
        "run_1/run.json: input_spec.action: action joint1 is a joint_position in 'rad/s', expected rad or m. "
        "Use a skill that was made for this robot.",
    )


def test_another_number_of_actions(tmp_path: Path) -> None:
    report = checked(tmp_path, action_dim=10)
    assert report.problems == (
        "metadata.json: execution.action_dim is 10, the checkpoint gives 8. Remove it, or activate another run.",
    )


def test_another_robot_of_the_same_build_is_worth_a_note(tmp_path: Path) -> None:
    report = checked(tmp_path, without(ROBOT, name="twin"))
    assert report.runnable
    assert report.notes == ("run_1/run.json: input_spec.robot: trained on robot bench, this is twin.",)


@pytest.mark.parametrize("field", ["start_pose", "end_pose"])
def test_a_pose_of_another_length(tmp_path: Path, field: str) -> None:
    report = checked(tmp_path, **{field: POSE[:5]})
    assert report.problems == (
        f"metadata.json: execution.{field} has 5 numbers, robot bench has 6 joints. "
        "Give one number per joint, or remove it.",
    )


def test_a_pose_beyond_the_limits(tmp_path: Path) -> None:
    report = checked(tmp_path, end_pose=beyond(3, 0.2))
    assert report.problems == (
        "metadata.json: execution.end_pose: joint4 is 2.1199, robot bench allows -1.7453 to 1.9199. "
        "It would be clipped and never reached. Correct the pose.",
    )


def test_a_pose_beyond_the_limits_by_less_than_the_tolerance_is_worth_a_note(tmp_path: Path) -> None:
    report = checked(tmp_path, end_pose=beyond(3, 0.006))
    assert report.runnable
    assert report.notes == (
        "metadata.json: execution.end_pose: joint4 is 1.9259, robot bench allows -1.7453 to 1.9199. "
        "The arm goes to the limit, which is near.",
    )
    assert not checked(tmp_path, end_pose=beyond(3, 0.006), settle_tolerance_rad=0.005).runnable


def test_a_checkpoint_that_was_changed(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(ROBOT))
    checkpoint = entry.path / "run_1/act_policy_step_2.pth"
    content = bytearray(checkpoint.read_bytes())
    content[0] ^= 1
    checkpoint.write_bytes(content)
    report = check(entry, ROBOT)
    assert report.problems == (
        f"{checkpoint} is not the file that was trained: its SHA-256 differs from run.json's. "
        "Download the run again, or activate another one.",
    )
    assert check(entry, ROBOT, hash_files=False).runnable


def test_statistics_that_are_missing_or_changed(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(ROBOT))
    statistics = entry.path / "run_1/dataset_stats.pt"
    statistics.write_bytes(b"of another training")
    assert "dataset_stats.pt is not the file that was trained" in check(entry, ROBOT).problems[0]
    statistics.unlink()
    report = check(entry, ROBOT, hash_files=False)
    assert report.problems == (f"{statistics} is missing. Download the run again, or activate another one.",)


def test_statistics_of_another_run(tmp_path: Path) -> None:
    report = checked(tmp_path, stats_file="run_0/dataset_stats.pt")
    assert report.problems == (
        "metadata.json: execution.stats_file is run_0/dataset_stats.pt, which is not of the run run_1, "
        "whose checkpoint is used. Activate the run again.",
    )


def test_a_run_that_lists_no_statistics_or_not_the_checkpoint(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(ROBOT))
    manifest = read_run(entry.path / "run_1")
    write_run(entry.path / "run_1", manifest.model_copy(update={"files": {}}))
    report = check(entry, ROBOT)
    assert "run.json: files lists no statistics" in report.problems[0]
    assert report.problems[1].startswith("run.json does not list act_policy_step_2.pth")


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(ROBOT), start_pose=POSE[:2], action_dim=4)
    (entry.path / "run_1/run.json").write_text("{}")
    report = check(entry, without(ROBOT, base=None, cameras=()))
    assert report.problems[0].startswith("metadata.json: execution.start_pose has 2 numbers")
    assert "run.json: input_spec: Field required" in report.problems[1]


def test_what_cannot_be_read_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(ROBOT))
    assert check(entry, ROBOT).runnable
    (entry.path / "run_1/run.json").unlink()
    (entry.path / "run_1/run.json").mkdir()
    assert "run.json cannot be read: Is a directory." in check(entry, ROBOT).problems[0]


def test_a_skill_in_training(tmp_path: Path) -> None:
    entry = write_skill(tmp_path, "grasp", {"type": "learned", "execution": {"start_pose": POSE[:4]}})
    report = check(entry, ROBOT)
    assert [problem.split(".")[0] for problem in report.problems] == ["metadata", "no usable checkpoint yet"]


def test_a_checkpoint_that_is_gone_is_named(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(ROBOT))
    (entry.path / "run_1/act_policy_step_2.pth").unlink()
    report = check(SkillStore(tmp_path, tmp_path / "none").get("pick"), ROBOT)
    assert report.problems == (
        "pick/metadata.json: execution.checkpoint is 'run_1/act_policy_step_2.pth', which is not there. Restore the "
        'file, activate another run, or train one with "btruntime train run pick".',
    )


def test_fields_that_nothing_reads_are_worth_a_note(tmp_path: Path) -> None:
    report = checked(tmp_path, hold_s=2.0, legacy_runtime=True)
    assert report.runnable
    assert [note.split(" is set")[0] for note in report.notes] == [
        "metadata.json: execution.hold_s",
        "metadata.json: execution.legacy_runtime",
    ]


def test_poses(tmp_path: Path) -> None:
    entry = write_skill(tmp_path, "nod", {"type": "poses", "execution": {"poses": [POSE, beyond(0, 0.3), POSE[:3]]}})
    report = check(entry, ROBOT)
    assert [problem[:42] for problem in report.problems] == [
        "metadata.json: execution.poses[1]: joint1 ",
        "metadata.json: execution.poses[2] has 3 nu",
    ]


def test_broken_and_code_skills(tmp_path: Path) -> None:
    broken = write_skill(tmp_path, "nod", {"type": "poses", "execution": {"poses": []}})
    assert "execution.poses is empty" in check(broken, ROBOT).problems[0]
    (tmp_path / "sing.py").write_text("")
    code = SkillStore(tmp_path, tmp_path / "none").get("sing")
    assert check(code, ROBOT).problems == ("local/sing is a code skill; those that run are learned, replay and poses.",)


def write_replay(
    root: Path,
    robot: RobotSpec,
    *,
    qpos: Sequence[float] = POSE,
    action: ActionSpec | None = None,
    start_pose: Sequence[float] | None = None,
) -> SkillEntry:
    """A replay skill of three steps in which the arm stands at `qpos`."""
    action = action or robot.action_spec(base=robot.base is not None, progress=True)
    header = EpisodeHeader(
        robot=robot.name,
        data_frequency_hz=25.0,
        joint_names=robot.joint_names,
        action=action,
        software="test",
        start_utc=datetime(2026, 1, 1, tzinfo=UTC),
    )
    writer = EpisodeWriter(root / "replay/data", header, min_free_bytes=0)
    row = np.zeros(action.size)
    for step in range(3):
        writer.append(EpisodeStep(row, row, np.array(qpos), np.array(qpos), step_s=step / 25, arm_s=step / 25))
    writer.finalize()
    execution = {"replay_file": "data/episode_0.h5", "start_pose": start_pose}
    return write_skill(root, "replay", {"type": "replay", "execution": execution})


def test_a_replay_that_fits(tmp_path: Path) -> None:
    assert check(write_replay(tmp_path, ROBOT), ROBOT) == CheckReport("local/replay", "bench", (), ())


def test_a_replay_of_a_twin_is_worth_a_note(tmp_path: Path) -> None:
    report = check(write_replay(tmp_path, ROBOT), without(ROBOT, name="twin"))
    assert report.runnable
    assert report.notes == ("replay/data/episode_0.h5: recorded on robot bench, this is twin.",)


def test_a_replay_of_another_robot(tmp_path: Path) -> None:
    joints = tuple(joint.model_copy(update={"name": f"axis_{n}"}) for n, joint in enumerate(ROBOT.joints))
    report = check(write_replay(tmp_path, without(ROBOT, joints=joints)), ROBOT)
    assert len(report.problems) == 2
    assert report.problems[0].startswith("replay/data/episode_0.h5: action axis_0 moves joint 'axis_0'; robot bench")
    assert report.problems[1].startswith("replay/data/episode_0.h5: made for the joints axis_0, axis_1,")


def test_a_replay_that_drives_a_robot_without_a_base(tmp_path: Path) -> None:
    report = check(write_replay(tmp_path, ROBOT), without(ROBOT, base=None))
    assert len(report.problems) == 1
    assert "moves a base, and robot bench has none" in report.problems[0]


def test_a_replay_that_begins_beyond_the_limits(tmp_path: Path) -> None:
    report = check(write_replay(tmp_path, ROBOT, qpos=beyond(0, 0.3)), ROBOT)
    assert report.problems[0].startswith("replay/data/episode_0.h5: the first pose: joint1 is 1.8708")
    assert check(write_replay(tmp_path / "b", ROBOT, qpos=beyond(0, 0.3), start_pose=POSE), ROBOT).runnable


def test_a_replay_of_a_damaged_episode(tmp_path: Path) -> None:
    entry = write_replay(tmp_path, ROBOT)
    (tmp_path / "replay/data/episode_0.h5").write_bytes(b"not an episode")
    report = check(entry, ROBOT)
    assert len(report.problems) == 1
    assert "episode_0.h5" in report.problems[0]


def test_an_action_that_the_robot_has_twice(tmp_path: Path) -> None:
    dim = ActionDim(name="extra", kind=ActionKind.JOINT_VELOCITY, unit="rad/s", target="joint1")
    action = ActionSpec(dims=(*ROBOT.action_spec(base=False, progress=False).dims, dim))
    report = check(write_replay(tmp_path, ROBOT, action=action), ROBOT)
    assert report.problems == (
        "replay/data/episode_0.h5: actions joint1 and extra both move 'joint1'; keep one of them. "
        "Use a skill that was made for this robot.",
    )


def test_a_path_out_of_the_skill_is_refused(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(ROBOT), stats_file="../../etc/passwd")
    assert "execution.stats_file is '../../etc/passwd'" in check(entry, ROBOT).problems[0]
    document = json.loads((entry.path / "metadata.json").read_text())
    document["execution"]["checkpoint"] = "../other/act_policy_step_2.pth"
    escaping = write_skill(tmp_path, "pick", document)
    assert "execution.checkpoint" in check(escaping, ROBOT).problems[0]
