"""Datasets of the reference robot: a file per episode, frames in it or in an mp4 per camera beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btruntime.dataset.formats.mapping import FeatureMapping, SourceMapping
from btruntime.dataset.formats.names import valid_name
from btruntime.dataset.formats.pace import checked_times, chosen_frequency_hz, rates
from btruntime.dataset.formats.reference_file import Numbers, StoredFrames, read_numbers
from btruntime.dataset.formats.reference_index import Contents, Listed, data_directory, read_contents
from btruntime.dataset.formats.videos import video_size
from btruntime.dataset.source import DatasetError, SourceEpisode
from hal.types import ActionDim, ActionKind, ActionSpec, Array, Image
from skills.episodes import CameraShape, EpisodeHeader, Origin
from skills.episodes.header import image_time_path, stale_path

FORMAT = "reference robot"

_ROBOT = "reference"
_CAMERAS = {"camera_1": "main_camera", "camera_2": "arm_camera"}
# Its driver turns velocities (0.229 rpm per count) into rad/s with the factor for positions.
_QVEL_FACTOR = 15.63
_FACTOR_TOLERANCE = 0.2
_MOVING_RADPS = 0.05
_FEWEST_MOVING = 10
_UNKNOWN_START = datetime(1970, 1, 1, tzinfo=UTC)
# Between these a time is one since 1970; a simulator's clock starts at 0.
_EARLIEST_S = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
_LATEST_S = datetime(2100, 1, 1, tzinfo=UTC).timestamp()


class ReferenceSource:
    """A dataset of the reference robot, opened; see `btruntime.dataset.source.DatasetSource`. One thread at a time.

    Args:
        root: the skill's directory, or the `data/` in it.
        mapping: may name robot, joints and cameras; what the numbers mean is fixed in this format.

    Raises:
        DatasetError: there are no episodes, or the mapping says something else.
    """

    def __init__(self, root: Path, mapping: SourceMapping | None = None):
        self._mapping = _checked_mapping(mapping or SourceMapping())
        data = data_directory(root)
        if data is None:
            raise DatasetError(f"{root}: no episode_N.h5, neither here nor in data/.")
        self._root = root
        self._contents: Contents = read_contents(data)
        if not self._contents.episodes:
            raise DatasetError(f"{data}: no episodes, neither listed nor as files.")
        self.format = FORMAT
        self.name, self.task = self._contents.name, self._contents.task
        notes = list(self._contents.notes)
        missing: dict[int, str] = {}
        intervals_s: list[Array] = []
        factors: list[float] = []
        for number, listed in self._contents.episodes.items():
            if not listed.path.is_file():
                missing[number] = f"{listed.path.name} is not there."
                continue
            try:
                numbers = read_numbers(listed.path)
            except DatasetError:
                continue  # Said when it is read.
            if (absent := _without_frames(listed, numbers)) is not None:
                missing[number] = absent
                continue
            measured, _ = _measured_times(numbers, str(listed.path), strict=False)
            if measured is not None:
                intervals_s.append(np.diff(measured))
                if (factor := _qvel_factor(numbers, measured)) is not None:
                    factors.append(factor)
        self.missing: Mapping[int, str] = missing
        self.present = tuple(number for number in self._contents.episodes if number not in missing)
        frequency_hz, pace_note = chosen_frequency_hz(self._contents.frequency_hz, intervals_s)
        self._frequency_hz = frequency_hz
        self._qvel_scale, qvel_note = _qvel_scale(factors)
        self.notes = (
            *notes,
            *([pace_note] if pace_note else []),
            qvel_note,
            "applied_action is the action: what was sent to the robot is not in the dataset.",
        )

    def read(self, number: int) -> SourceEpisode:
        """Read and convert the numbers of one episode.

        Raises:
            DatasetError: a file is missing or damaged, or the action is of a width that means nothing.
        """
        listed = self._contents.episodes.get(number)
        if listed is None:
            raise DatasetError(f"{self._root}: there is no episode {number}.")
        if number in self.missing:
            raise DatasetError(f"{self._root}: episode {number}: {self.missing[number]}")
        numbers = read_numbers(listed.path)
        notes = list(numbers.notes)
        joints = self._joint_names(numbers.qpos.shape[1], listed.path)
        action = _action_spec(numbers.action.shape[1], joints, listed.path)
        cameras, videos, frames, steps, said = self._pictures(listed, numbers)
        notes += said
        times_s, start_utc, said = self._times(listed, numbers)
        notes += said
        step_s = times_s - times_s[0]
        qvel, said = self._qvel(numbers, step_s, listed.path)
        notes += said
        if listed.outcome:
            notes.append(f"Outcome in its index: {listed.outcome}.")
        columns: dict[str, NDArray[Any]] = {
            "action": numbers.action,
            "applied_action": numbers.action.copy(),
            "qpos": numbers.qpos,
            "qvel": qvel,
            "timestamps/step": step_s,
            "timestamps/arm": step_s.copy() if numbers.arm_s is None else numbers.arm_s - times_s[0],
        }
        for source, name in self._camera_names(camera for camera, _ in cameras).items():
            measured = numbers.image_s.get(source)
            columns[image_time_path(name)] = step_s.copy() if measured is None else measured - times_s[0]
            columns[stale_path(name)] = _repeated(measured, len(step_s))
        if numbers.cmd_vel is not None and numbers.odom is not None:
            columns |= {"cmd_vel": numbers.cmd_vel, "odom": numbers.odom}
        header = EpisodeHeader(
            robot=self._mapping.robot or _ROBOT,
            data_frequency_hz=self._known_frequency_hz(listed.path),
            joint_names=joints,
            action=action,
            cameras=tuple(shape for _, shape in cameras),
            has_base="cmd_vel" in columns,
            source="import",
            software=FORMAT,
            start_utc=start_utc,
            origin=Origin(format=FORMAT, dataset=self.name, episode=number, notes=(*self.notes, *notes)),
        )
        rows = {path: values[:steps] for path, values in columns.items()}
        return SourceEpisode(header=header, rows=rows, videos=videos, frames=frames)

    def _joint_names(self, count: int, path: Path) -> tuple[str, ...]:
        """The format's own names: its files have none."""
        named = self._mapping.joints
        if named is None:
            return tuple(f"joint{index + 1}" for index in range(count))
        if len(named) != count:
            raise DatasetError(f"{path}: qpos has {count} joints, the mapping names {len(named)}. Name each in order.")
        return named

    def _camera_names(self, sources: Iterable[str]) -> dict[str, str]:
        """Our name by the camera's name in the dataset."""
        return {source: self._camera_name(source) for source in sources}

    def _camera_name(self, source: str) -> str:
        return self._mapping.cameras.get(source) or _CAMERAS.get(source) or valid_name(source)

    def _known_frequency_hz(self, path: Path) -> float:
        if self._frequency_hz is None:
            raise DatasetError(
                f"{path}: neither its times nor {self._root} say at what frequency it was recorded. "
                f'Write it into data/dataset_metadata.json: {{"data_frequency": ..., "episodes": []}}.'
            )
        return self._frequency_hz

    def _pictures(
        self, listed: Listed, numbers: Numbers
    ) -> tuple[
        list[tuple[str, CameraShape]],
        dict[str, Path],
        dict[str, Callable[[], Iterable[Image]]],
        int,
        list[str],
    ]:
        """Cameras by their names in the dataset, where their frames are, and how many steps have a frame of each."""
        shapes = {shape.name: shape for shape in numbers.cameras}
        steps = len(numbers.action)
        sizes = {camera: video_size(path) for camera, path in listed.videos.items() if camera not in shapes}
        notes: list[str] = []
        for camera, size in sizes.items():
            shapes[camera] = CameraShape(camera, size.height, size.width)
            if size.frames != steps:
                notes.append(f"The video of {camera} has {size.frames} frames for {steps} steps.")
        usable = min([steps, *(size.frames for size in sizes.values())])
        if usable < steps:
            notes.append(f"The last {steps - usable} steps have no frame and were left out.")
        if numbers.cameras and numbers.layout.is_bgr:
            notes.append("Its frames were BGR and were turned into RGB.")
        names = self._camera_names(sorted(shapes))
        if len(set(names.values())) != len(names) or "" in names.values():
            raise DatasetError(
                f"{listed.path}: the cameras {', '.join(names)} would be called {', '.join(names.values())}. "
                f'Give each a name of its own in a mapping file (--map): {{"cameras": {{"{min(names)}": ...}}}}.'
            )
        cameras = [(source, shapes[source]._replace(name=name)) for source, name in names.items()]
        videos = {names[camera]: listed.videos[camera] for camera in sizes}
        frames: dict[str, Callable[[], Iterable[Image]]] = {
            names[shape.name]: StoredFrames(listed.path, numbers.layout, shape.name, usable)
            for shape in numbers.cameras
        }
        return cameras, videos, frames, usable, notes

    def _times(self, listed: Listed, numbers: Numbers) -> tuple[Array, datetime, list[str]]:
        """(T,) times of the steps, when the first was, and what had to be guessed for them."""
        measured, notes = _measured_times(numbers, str(listed.path), strict=True)
        if measured is not None and _EARLIEST_S < measured[0] < _LATEST_S:
            return measured, datetime.fromtimestamp(float(measured[0]), UTC), notes
        if measured is None:
            measured = np.arange(len(numbers.action)) / self._known_frequency_hz(listed.path)
            notes.append("It has no times: those of the steps are their numbers divided by the frequency.")
        if listed.start is not None:
            notes.append("Its start is as its index states it, in local time of an unknown zone; taken as UTC.")
            return measured, listed.start, notes
        notes.append("When it was recorded is not stated: it starts at 1970-01-01.")
        return measured, _UNKNOWN_START, notes

    def _qvel(self, numbers: Numbers, step_s: Array, path: Path) -> tuple[Array, list[str]]:
        if numbers.qvel is None:
            return rates(numbers.qpos, step_s), ["qvel is computed from qpos: the episode has none."]
        if numbers.qvel.shape != numbers.qpos.shape:
            raise DatasetError(f"{path}: qvel is {numbers.qvel.shape}, expected {numbers.qpos.shape} as qpos is.")
        return numbers.qvel * self._qvel_scale, []


