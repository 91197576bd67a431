"""`playback:FILE` or `playback:SKILL/N`: a recorded episode as a robot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from foundation.errors import BtruntimeError
from hal.clock import Clock
from hal.connect import Address
from hal.playback import PlaybackRobot, RecordedStep
from hal.robot import RobotError
from hal.types import (
    ActionKind,
    ActionSpec,
    Array,
    BaseSpec,
    CameraSpec,
    GripperSpec,
    JointSpec,
    RobotSpec,
)
from skills.episodes import Episode, EpisodeError, EpisodeHeader
from skills.episodes.naming import episode_files, episode_number, episode_path
from skills.store import SkillStore

_CONTROL_HZ = 100.0
# Other episodes of the same skill reach further than this one.
_MARGIN = 0.5  # of the range that was recorded, on either side
_MARGIN_RAD = 0.5
_FASTER = 2.0
_BRAKING_S = 0.1
_LEAST_SPEED = 0.5


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What the person commanded in an episode: (T, A) actions at (T,) seconds since its start."""

    spec: ActionSpec
    action: Array
    times_s: Array

    def at(self, t_s: float) -> Array:
        """(A,) the command that was in force at that time: the last one given."""
        row = int(np.searchsorted(self.times_s, t_s + 1e-9, side="right")) - 1
        command: Array = self.action[min(max(row, 0), len(self.action) - 1)]
        return command


class EpisodePlayback(PlaybackRobot):
    """An episode as a robot, with what the person did in it.

    Attributes:
        path: of the episode.
        demonstration: what was commanded in it.
    """

    def __init__(self, path: Path, clock: Clock):
        episode = Episode(path)
        try:
            spec, steps = robot_of(episode), steps_of(episode)
            self.path = path
            self.demonstration = Demonstration(episode.header.action, episode.action, episode.step_s)
            super().__init__(spec, clock, steps, episode.frame, close_recording=episode.close)
        except BaseException:
            episode.close()
            raise


def connect_playback(address: Address, clock: Clock) -> EpisodePlayback:
    """The episode of that file, or of that skill of the user's, as a robot.

    Raises:
        RobotError: there is no such file, skill or episode, or the episode cannot be played.
    """
    address.refuse_unknown()
    path = _episode_path(address.path)
    try:
        return EpisodePlayback(path, clock)
    except EpisodeError as error:
        raise RobotError(f"playback: {error}") from error


def _episode_path(text: str) -> Path:
    if os.path.isfile(path := os.path.expanduser(text)):  # never raises, whatever the text is
        return Path(path)
    skill, slash, name = text.rpartition("/")
    number = episode_number(name if name.endswith(".h5") else f"episode_{name.removeprefix('episode_')}.h5")
    if not slash or number is None or skill.startswith("/"):
        raise RobotError(
            f"playback:{text} names no file. Expected playback:FILE.h5 or playback:SKILL/N, for example "
            f"playback:pick-up-cup/3."
        )
    store = SkillStore()
    try:
        data_dir = store.get(skill).data_dir
    except BtruntimeError as error:
        raise RobotError(
            f"playback:{text} names no file, and no skill in {store.user_dir}: {error} "
            f"With another --skills-dir, give the episode's file."
        ) from error
    found = episode_files(data_dir)
    if number not in found:
        known = ", ".join(map(str, found)) or "none"
        raise RobotError(f"playback:{text}: {episode_path(data_dir, number)} does not exist; there is {known}.")
    return found[number]


def steps_of(episode: Episode) -> tuple[RecordedStep, ...]:
    """The sensors of an episode, step by step, frames excepted.

    A step shows nothing from after it: where a recorder's clocks disagree, a later stamp is that of the step.
    """
    captured = {name: np.minimum(episode.image_s(name), episode.step_s) for name in episode.camera_names}
    measured_s = np.minimum(episode.arm_s, episode.step_s)
    return tuple(
        RecordedStep(
            at_s=float(episode.step_s[row]),
            qpos=episode.qpos[row],
            qvel=episode.qvel[row],
            joints_s=float(measured_s[row]),
            captured_s={camera: float(times_s[row]) for camera, times_s in captured.items()},
            base_velocity=None if episode.odom is None else episode.odom[row, 3:],
            odometry=None if episode.odom is None else episode.odom[row],
        )
        for row in range(len(episode))
    )


