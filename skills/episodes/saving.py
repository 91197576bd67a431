"""Saving an episode that is complete from the start: an import, a cleaned copy. As a whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.files import fsync_dir, sha256_of
from hal.types import Image
from skills.episodes.header import Column, EpisodeError, EpisodeHeader, columns
from skills.episodes.index import index_episode
from skills.episodes.layout import finish, new_file, write_steps
from skills.episodes.naming import (
    episode_number,
    episode_path,
    episode_videos,
    move_no_replace,
    next_number,
    video_path,
)
from skills.episodes.video import VideoFrames
from skills.episodes.writer import MIN_FREE_BYTES, DiskFullError, EpisodeWriteError
from skills.locks import locked

_SAVING = ".saving-"

Rows = Mapping[str, NDArray[Any]]


def save_episode(
    data_dir: Path,
    header: EpisodeHeader,
    rows: Rows,
    *,
    frames: Mapping[str, Iterable[Image]] = MappingProxyType({}),
    videos: Mapping[str, Path] = MappingProxyType({}),
    number: int | None = None,
    end_utc: datetime | None = None,
) -> Path:
    """Write a complete episode and give it its name last. Blocks on the disk; one saver per directory at a time.

    Args:
        data_dir: the skill's `data/`; made if it does not exist.
        header: what the file says of itself; `videos` is filled in here.
        rows: (T, ...) by the path of the dataset, all of `columns(header)` but the images.
        frames: by camera, T frames (H, W, 3) uint8 RGB, stored in the file.
        videos: by camera, an mp4 with one frame per step, copied unchanged.
        number: of the episode, if it is free; else, and with None, the next after all others.
        end_utc: when it ended; by default from the last step.

    Returns:
        The path of the episode, which is in the index.

    Raises:
        EpisodeError: rows, frames or videos do not fit the header or each other.
        EpisodeWriteError: the disk is full, or does not take what is written.
        OSError: the directory cannot be made or listed.
    """
    header = header.model_copy(update={"videos": _hashes(header, videos)})
    length = _checked_length(header, rows, frames)
    _check_videos(header, videos, length)
    data_dir.mkdir(parents=True, exist_ok=True)
    with locked(data_dir / f"{_SAVING}lock"):
        _remove_leftovers(data_dir)
        _check_space(data_dir, header, videos, length)
        hidden = data_dir / f"{_SAVING}{secrets.token_hex(8)}.h5"
        copies = {camera: video_path(hidden, camera) for camera in videos}
        try:
            for camera, source in videos.items():
                _copy(source, copies[camera], header.videos[camera])
            _check_room(hidden, _size(header, rows, length))
            with new_file(hidden) as file:
                write_steps(file, header, length, rows, frames)
            finish(hidden, end_utc or header.start_utc + timedelta(seconds=float(rows["timestamps/step"][-1])))
            episode = _name(hidden, copies, data_dir, number)
        except (OSError, RuntimeError) as error:  # h5py turns most failures of the disk into the first, some into both
            said = " ".join(str(error).split())
            raise EpisodeWriteError(f"{data_dir}: writing failed: {said}. Is the disk full or gone?") from error
        finally:
            _remove_hidden([hidden, *copies.values()])
    index_episode(episode)
    return episode


def _hashes(header: EpisodeHeader, videos: Mapping[str, Path]) -> dict[str, str]:
    if unknown := sorted(set(videos) - set(header.camera_names)):
        cameras = ", ".join(header.camera_names) or "no cameras"
        raise EpisodeError(f"a video of {', '.join(unknown)} was given; the episode has {cameras}.")
    if missing := [path for path in videos.values() if not path.is_file()]:
        raise EpisodeError(f"{missing[0]}: no such file. Copy the dataset again.")
    return {camera: sha256_of(path) for camera, path in videos.items()}


def _checked_length(header: EpisodeHeader, rows: Rows, frames: Mapping[str, Iterable[Image]]) -> int:
    """How many steps there are, after all rows were checked."""
    expected = {column.path: column for column in columns(header) if not column.is_image}
    if set(rows) != set(expected):
        raise EpisodeError(f"an episode has {', '.join(sorted(expected))}; given were {', '.join(sorted(rows))}.")
    wanted = {camera.name for camera in header.image_cameras}
    if set(frames) != wanted:
        given, expected_of = (", ".join(sorted(names)) or "no camera" for names in (frames, wanted))
        raise EpisodeError(f"frames of {given} were given, expected those of {expected_of}.")
    length = len(rows["action"])
    if not length:
        raise EpisodeError("an episode has no steps, expected at least one.")
    for path, column in expected.items():
        _check_rows(path, column, np.asarray(rows[path]), length)
    if (np.diff(rows["timestamps/step"]) <= 0).any():
        raise EpisodeError("timestamps/step do not increase from step to step.")
    return length


def _check_rows(path: str, column: Column, values: NDArray[Any], length: int) -> None:
    if values.shape != (length, *column.shape):
        raise EpisodeError(f"{path} is {values.shape}, expected {(length, *column.shape)}.")
    if column.dtype == "float64" and not np.isfinite(values).all():
        step = int(np.argwhere(~np.isfinite(values))[0][0])
        raise EpisodeError(f"{path} of step {step} is not finite.")


def _check_videos(header: EpisodeHeader, videos: Mapping[str, Path], length: int) -> None:
    for camera in header.video_cameras:
        video = VideoFrames(videos[camera.name], camera.height, camera.width, length)
        try:
            for step in range(length):
                video.frame(step)
        finally:
            video.close()


def _check_space(data_dir: Path, header: EpisodeHeader, videos: Mapping[str, Path], length: int) -> None:
    needed = sum(path.stat().st_size for path in videos.values())
    needed += sum(length * camera.height * camera.width * 3 for camera in header.image_cameras)
    free = shutil.disk_usage(data_dir).free
    if free < needed + MIN_FREE_BYTES:
        raise DiskFullError(
            f"{data_dir}: {free >> 20} MiB free, this episode needs {needed >> 20} MiB and {MIN_FREE_BYTES >> 20} MiB "
            f"to spare. Free some space."
        )


def _size(header: EpisodeHeader, rows: Rows, length: int) -> int:
    """About how many bytes the file will have; rather more."""
    numbers = sum(np.asarray(values).nbytes for values in rows.values())
    return numbers + sum(length * camera.height * camera.width * 3 for camera in header.image_cameras) + (1 << 20)


def _check_room(path: Path, size: int) -> None:
    """Find out now whether the disk takes a file of that size, quotas included: HDF5 crashes when it does not."""
    with path.open("xb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    path.unlink()


def _copy(source: Path, target: Path, sha256: str) -> None:
    with source.open("rb") as reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())
    if sha256_of(target) != sha256:
        raise EpisodeError(f"{source}: changed while it was copied. Wait until nobody writes to it.")


def _name(hidden: Path, copies: Mapping[str, Path], data_dir: Path, wanted: int | None) -> Path:
    """Give videos, and last the episode, the first number under which nothing is known, as second names.

    The caller takes the hidden names away. A kill before that leaves both, by which `_remove_leftovers` knows them.
    """
    number = next_number(data_dir)
    if wanted is not None and _free(data_dir, wanted):
        number = wanted
    while True:
        episode = episode_path(data_dir, number)
        pairs = [*((copies[camera], video_path(episode, camera)) for camera in copies), (hidden, episode)]
        try:
            named = all(_second_name(source, target) for source, target in pairs)
            if named:
                fsync_dir(data_dir)
                return episode
        except BaseException:
            _take_back(pairs)
            raise
        # Somebody else took the number meanwhile.
        _take_back(pairs)
        number = max(number + 1, next_number(data_dir))


def _free(data_dir: Path, number: int) -> bool:
    """Whether an episode can have that number, and nothing has it."""
    path = episode_path(data_dir, number)
    return episode_number(path.name) is not None and not any(data_dir.glob(f"{path.stem}[._]*"))


def _second_name(source: Path, target: Path) -> bool:
    """Name a file `target` as well; False where that name is taken. Where links cannot be made, it is moved."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        return move_no_replace(source, target)
    return True


def _take_back(pairs: list[tuple[Path, Path]]) -> None:
    """Undo `_second_name`, the episode first: there is never one without its videos."""
    for source, target in reversed(pairs):
        if _same(source, target):
            target.unlink()
        elif not source.exists() and target.exists():
            target.replace(source)


def _remove_leftovers(data_dir: Path) -> None:
    """What a killed saver left: its hidden files, and videos that were named when their episode was not yet.

    The caller holds the lock, so nobody is at it. What they were made from is still where it was.
    """
    hidden = [path for path in data_dir.glob(f"{_SAVING}*") if path.suffix in (".h5", ".mp4")]
    if not hidden:
        return
    for number, names in episode_videos(data_dir).items():
        if any(_same(path, episode_path(data_dir, number)) for path in hidden):
            continue  # The kill came when the whole episode had its names.
        for name in names:
            if any(_same(path, data_dir / name) for path in hidden):
                (data_dir / name).unlink()
    _remove_hidden(hidden)


def _remove_hidden(paths: Iterable[Path]) -> None:
    """The episode last: while its hidden name is there, it says which videos are not left over."""
    for path in sorted(paths, key=lambda path: path.suffix == ".h5"):
        path.unlink(missing_ok=True)


def _same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)