def _checked_mapping(mapping: SourceMapping) -> SourceMapping:
    if mapping.action or mapping.leave_out or mapping.state_scale != 1.0 or mapping.features != FeatureMapping():
        raise DatasetError(
            "the mapping says what numbers mean, but that is fixed in the reference robot's format. "
            "Leave only robot, joints and cameras in it."
        )
    return mapping


def _without_frames(listed: Listed, numbers: Numbers) -> str | None:
    """Which frames of an episode are not there, as a sentence."""
    stored = {shape.name for shape in numbers.cameras}
    expected = {*numbers.image_s, *listed.videos} - stored
    wanted = {camera: listed.videos.get(camera) for camera in sorted(expected)}
    names = [
        path.name if path is not None else f"{listed.path.stem}_{camera}.mp4"
        for camera, path in wanted.items()
        if path is None or not path.is_file()
    ]
    if names:
        return f"{', '.join(names)} is not there, and {listed.path.name} has no frames of that camera."
    return None if stored or wanted else f"{listed.path.name} has no frames, and there is no mp4 beside it."


def _action_spec(width: int, joints: tuple[str, ...], path: Path) -> ActionSpec:
    """The format's action: joints with the gripper last, then the base, then progress and termination."""
    count = len(joints)
    if width not in (count, count + 2, count + 4):
        unled = width > count + 4
        cause = (
            "It was recorded before the leader was connected: the first rows were padded with zeros, and the columns "
            "do not mean what they should"
            if unled
            else "It was recorded by another program"
        )
        raise DatasetError(
            f"{path}: action is {width} wide with {count} joints in qpos, expected {count} (joints), {count + 2} (and "
            f"base) or {count + 4} (and progress). {cause}. Leave the episode out."
        )
    dims = [ActionDim(name=name, kind=ActionKind.JOINT_POSITION, unit="rad", target=name) for name in joints[:-1]]
    dims.append(ActionDim(name=joints[-1], kind=ActionKind.GRIPPER, unit="rad", target=joints[-1]))
    base = [
        ActionDim(name="base_linear", kind=ActionKind.BASE_VELOCITY, unit="m/s", target="linear"),
        ActionDim(name="base_angular", kind=ActionKind.BASE_VELOCITY, unit="rad/s", target="angular"),
    ]
    end = [
        ActionDim(name="progress", kind=ActionKind.PROGRESS, unit="1", low=0, high=1),
        ActionDim(name="termination", kind=ActionKind.TERMINATION, unit="1", low=0, high=1),
    ]
    return ActionSpec(dims=tuple([*dims, *base, *end][:width]))


