"""LeRobot datasets, versions 2.0 and 2.1: one parquet file and one mp4 per camera for each episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btruntime.dataset.formats.lerobot_meta import (
    INFO,
    EpisodeFiles,
    Feature,
    read_episodes,
    read_info,
    read_tasks,
)
from btruntime.dataset.formats.mapping import SourceMapping
from btruntime.dataset.formats.meaning import Range, action_meaning, flat_names, state_meaning
from btruntime.dataset.formats.names import valid_name
from btruntime.dataset.formats.pace import checked_times, chosen_frequency_hz, rates
from btruntime.dataset.formats.parquet import arrow, read_cells, read_columns
from btruntime.dataset.formats.pictures import decoded_picture
from btruntime.dataset.formats.videos import VideoSize, video_size
from btruntime.dataset.source import DatasetError, SourceEpisode
from hal.types import Array, Image
from skills.episodes import CameraShape, EpisodeHeader, Origin
from skills.episodes.header import image_time_path, stale_path

_STATE = ("observation.state", "state")
_ACTION = ("action", "actions")
_VELOCITY = ("observation.velocity",)
_TIME = "timestamp"
# Half a millisecond at 1000 s is what a float32 can tell.
_SAME_TIME_S = 5e-4
_MAX_VALUES = 256
_UNKNOWN_START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Survey:
    """What all episodes that could be read say together.

    Attributes:
        state, action: None where no episode could be read.
        intervals_s: per episode; empty where the times are frame numbers divided by the frequency.
    """

    state: Range | None
    action: Range | None
    intervals_s: list[Array]
    synthetic: bool


class LeRobotSource:
    """A dataset of LeRobot, opened; see `btruntime.dataset.source.DatasetSource`. One thread at a time.

    Args:
        root: the directory that holds `meta/`.
        mapping: what a person says of it.

    Raises:
        DatasetError: the description cannot be read, or does not say what the numbers are.
    """

    def __init__(self, root: Path, mapping: SourceMapping | None = None):
        arrow()  # Said now: later it would look like a fault of the episodes.
        self._root, self._mapping = root, mapping or SourceMapping()
        self._info = read_info(root)
        self._files = read_episodes(root, self._info)
        self.format = f"LeRobot {self._info.codebase_version}"
        self.name = root.resolve().name
        tasks = read_tasks(root)
        self._tasks = list(tasks.values()) or list(
            dict.fromkeys(t for each in self._files.values() for t in each.tasks)
        )
        self.task = "; ".join(self._tasks)
        absent = {number: files.missing() for number, files in self._files.items()}
        self.missing: Mapping[int, str] = {number: why for number, why in absent.items() if why is not None}
        self.present = tuple(number for number in self._files if number not in self.missing)

        self._state_key = self._feature("state", _STATE, self._mapping.features.state)
        self._action_key = self._feature("action", _ACTION, self._mapping.features.action)
        self._velocity_key = self._velocity_feature()
        self._cameras = self._camera_names()
        survey = self._surveyed()
        self._state = state_meaning(
            *self._described(self._state_key), survey.state, self._mapping, f"{root / INFO}: {self._state_key}"
        )
        self._action = action_meaning(
            *self._described(self._action_key),
            survey.action,
            self._state,
            self._mapping,
            f"{root / INFO}: {self._action_key}",
        )
        frequency_hz, pace_note = chosen_frequency_hz(self._info.fps, survey.intervals_s)
        self._frequency_hz = frequency_hz or self._info.fps
        self._robot, robot_notes = self._robot_name()
        self.notes = (
            *robot_notes,
            *([pace_note] if pace_note else []),
            *self._notes(survey),
            *self._state.notes,
            *self._action.notes,
        )

    def read(self, number: int) -> SourceEpisode:
        """Read and convert the numbers of one episode.

        Raises:
            DatasetError: a file is missing or damaged, or does not hold what the description says.
        """
        if number in self.missing:
            raise DatasetError(f"{self._root}: episode {number}: {self.missing[number]}")
        if number not in self._files:
            raise DatasetError(f"{self._root}: there is no episode {number}; it lists {len(self._files)}.")
        files = self._files[number]
        table = self._table(files)
        times_s = checked_times(table[_TIME], str(files.table))
        step_s = times_s - times_s[0]
        for key in (self._state_key, self._action_key, *([self._velocity_key] if self._velocity_key else [])):
            _refuse_not_finite(table[key], f"{files.table}: {key}")
        qpos = table[self._state_key][:, self._state.positions] * self._state.scale
        action = table[self._action_key][:, self._action.columns] * self._action.scale
        cameras, videos, frames, notes = self._pictures(files, len(step_s))
        rows: dict[str, NDArray[Any]] = {
            "action": action,
            "applied_action": action.copy(),
            "qpos": qpos,
            "qvel": self._qvel(table, qpos, step_s),
            "timestamps/step": step_s,
            "timestamps/arm": step_s.copy(),
        }
        for camera in cameras:
            rows[image_time_path(camera.name)] = step_s.copy()
            rows[stale_path(camera.name)] = np.zeros(len(step_s), dtype=bool)
        if len(self._tasks) > 1 and files.tasks:
            notes.append(f"Task of this episode: {'; '.join(files.tasks)}.")
        header = EpisodeHeader(
            robot=self._robot,
            data_frequency_hz=self._frequency_hz,
            joint_names=self._state.joints,
            action=self._action.spec,
            cameras=cameras,
            has_base=False,
            source="import",
            software=self.format,
            start_utc=_UNKNOWN_START,
            origin=Origin(format=self.format, dataset=self.name, episode=number, notes=(*self.notes, *notes)),
        )
        return SourceEpisode(header=header, rows=rows, videos=videos, frames=frames)

    def _feature(self, what: str, usual: tuple[str, ...], said: str | None) -> str:
        """The column that holds the state or the action."""
        names = (said,) if said is not None else usual
        for name in names:
            if name in self._info.features:
                size = self._info.features[name].size
                if not 0 < size <= _MAX_VALUES:
                    raise DatasetError(
                        f"{self._root / INFO}: {name} has shape {self._info.features[name].shape}, expected one row of "
                        f"1 to {_MAX_VALUES} numbers per step."
                    )
                return name
        raise DatasetError(
            f"{self._root / INFO}: no feature {' or '.join(names)}; there is {', '.join(self._info.features)}. "
            f'Name the one that holds the {what} in a mapping file (--map): {{"features": {{"{what}": ...}}}}.'
        )

    def _velocity_feature(self) -> str | None:
        """A column of joint velocities, where there is one as wide as the state."""
        said = self._mapping.features.velocity
        if said is not None:
            return self._feature("velocity", (), said)
        size = self._info.features[self._state_key].size
        return next((n for n in _VELOCITY if n in self._info.features and self._info.features[n].size == size), None)

    def _camera_names(self) -> dict[str, str]:
        """Our name by the feature of each camera."""
        found: dict[str, str] = {}
        for key, feature in self._info.features.items():
            if not feature.is_camera or feature.is_depth or {key, key.rpartition(".")[2]} & self._mapping.leave_out:
                continue
            name = valid_name(self._mapping.camera(key))
            if not name or name in found.values():
                raise DatasetError(
                    f"{self._root / INFO}: {key} gives the camera name {name!r}, which is empty or taken. "
                    f'Name it in a mapping file (--map): {{"cameras": {{"{key}": ...}}}}.'
                )
            found[key] = name
        known = {*found} | {key.rpartition(".")[2] for key in found}
        if unknown := sorted({*self._mapping.cameras} - known):
            raise DatasetError(
                f"the mapping names the cameras {', '.join(unknown)}; {self._root} has {', '.join(found) or 'none'}."
            )
        return found

    def _described(self, key: str) -> tuple[list[str] | None, int]:
        feature = self._info.features[key]
        return flat_names(feature.names, feature.size), feature.size

    def _table(self, files: EpisodeFiles) -> dict[str, Array]:
        keys = (self._state_key, self._action_key, *([self._velocity_key] if self._velocity_key else []))
        widths: dict[str, int | None] = {key: self._info.features[key].size for key in keys}
        table = read_columns(files.table, widths | {_TIME: None})
        if len(table[_TIME]) != files.length:
            raise DatasetError(
                f"{files.table}: {len(table[_TIME])} steps, meta/episodes.jsonl says {files.length}. "
                f"Download or copy the dataset again."
            )
        return table

    def _surveyed(self) -> _Survey:
        """Ranges and intervals over all episodes that are there; what is wrong with one is said when it is read."""
        lows: list[tuple[Array, Array]] = []
        highs: list[tuple[Array, Array]] = []
        intervals_s: list[Array] = []
        synthetic = True
        for number in self.present:
            try:
                table = self._table(self._files[number])
                times_s = checked_times(table[_TIME], str(self._files[number].table))
            except DatasetError:
                continue
            both = table[self._state_key], table[self._action_key]
            if not all(np.isfinite(values).all() for values in both):
                continue
            lows.append((both[0].min(axis=0), both[1].min(axis=0)))
            highs.append((both[0].max(axis=0), both[1].max(axis=0)))
            intervals_s.append(np.diff(times_s))
            nominal_s = np.arange(len(times_s)) / self._info.fps
            synthetic &= bool(np.abs(times_s - times_s[0] - nominal_s).max() < _SAME_TIME_S)
        if not lows:
            return _Survey(None, None, [], synthetic=False)
        state, action = (
            Range(np.min([each[k] for each in lows], axis=0), np.max([each[k] for each in highs], axis=0))
            for k in (0, 1)
        )
        return _Survey(state, action, intervals_s, synthetic)

    def _robot_name(self) -> tuple[str, list[str]]:
        if self._mapping.robot is not None:
            return self._mapping.robot, []
        if name := valid_name(self._info.robot_type or ""):
            return name, []
        return "unknown", ["The dataset does not name its robot; a mapping file (--map) can."]

    def _notes(self, survey: _Survey) -> Iterator[str]:
        yield "When it was recorded is not stated: the episodes start at 1970-01-01."
        yield "applied_action is the action: what was sent to the robot is not in the dataset."
        if survey.synthetic:
            yield "Its times are frame numbers divided by the frequency: when steps really happened is not known."
        if self._velocity_key is None and self._state.velocities is None:
            yield "qvel is computed from qpos: the dataset has no velocities."
        for key, feature in self._info.features.items():
            if feature.is_camera and feature.is_depth:
                yield f"{key} is a depth camera and was left out."

    def _qvel(self, table: Mapping[str, Array], qpos: Array, step_s: Array) -> Array:
        if self._velocity_key is not None:
            return np.asarray(table[self._velocity_key][:, self._state.positions] * self._state.scale)
        if self._state.velocities is not None:
            return np.asarray(table[self._state_key][:, self._state.velocities] * self._state.scale)
        return rates(qpos, step_s)

    def _pictures(
        self, files: EpisodeFiles, steps: int
    ) -> tuple[tuple[CameraShape, ...], dict[str, Path], dict[str, Callable[[], Iterable[Image]]], list[str]]:
        """Cameras with their true sizes, and where their frames are."""
        cameras: list[CameraShape] = []
        videos: dict[str, Path] = {}
        frames: dict[str, Callable[[], Iterable[Image]]] = {}
        notes: list[str] = []
        for key, name in self._cameras.items():
            feature = self._info.features[key]
            height, width = _stated_size(feature, f"{self._root / INFO}: {key}")
            if feature.dtype == "video":
                found = video_size(files.videos[key])
                notes += _video_notes(files.videos[key], name, found, (height, width), steps)
                height, width = found.height, found.width
                videos[name] = files.videos[key]
            else:
                frames[name] = _StoredPictures(files.table, key, height, width)
            cameras.append(CameraShape(name, height, width))
        return tuple(cameras), videos, frames, notes


@dataclass(frozen=True, slots=True)
class _StoredPictures:
    """The frames of a camera whose pictures are in the table; each call reads them from the start."""

    table: Path
    key: str
    height: int
    width: int

    def __call__(self) -> Iterator[Image]:
        for row, data in enumerate(read_cells(self.table, self.key)):
            yield decoded_picture(data, self.height, self.width, f"{self.table}: {self.key} of row {row}")


def _stated_size(feature: Feature, where: str) -> tuple[int, int]:
    """Height and width; LeRobot stores either (height, width, channels) or (channels, height, width)."""
    if len(feature.shape) != 3:
        raise DatasetError(f"{where} has shape {feature.shape}, expected height, width and 3 channels.")
    names = flat_names(feature.names, 3)
    first_is_channel = names is not None and names[0].startswith("channel")
    if names is None:
        first_is_channel = feature.shape[0] == 3 != feature.shape[2]
    height, width = feature.shape[1:] if first_is_channel else feature.shape[:2]
    if not (1 <= height <= 8192 and 1 <= width <= 8192):
        raise DatasetError(f"{where} is {height}x{width}, expected at most 8192x8192.")
    return height, width


def _video_notes(path: Path, camera: str, found: VideoSize, stated: tuple[int, int], steps: int) -> list[str]:
    """What is odd about a video.

    Raises:
        DatasetError: it has fewer frames than there are steps.
    """
    if found.frames < steps:
        raise DatasetError(
            f"{path}: {found.frames} frames, expected {steps}, one per step: which step lacks its frame is not known. "
            f"Download or copy it again, or leave the episode out."
        )
    notes = []
    if found.frames > steps:
        notes.append(
            f"The video of {camera} has {found.frames} frames for {steps} steps; the first {steps} were taken."
        )
    if (found.height, found.width) != stated:
        notes.append(f"{camera} is {found.height}x{found.width}, the dataset states {stated[0]}x{stated[1]}.")
    return notes


def _refuse_not_finite(values: Array, where: str) -> None:
    if not np.isfinite(values).all():
        step, index = (int(each) for each in np.argwhere(~np.isfinite(values))[0])
        raise DatasetError(f"{where}: number {index} of step {step} is {values[step, index]}. Leave the episode out.")
