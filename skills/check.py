"""Is this skill runnable on this robot, and if not, why not? Nothing moves, nothing is loaded into a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import BtruntimeError
from foundation.files import confined, sha256_of
from hal.motion.limits import bind_action
from hal.types import ActionSpec, RobotSpec
from policies.manifest import RunManifest, read_run
from skills.actions import action_spec_of
from skills.behaviours.load import Recording
from skills.metadata import LearnedExecution, PosesExecution, ReplayExecution
from skills.store import SkillEntry


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What is wrong (`problems`: it cannot run) and what one should know (`notes`)."""

    skill: str
    robot: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def runnable(self) -> bool:
        """Whether nothing was found that forbids to run it."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class _Finding:
    text: str
    problem: bool = True


def check(entry: SkillEntry, robot: RobotSpec, *, hash_files: bool = True) -> CheckReport:
    """Compare all that a skill says with a robot's spec.

    Args:
        entry: the skill.
        robot: what it should run on.
        hash_files: compare the checkpoint's SHA-256 with the run's manifest (reads the whole file).
    """
    try:
        found = list(_findings(entry, robot, hash_files))
    except BtruntimeError as error:
        found = [_Finding(str(error))]
    return CheckReport(
        skill=str(entry.id),
        robot=robot.name,
        problems=tuple(f.text for f in found if f.problem),
        notes=tuple(f.text for f in found if not f.problem),
    )


def _findings(entry: SkillEntry, robot: RobotSpec, hash_files: bool) -> Iterator[_Finding]:
    if entry.problem is not None:
        yield _Finding(entry.problem)
        return
    execution = entry.metadata.execution if entry.metadata is not None else None
    if isinstance(execution, LearnedExecution):
        yield from _learned(entry, execution, robot, hash_files)
    elif isinstance(execution, ReplayExecution):
        yield from _pose("execution.start_pose", execution.start_pose, robot)
        yield from _pose("execution.end_pose", execution.end_pose, robot)
        yield from _replay(entry.path, execution, robot)
    elif isinstance(execution, PosesExecution):
        for number, pose in enumerate(execution.poses, start=1):
            yield from _pose(f"execution.poses[{number - 1}]", pose, robot)
    else:
        yield _Finding(f"{entry.id} is a {entry.kind} skill; those that run are learned, replay and poses.")


def _learned(entry: SkillEntry, execution: LearnedExecution, robot: RobotSpec, hash_files: bool) -> Iterator[_Finding]:
    yield from _pose("execution.start_pose", execution.start_pose, robot)
    yield from _pose("execution.end_pose", execution.end_pose, robot)
    if entry.in_training:
        yield _Finding(f'no usable checkpoint yet. Train it with "btruntime train run {entry.id.name}".')
        return
    where = f"{entry.path.name}/metadata.json: execution.checkpoint"
    checkpoint = confined(entry.path, execution.checkpoint or "", what=where)
    manifest = read_run(checkpoint.parent)
    spec = manifest.input_spec
    yield from _joints(spec.joint_names, robot)
    for camera in spec.cameras:
        if camera.name not in robot.camera_names:
            has = ", ".join(robot.camera_names) or "none"
            yield _Finding(f"the policy sees camera {camera.name}; robot {robot.name} has {has}.")
    if execution.action_dim is not None and execution.action_dim != spec.action_dim:
        yield _Finding(
            f"metadata.json: execution.action_dim is {execution.action_dim}, the checkpoint gives {spec.action_dim}."
        )
    yield from _action(action_spec_of(spec), robot)
    if spec.robot != robot.name:
        yield _Finding(f"trained on robot {spec.robot}, this is {robot.name}.", problem=False)
    yield from _files(checkpoint, execution, entry.path, manifest, hash_files)


def _files(
    checkpoint: Path, execution: LearnedExecution, skill_dir: Path, manifest: RunManifest, hash_files: bool
) -> Iterator[_Finding]:
    files = [checkpoint]
    if execution.stats_file is not None:
        files.append(confined(skill_dir, execution.stats_file, what="metadata.json: execution.stats_file"))
    for file in files:
        if not file.is_file():
            yield _Finding(f"{file} is missing. Download the run again, or activate another one.")
        elif hash_files and sha256_of(file) != manifest.entry(file.name).sha256:
            yield _Finding(f"{file} is not the file that was trained: its SHA-256 differs from run.json's.")


def _replay(skill_dir: Path, execution: ReplayExecution, robot: RobotSpec) -> Iterator[_Finding]:
    path = confined(skill_dir, execution.replay_file, what=f"{skill_dir.name}/metadata.json: execution.replay_file")
    recording = Recording.read(path)
    yield from _joints(recording.joint_names, robot)
    yield from _action(recording.spec, robot)


def _joints(names: tuple[str, ...], robot: RobotSpec) -> Iterator[_Finding]:
    if names != robot.joint_names:
        made, has = ", ".join(names), ", ".join(robot.joint_names)
        yield _Finding(f"made for the joints {made}; robot {robot.name} has {has}, in this order.")


def _action(spec: ActionSpec, robot: RobotSpec) -> Iterator[_Finding]:
    try:
        bind_action(spec, robot)
    except BtruntimeError as error:
        yield _Finding(str(error))


def _pose(field: str, pose: tuple[float, ...] | None, robot: RobotSpec) -> Iterator[_Finding]:
    if not pose:
        return
    if len(pose) != len(robot.joints):
        joints = len(robot.joints)
        yield _Finding(f"metadata.json: {field} has {len(pose)} numbers, robot {robot.name} has {joints} joints.")
        return
    for joint, angle in zip(robot.joints, pose, strict=True):
        if not joint.low <= angle <= joint.high:
            yield _Finding(
                f"metadata.json: {field}: {joint.name} is {angle:g}, robot {robot.name} allows "
                f"{joint.low:g} to {joint.high:g}. It would be clipped and never reached."
            )