def _measured_times(numbers: Numbers, where: str, *, strict: bool) -> tuple[Array | None, list[str]]:
    """(T,) times of the steps, from the joints or else from a camera; None where the episode has none.

    The recorder stores the newest message at each step, so a time may stand there twice. Such times lie evenly
    between their neighbours.

    Raises:
        DatasetError: the times go backwards; None instead where not `strict`.
    """
    found = {"arm": numbers.arm_s, **dict(sorted(numbers.image_s.items()))}
    known = {name: times for name, times in found.items() if times is not None}
    for name, times in known.items():
        if (np.diff(times) > 0).all():
            return times, [] if name == "arm" else [f"The times of its steps are those of {name}."]
    for name, times in known.items():
        steps = np.diff(times)
        if (steps >= 0).all() and (steps > 0).any():
            fresh = np.concatenate([[True], steps > 0])
            return _spread(times, fresh), [f"{int((~fresh).sum())} times of {name} were repeated and were spread."]
    if not known:
        return None, []
    if strict:
        checked_times(next(iter(known.values())), where)
    return None, []


def _spread(times: Array, fresh: NDArray[np.bool_]) -> Array:
    """Times that increase: repeated ones between their neighbours, those at the end at the usual interval."""
    places = np.flatnonzero(fresh)
    spread: Array = np.interp(np.arange(len(times)), places, times[places])
    usual = float(np.median(np.diff(times[places]) / np.diff(places)))
    after = np.arange(len(times)) - places[-1]
    return np.where(after > 0, times[places[-1]] + after * usual, spread)


