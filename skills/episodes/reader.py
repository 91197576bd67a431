"""Reading an episode: checked when it is opened, read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from hal.types import Array, Image
from skills.episodes.guarded import dataset_at, holds, refuse_impossible_size
from skills.episodes.header import (
    ATTRIBUTES,
    OPTIONAL_ATTRIBUTES,
    SCHEMA,
    CameraShape,
    Column,
    EpisodeError,
    EpisodeHeader,
    columns,
    image_path,
    image_time_path,
    stale_path,
)
from skills.episodes.naming import episode_number, video_path
from skills.episodes.video import VideoFrames

_CHECK = 'Run "btruntime dataset check" on the skill.'
_FOREIGN = (
    "This is a recording of another program (ALOHA or the reference robot); "
    'bring it in with "btruntime dataset import".'
)


class Episode:
    """One recorded demonstration, lazily read. A context manager; closes its file at the end of the block.

    Arrays of numbers are read once, when first asked for; frames only as they are asked for, and never kept.
    One thread at a time.

    Args:
        path: `episode_N.h5`.
        recording: open a file that is being, or was being, written: `.recording-<id>.h5`. Only the steps that
            were complete are seen. One whose writer is gone may make HDF5 wait for missing bytes: `recover` it.

    Raises:
        EpisodeError: not a file, not HDF5, cut short, without steps, or datasets missing, of another shape or
            type, or of different lengths.
    """

    def __init__(self, path: Path, *, recording: bool = False):
        self.path = path
        self._recording = recording
        self._videos: dict[str, VideoFrames] = {}
        self._file = self._opened()
        try:
            self.header = self._read_header()
            self._length = self._checked_length()
        except EpisodeError:
            self.close()
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            self.close()
            raise EpisodeError(f"{path}: damaged: {error}. {_CHECK}") from error

    def __enter__(self) -> Episode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._length

    def close(self) -> None:
        """Close the file. Idempotent; arrays that were read stay readable."""
        self._file.close()
        while self._videos:
            self._videos.popitem()[1].close()

    @property
    def number(self) -> int | None:
        """N of `episode_N.h5`."""
        return episode_number(self.path.name)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras whose frames can be read, those with a video last."""
        return self.header.camera_names

    @property
    def has_images(self) -> bool:
        """Whether frames are in the file itself; in the video form each camera is an mp4 beside it."""
        return bool(self.header.image_cameras)

    @cached_property
    def end_utc(self) -> datetime | None:
        """When the episode was finalised; None for a recording that was not."""
        if "end_utc" not in self._file.attrs:
            return None
        try:
            return TypeAdapter(AwareDatetime).validate_python(self._file.attrs["end_utc"])
        except ValidationError as error:
            raise EpisodeError(f"{self.path}: attribute end_utc is not a time with a zone. {_CHECK}") from error

    @cached_property
    def recovered(self) -> str | None:
        """Why the episode had to be recovered; None where it was saved as usual."""
        reason = self._file.attrs.get("recovered")
        return None if reason is None else str(reason)

    @cached_property
    def action(self) -> Array:
        """(T, A) what the leader commanded."""
        return self._floats("action")

    @cached_property
    def applied_action(self) -> Array:
        """(T, A) what was sent after the safety filter."""
        return self._floats("applied_action")

    @cached_property
    def qpos(self) -> Array:
        """(T, J) follower positions, rad."""
        return self._floats("qpos")

    @cached_property
    def qvel(self) -> Array:
        """(T, J) follower velocities, rad/s."""
        return self._floats("qvel")

    @cached_property
    def step_s(self) -> Array:
        """(T,) seconds since the start of the episode."""
        return self._floats("timestamps/step")

    @cached_property
    def arm_s(self) -> Array:
        """(T,) when the joints were measured, seconds since the start of the episode."""
        return self._floats("timestamps/arm")

    @cached_property
    def cmd_vel(self) -> Array | None:
        """(T, 2) linear x and angular z; None without a base."""
        return self._floats("cmd_vel") if self.header.has_base else None

    @cached_property
    def odom(self) -> Array | None:
        """(T, 5) x, y, yaw, linear x, angular z; None without a base."""
        return self._floats("odom") if self.header.has_base else None

    @property
    def duration_s(self) -> float:
        """From the first step to the last."""
        return float(self.step_s[-1] - self.step_s[0])

    def column(self, path: str) -> NDArray[Any]:
        """All steps of the dataset of that path (`skills.episodes.header.columns`), as it is stored."""
        column: NDArray[Any] = self._read(path, slice(self._length))
        return column

    def image_s(self, camera: str) -> Array:
        """(T,) when each frame of a camera was taken, seconds since the start of the episode."""
        return self._floats(image_time_path(self._known(camera)))

    def stale(self, camera: str) -> NDArray[np.bool_]:
        """(T,) whether a frame repeats the one before."""
        return np.asarray(self._read(stale_path(self._known(camera)), slice(self._length)), dtype=np.bool_)

    def frame(self, camera: str, index: int) -> Image:
        """(H, W, 3) uint8 RGB, the frame of one step; a negative index counts from the end.

        Raises:
            EpisodeError: no such camera or step, or the frame cannot be read.
        """
        step = index + self._length if index < 0 else index
        if not 0 <= step < self._length:
            raise EpisodeError(f"{self.path}: no step {index}; the episode has {self._length}.")
        if self._known(camera) in self.header.videos:
            return self._video(camera).frame(step)
        frame: Image = self._read(image_path(camera), step)
        return frame

    def frames(self, camera: str, start: int = 0, stop: int | None = None) -> Iterator[Image]:
        """The frames of a camera from `start` to before `stop`, one at a time."""
        for step in range(*slice(start, stop).indices(self._length)):
            yield self.frame(camera, step)

    def _video(self, camera: str) -> VideoFrames:
        """The frames of a camera that has a video, opened when the first is asked for."""
        if not self._file:
            raise EpisodeError(f"{self.path}: the episode is closed. Read it inside its with block.")
        if camera not in self._videos:
            shape = next(shape for shape in self.header.cameras if shape.name == camera)
            path = video_path(self.path, camera)
            self._videos[camera] = VideoFrames(path, shape.height, shape.width, self._length)
        return self._videos[camera]

    def _opened(self) -> Any:
        if self.path.is_dir():
            raise EpisodeError(f"{self.path}: is a directory, expected an HDF5 file. Move it out of data/.")
        if not self.path.is_file():
            raise EpisodeError(f"{self.path}: no such file.")
        try:
            # Finished episodes never change, so a lock would only be in the way (read-only disks, copies, uploads).
            return h5py.File(self.path, "r", locking=False)
        except OSError as error:
            if self._recording and "already open" in str(error):
                return self._opened_while_written()
            raise EpisodeError(f"{self.path}: {self._why_unreadable(error)}") from error

    def _opened_while_written(self) -> Any:
        try:
            return h5py.File(self.path, "r", swmr=True, locking=False)
        except OSError as error:
            raise EpisodeError(f"{self.path}: {self._why_unreadable(error)}") from error

    def _why_unreadable(self, error: OSError) -> str:
        size = self.path.stat().st_size
        if size == 0:
            return "empty, expected an HDF5 file. Remove it, or copy it again."
        if "truncated file" in str(error):
            return f"cut short at {size} bytes ({error}). Copy it again from where it came from."
        if not h5py.is_hdf5(self.path):
            return "not an HDF5 file. Move it out of data/."
        if "already open for write" in str(error):
            return 'still being written, or the writer was killed. Run "btruntime dataset recover" on the skill.'
        return f"cannot be opened: {error}. {_CHECK}"

    def _read_header(self) -> EpisodeHeader:
        found = self._file.attrs
        if "schema" not in found:
            foreign = self._has("observations") or self._has("action")
            raise EpisodeError(
                f"{self.path}: root attribute schema missing, expected {SCHEMA}. {_FOREIGN if foreign else _CHECK}"
            )
        if found["schema"] != SCHEMA:
            raise EpisodeError(
                f"{self.path}: schema {found['schema']}, this btruntime reads {SCHEMA}. Update btruntime to read it."
            )
        # Only these: a kill while an episode is finished may leave a later one unreadable.
        attributes = {name: found[name] for name in (*ATTRIBUTES, *OPTIONAL_ATTRIBUTES) if name in found}
        return EpisodeHeader.from_attributes(
            attributes, cameras=self._cameras(), has_base=self._has("cmd_vel"), where=str(self.path)
        )

    def _cameras(self) -> tuple[CameraShape, ...]:
        if not self._has("images"):
            return ()
        images = self._file["images"]
        if not isinstance(images, h5py.Group):
            raise EpisodeError(f"{self.path}: images is a dataset, expected one dataset per camera in it. {_CHECK}")
        shapes = {name: self._dataset(image_path(name)).shape for name in images}
        for name, shape in shapes.items():
            if len(shape) != 4:
                raise EpisodeError(
                    f"{self.path}: images/{name} is {shape}, expected (steps, height, width, 3). {_CHECK}"
                )
        return tuple(CameraShape(name, shape[1], shape[2]) for name, shape in shapes.items())

    def _checked_length(self) -> int:
        lengths = {column.path: self._checked(column) for column in columns(self.header)}
        committed = int(self._dataset("committed")[0])
        if self._recording:
            lengths = {path: min(length, committed) for path, length in lengths.items()}
        for path, length in lengths.items():
            refuse_impossible_size(self._dataset(path), path, length, self.path)
        lengths["committed"] = committed
        expected = lengths["action"]
        for path, length in lengths.items():
            if length != expected:
                raise EpisodeError(f"{self.path}: {path} has {length} steps, action has {expected}. {_CHECK}")
        if not expected:
            raise EpisodeError(f"{self.path}: no steps, expected at least one.")
        return expected

    def _checked(self, column: Column) -> int:
        """Length of a dataset of the right shape and type."""
        dataset = self._dataset(column.path)
        if dataset.shape[1:] != column.shape or len(dataset.shape) == 0 or dataset.dtype != np.dtype(column.dtype):
            wanted = ", ".join(["T", *map(str, column.shape)])
            raise EpisodeError(
                f"{self.path}: {column.path} is {dataset.shape} {dataset.dtype}, expected ({wanted}) {column.dtype}. "
                f"{_CHECK}"
            )
        return int(dataset.shape[0])

    def _has(self, path: str) -> bool:
        return holds(self._file, path, self.path)

    def _dataset(self, path: str) -> Any:
        return dataset_at(self._file, path, self.path, _CHECK)

    def _known(self, camera: str) -> str:
        if camera not in self.header.camera_names:
            cameras = ", ".join(self.header.camera_names) or "none in this file"
            raise EpisodeError(f"{self.path}: no camera {camera!r}; there is {cameras}.")
        return camera

    def _floats(self, path: str) -> Array:
        array: Array = self._read(path, slice(self._length))
        array.flags.writeable = False
        return array

    def _read(self, path: str, which: int | slice) -> Any:
        if not self._file:
            raise EpisodeError(f"{self.path}: the episode is closed. Read it inside its with block.")
        try:
            return self._dataset(path)[which]
        except (OSError, ValueError) as error:
            raise EpisodeError(f"{self.path}: {path} cannot be read: {error}. {_CHECK}") from error
