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
from skills.episodes.header import Column, EpisodeError, EpisodeHeader, columns, image_path
from skills.episodes.index import index_episode
from skills.episodes.layout import create_datasets, finish, new_file
from skills.episodes.naming import (
    episode_files,
    episode_path,
    episode_videos,
    move_no_replace,
    next_number,
    video_path,
)
from skills.episodes.video import VideoFrames
from skills.locks import locked

_SAVING = ".saving-"
_SPARE_BYTES = 256 << 20

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
        OSError: the disk is full, or the directory cannot be written.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with locked(data_dir / f"{_SAVING}lock"):
        _remove_leftovers(data_dir)
        header = header.model_copy(update={"videos": {camera: sha256_of(path) for camera, path in videos.items()}})
        length = _checked_length(header, rows, frames)
        _check_videos(header, videos, length)
        _check_space(data_dir, header, videos, length)
        hidden = data_dir / f"{_SAVING}{secrets.token_hex(8)}.h5"
        copies = {camera: video_path(hidden, camera) for camera in videos}
        try:
            for camera, source in videos.items():
                _copy(source, copies[camera])
            _write(hidden, header, rows, frames, length)
            step_s = np.asarray(rows["timestamps/step"])
            finish(hidden, end_utc or header.start_utc + timedelta(seconds=float(step_s[-1])))
            episode = _name(hidden, copies, data_dir, number)
        except BaseException:
            for path in (hidden, *copies.values()):
                path.unlink(missing_ok=True)
            raise
    index_episode(episode)
    return episode


def _checked_length(header: EpisodeHeader, rows: Rows, frames: Mapping[str, Iterable[Image]]) -> int:
    """How many steps there are, after all rows were checked."""
    expected = {column.path: column for column in columns(header) if not column.is_image}
    if set(rows) != set(expected):
        raise EpisodeError(f"an episode has {', '.join(sorted(expected))}; given were {', '.join(sorted(rows))}.")
    wanted = {camera.name for camera in header.image_cameras}
    if set(frames) != wanted:
        raise EpisodeError(f"frames of {', '.join(sorted(frames))} were given, expected {', '.join(sorted(wanted))}.")
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
    if free < needed + _SPARE_BYTES:
        raise EpisodeError(
            f"{data_dir}: {free >> 20} MiB free, this episode needs {needed >> 20} MiB and {_SPARE_BYTES >> 20} MiB "
            f"to spare. Free some space."
        )


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())


def _write(path: Path, header: EpisodeHeader, rows: Rows, frames: Mapping[str, Iterable[Image]], length: int) -> None:
    with new_file(path) as file:
        datasets = create_datasets(file, header)
        for column in columns(header):
            datasets[column.path].resize(length, axis=0)
            if not column.is_image:
                datasets[column.path][:] = rows[column.path]
        for camera in header.image_cameras:
            count = 0
            for frame in frames[camera.name]:
                if frame.shape != (camera.height, camera.width, 3) or frame.dtype != np.uint8 or count == length:
                    raise EpisodeError(
                        f"frame {count} of {camera.name} is {frame.shape} {frame.dtype}, expected {length} frames of "
                        f"({camera.height}, {camera.width}, 3) uint8."
                    )
                chunk = datasets[image_path(camera.name)].id
                chunk.write_direct_chunk((count, 0, 0, 0), np.ascontiguousarray(frame))
                count += 1
            if count != length:
                raise EpisodeError(f"{camera.name} gave {count} frames, expected {length}.")
        datasets["committed"][0] = length


def _name(hidden: Path, copies: Mapping[str, Path], data_dir: Path, wanted: int | None) -> Path:
    """Give videos, and then the episode, the first number under which nothing is known.

    A kill in the middle leaves videos under two names, by which `_remove_leftovers` knows them.
    """
    number = next_number(data_dir)
    if wanted is not None and not any(data_dir.glob(f"episode_{wanted}[._]*")):
        number = wanted
    while True:
        episode = episode_path(data_dir, number)
        pairs = [*((copies[camera], video_path(episode, camera)) for camera in copies), (hidden, episode)]
        named: list[tuple[Path, Path]] = []
        for source, target in pairs:
            if not _second_name(source, target):
                break
            named.append((source, target))
        else:
            fsync_dir(data_dir)
            for source, _ in pairs:
                source.unlink(missing_ok=True)
            return episode
        # Somebody else took the number meanwhile.
        for source, target in named:
            target.replace(source)
        number = max(number + 1, next_number(data_dir))


def _second_name(source: Path, target: Path) -> bool:
    """Name a file `target` as well; False where that name is taken. Where links cannot be made, it is moved."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        return move_no_replace(source, target)
    return True


def _remove_leftovers(data_dir: Path) -> None:
    """What a killed saver left: its hidden files, and videos that were named before their episode was.

    The caller holds the lock, so nobody is at it. What they were made from is still where it was.
    """
    hidden = [path for path in data_dir.glob(f"{_SAVING}*") if path.suffix in (".h5", ".mp4")]
    if not hidden:
        return
    known, videos = episode_files(data_dir), episode_videos(data_dir)
    orphans = [data_dir / name for number, names in videos.items() if number not in known for name in names]
    for path in [*(each for each in orphans if any(each.samefile(other) for other in hidden)), *hidden]:
        path.unlink()