def _qvel_factor(numbers: Numbers, times_s: Array) -> float | None:
    """How many times larger than `qvel` the change of `qpos` over time is; None where too little moves.

    The median over moving samples: single glitches of either do not shift it.
    """
    if numbers.qvel is None or numbers.qvel.shape != numbers.qpos.shape or len(times_s) < 2:
        return None
    change = rates(numbers.qpos, times_s)
    moving = (np.abs(change) > _MOVING_RADPS) & (numbers.qvel != 0)
    if int(moving.sum()) < _FEWEST_MOVING:
        return None
    return float(np.median(change[moving] / numbers.qvel[moving]))


def _qvel_scale(factors: list[float]) -> tuple[float, str]:
    """What to multiply `qvel` with, for all episodes, and the note on it."""
    if not factors:
        return 1.0, "qvel was kept: too little moves to tell its unit."
    factor = float(np.median(factors))
    if abs(factor / _QVEL_FACTOR - 1) <= _FACTOR_TOLERANCE:
        return _QVEL_FACTOR, f"qvel was {factor:.2f} times too small and was multiplied by {_QVEL_FACTOR}."
    if abs(factor - 1) <= _FACTOR_TOLERANCE:
        return 1.0, f"qvel agrees with the change of qpos (ratio {factor:.2f}) and was kept."
    return 1.0, f"qvel does not agree with the change of qpos (ratio {factor:.2f}); it was kept as it is."


def _repeated(times_s: Array | None, steps: int) -> NDArray[np.bool_]:
    """(T,) whether the frame is the one before, as its time tells."""
    if times_s is None:
        return np.zeros(steps, dtype=bool)
    return np.concatenate([[False], np.diff(times_s) == 0])