def robot_of(episode: Episode) -> RobotSpec:
    """A robot that could have recorded an episode: its names and rates, with limits a little beyond what it did.

    Raises:
        EpisodeError: no robot has such joints, cameras or numbers.
    """
    try:
        return _robot_of(episode)
    except ValidationError as error:
        first = error.errors()[0]
        raise EpisodeError(
            f"{episode.path}: no robot can have recorded it: {'.'.join(map(str, first['loc']))}: {first['msg']}. "
            f"The file was altered; remove it."
        ) from error


def _robot_of(episode: Episode) -> RobotSpec:
    header = episode.header
    moves_base = len(header.action.indices(ActionKind.BASE_VELOCITY)) > 0
    return RobotSpec(
        name=header.robot,
        joints=tuple(_joint(episode, number) for number in range(len(header.joint_names))),
        grippers=_grippers(header),
        cameras=tuple(
            CameraSpec(name=name, width=width, height=height, rate_hz=_rate_hz(episode, name))
            for name, height, width in header.cameras
        ),
        base=_base(episode) if header.has_base or moves_base else None,
        control_rate_hz=_CONTROL_HZ,
        state_rate_hz=header.data_frequency_hz,
    )


def _joint(episode: Episode, number: int) -> JointSpec:
    name, spec = episode.header.joint_names[number], episode.header.action
    seen = [episode.qpos[:, number]]
    speeds = [np.abs(episode.qvel[:, number])]
    stated: list[float] = []
    gripper = False
    for index, dim in enumerate(spec.dims):
        if dim.target != name:
            continue
        gripper = gripper or dim.kind is ActionKind.GRIPPER
        if dim.kind is ActionKind.JOINT_VELOCITY:
            speeds.append(np.abs(episode.action[:, index]))
        elif dim.unit != "1":
            seen.append(episode.action[:, index])
            stated += [limit for limit in (dim.low, dim.high) if limit is not None]
    values = np.concatenate(seen)
    margin = _MARGIN * float(np.ptp(values)) + _MARGIN_RAD
    speed = max(_FASTER * float(np.max(np.concatenate(speeds))), _LEAST_SPEED)
    return JointSpec(
        name=name,
        low=min([float(values.min()) - margin, *stated]),
        high=max([float(values.max()) + margin, *stated]),
        max_speed=speed,
        max_acceleration=speed / _BRAKING_S,
        gripper=gripper,
    )


def _grippers(header: EpisodeHeader) -> tuple[GripperSpec, ...]:
    """Those that are commanded and not measured."""
    targets = [dim.target for dim in header.action.dims if dim.kind is ActionKind.GRIPPER and dim.target]
    return tuple(GripperSpec(name=target) for target in targets if target not in header.joint_names)


def _base(episode: Episode) -> BaseSpec:
    dims = episode.header.action.dims
    fastest = {
        axis: max(
            (
                max(float(np.abs(episode.action[:, index]).max()), dim.high or 0.0)
                for index, dim in enumerate(dims)
                if dim.kind is ActionKind.BASE_VELOCITY and dim.target == axis
            ),
            default=0.0,
        )
        for axis in ("linear", "angular")
    }
    linear, angular = (max(_FASTER * speed, _LEAST_SPEED) for speed in fastest.values())
    return BaseSpec(
        max_linear_mps=linear,
        max_angular_radps=angular,
        max_linear_mps2=linear / _BRAKING_S,
        max_angular_radps2=angular / _BRAKING_S,
    )


def _rate_hz(episode: Episode, camera: str) -> float:
    """Frames per second that really came: repeated ones do not count."""
    gaps_s = np.diff(np.unique(episode.image_s(camera)))
    return float(1.0 / np.median(gaps_s)) if len(gaps_s) else episode.header.data_frequency_hz
