"""Is this skill runnable on this robot, and if not, why not? Nothing moves, nothing is loaded into a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import BtruntimeError
from foundation.files import confined, sha256_of
from hal.motion.limits import bind_action
from hal.types import ActionSpec, RobotSpec, SpecError
from policies.manifest import MANIFEST_FILE, RunManifest, read_run, step_of
from policies.spec import InputSpec
from skills.actions import ActionSpecError, action_spec_of
from skills.behaviours.load import Recording
from skills.behaviours.move import DEFAULT_TOLERANCE_RAD
from skills.metadata import METADATA_NAME, Execution, LearnedExecution, Pose, PosesExecution, ReplayExecution
from skills.store import SkillEntry

_AGAIN = "Download the run again, or activate another one."
_OTHER_ROBOT = "Use a skill that was made for this robot."


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
    found: list[_Finding] = []
    try:
        # One by one: what was found before a file turned out to be unreadable is worth telling, too.
        for finding in _findings(entry, robot, hash_files):
            found.append(finding)  # noqa: PERF402
    except BtruntimeError as error:
        found.append(_Finding(str(error)))
    except OSError as error:
        found.append(_Finding(f"{error.filename or entry.path} cannot be read: {error.strerror}. {_AGAIN}"))
    return CheckReport(
        skill=str(entry.id),
        robot=robot.name,
        problems=tuple(f.text for f in found if f.problem),
        notes=tuple(f.text for f in found if not f.problem),
    )


def check_replay(episode: Path, robot: RobotSpec, *, clip: bool = False) -> tuple[str, ...]:
    """Why an episode cannot be repeated on a robot; nothing when it can.

    Args:
        episode: the file.
        robot: what should repeat it.
        clip: what is beyond the robot's limits will be cut off.

    Raises:
        EpisodeError: it cannot be read.
    """
    recording = Recording.read(episode)
    if clip:
        with suppress(SpecError):  # what does not fit is found below
            recording, _ = recording.within(robot)
    return tuple(f.text for f in _recording(episode.name, recording, ReplayExecution(), robot) if f.problem)


def _findings(entry: SkillEntry, robot: RobotSpec, hash_files: bool) -> Iterator[_Finding]:
    if entry.problem is not None:
        yield _Finding(entry.problem)
        return
    execution = entry.metadata.execution if entry.metadata is not None else None
    if execution is not None:
        yield from _poses(execution, robot)
        yield from _not_used(execution)
    if isinstance(execution, LearnedExecution):
        yield from _learned(entry, execution, robot, hash_files)
    elif isinstance(execution, ReplayExecution):
        yield from _replay(entry.path, execution, robot)
    elif not isinstance(execution, PosesExecution):
        yield _Finding(f"{entry.id} is a {entry.kind} skill; those that run are learned, replay and poses.")


def _learned(entry: SkillEntry, execution: LearnedExecution, robot: RobotSpec, hash_files: bool) -> Iterator[_Finding]:
    if entry.in_training:
        yield _Finding(_no_checkpoint(entry, execution))
        return
    where = f"{entry.path.name}/{METADATA_NAME}: execution.checkpoint"
    checkpoint = confined(entry.path, execution.checkpoint or "", what=where)
    manifest = read_run(checkpoint.parent)
    spec, source = manifest.input_spec, f"{checkpoint.parent.name}/{MANIFEST_FILE}: input_spec"
    misfits = [*_joints(f"{source}.joint_names", spec.joint_names, robot), *_cameras(source, spec, robot)]
    yield from _advised([*misfits, *_policy_action(source, spec, robot)])
    if execution.action_dim is not None and execution.action_dim != spec.action_dim:
        yield _Finding(
            f"{METADATA_NAME}: execution.action_dim is {execution.action_dim}, the checkpoint gives "
            f"{spec.action_dim}. Remove it, or activate another run."
        )
    yield from _origin(f"{source}.robot", "trained", spec.robot, robot)
    yield from _files(checkpoint, execution, entry.path, manifest, hash_files)


def _no_checkpoint(entry: SkillEntry, execution: LearnedExecution) -> str:
    train = f'"btruntime train run {entry.id.name}"'
    if execution.checkpoint is None:
        return f"no usable checkpoint yet. Train it with {train}."
    return (
        f"{entry.path.name}/{METADATA_NAME}: execution.checkpoint is {execution.checkpoint!r}, which is not there. "
        f"Restore the file, activate another run, or train one with {train}."
    )


def _files(
    checkpoint: Path, execution: LearnedExecution, skill_dir: Path, manifest: RunManifest, hash_files: bool
) -> Iterator[_Finding]:
    """The checkpoint, and what its run lists beside the checkpoints: the statistics that it is loaded with."""
    run = checkpoint.parent
    files = [checkpoint, *(run / name for name in manifest.files if step_of(name) is None)]
    if len(files) == 1:
        yield _Finding(f"{run / MANIFEST_FILE}: files lists no statistics. {_AGAIN}")
    if execution.stats_file is not None:
        field = f"{METADATA_NAME}: execution.stats_file"
        statistics = confined(skill_dir, execution.stats_file, what=field)
        if statistics not in files:
            yield _Finding(
                f"{field} is {execution.stats_file}, which is not of the run {run.name}, whose checkpoint is used. "
                "Activate the run again."
            )
    for file in files:
        if not file.is_file():
            yield _Finding(f"{file} is missing. {_AGAIN}")
        elif hash_files and sha256_of(file) != manifest.entry(file.name).sha256:
            yield _Finding(
                f"{file} is not the file that was trained: its SHA-256 differs from {MANIFEST_FILE}'s. {_AGAIN}"
            )


def _replay(skill_dir: Path, execution: ReplayExecution, robot: RobotSpec) -> Iterator[_Finding]:
    field = f"{skill_dir.name}/{METADATA_NAME}: execution.replay_file"
    recording = Recording.read(confined(skill_dir, execution.replay_file, what=field))
    yield from _recording(f"{skill_dir.name}/{execution.replay_file}", recording, execution, robot)


def _recording(source: str, recording: Recording, execution: ReplayExecution, robot: RobotSpec) -> Iterator[_Finding]:
    yield from _origin(source, "recorded", recording.robot, robot)
    joints = list(_joints(source, recording.joint_names, robot))
    yield from _advised([*_action(source, recording.spec, robot), *joints])
    if not joints and execution.start_pose is None:
        first = tuple(recording.qpos[0].tolist())
        yield from _pose(f"{source}: the first pose", first, robot, _tolerance_rad(execution))


def _joints(source: str, names: tuple[str, ...], robot: RobotSpec) -> Iterator[_Finding]:
    if names != robot.joint_names:
        made, has = ", ".join(names), ", ".join(robot.joint_names)
        yield _Finding(f"{source}: made for the joints {made}; robot {robot.name} has {has}, in this order.")


def _cameras(source: str, spec: InputSpec, robot: RobotSpec) -> Iterator[_Finding]:
    for camera in spec.cameras:
        if camera.name not in robot.camera_names:
            has = ", ".join(robot.camera_names) or "none"
            yield _Finding(f"{source}.cameras: the policy sees camera {camera.name}; robot {robot.name} has {has}.")


def _action(source: str, spec: ActionSpec, robot: RobotSpec) -> Iterator[_Finding]:
    try:
        bind_action(spec, robot)
    except BtruntimeError as error:
        yield _Finding(f"{source}: {error}")


def _policy_action(source: str, spec: InputSpec, robot: RobotSpec) -> Iterator[_Finding]:
    try:
        action = action_spec_of(spec)
    except ActionSpecError as error:
        yield _Finding(f"{source.removesuffix('input_spec')}{error}")
    else:
        yield from _action(f"{source}.action", action, robot)


def _advised(misfits: list[_Finding]) -> list[_Finding]:
    """The same, the last with what to do about all of them."""
    return misfits and [*misfits[:-1], _Finding(f"{misfits[-1].text} {_OTHER_ROBOT}")]


def _origin(source: str, how: str, made_on: str, robot: RobotSpec) -> Iterator[_Finding]:
    if made_on != robot.name:
        yield _Finding(f"{source}: {how} on robot {made_on}, this is {robot.name}.", problem=False)


def _not_used(execution: Execution) -> Iterator[_Finding]:
    for field in ("hold_s", "legacy_runtime"):
        if getattr(execution, field):
            yield _Finding(f"{METADATA_NAME}: execution.{field} is set, and not used by this version.", problem=False)


def _poses(execution: Execution, robot: RobotSpec) -> Iterator[_Finding]:
    """Every pose that the metadata states."""
    poses: dict[str, Pose | None] = {}
    if isinstance(execution, PosesExecution):
        poses = {f"poses[{number}]": pose for number, pose in enumerate(execution.poses)}
    elif isinstance(execution, LearnedExecution | ReplayExecution):
        poses = {"start_pose": execution.start_pose, "end_pose": execution.end_pose}
    for field, pose in poses.items():
        if pose is not None:
            yield from _pose(f"{METADATA_NAME}: execution.{field}", pose, robot, _tolerance_rad(execution))


def _tolerance_rad(execution: Execution) -> float:
    stated = execution.settle_tolerance_rad
    return DEFAULT_TOLERANCE_RAD if stated is None else stated


def _pose(source: str, pose: Pose, robot: RobotSpec, tolerance_rad: float) -> Iterator[_Finding]:
    if len(pose) != len(robot.joints):
        yield _Finding(
            f"{source} has {len(pose)} numbers, robot {robot.name} has {len(robot.joints)} joints. "
            "Give one number per joint, or remove it."
        )
        return
    for joint, angle in zip(robot.joints, pose, strict=True):
        beyond = max(joint.low - angle, angle - joint.high)
        if beyond <= 0:
            continue
        serious = beyond > tolerance_rad
        yield _Finding(
            f"{source}: {joint.name} is {angle:g}, robot {robot.name} allows {joint.low:g} to {joint.high:g}. "
            + (
                "It would be clipped and never reached. Correct the pose."
                if serious
                else "The arm goes to the limit, which is near."
            ),
            problem=serious,
        )
