"""File names in a skill's `data/`, and moves that never overwrite."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from foundation.files import fsync_dir

_EPISODE = re.compile(r"episode_(0|[1-9][0-9]{0,8})\.h5")
_TAKEN = re.compile(r"episode_(0|[1-9][0-9]{0,8})[._].*")
_VIDEO = re.compile(r"episode_(0|[1-9][0-9]{0,8})_.+\.mp4")
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

RECORDING_PREFIX = ".recording-"
RECOVERING_PREFIX = ".recovering-"
TRASH = ".trash"
QUARANTINE = ".quarantine"


def episode_number(name: str) -> int | None:
    """12 for "episode_12.h5"; None for any other name."""
    match = _EPISODE.fullmatch(name)
    return int(match[1]) if match else None


def episode_path(data_dir: Path, number: int) -> Path:
    """The file of an episode."""
    return data_dir / f"episode_{number}.h5"


def episode_files(data_dir: Path) -> dict[int, Path]:
    """Episode files by number, in order. Empty where the directory does not exist."""
    found = ((episode_number(name), data_dir / name) for name in _names(data_dir))
    return dict(sorted((number, path) for number, path in found if number is not None))


def video_path(episode: Path, camera: str) -> Path:
    """The mp4 with the frames of one camera of an episode."""
    return episode.with_name(f"{episode.stem}_{camera}.mp4")


def episode_videos(data_dir: Path) -> dict[int, tuple[str, ...]]:
    """Names of the mp4 files beside each episode, sorted."""
    videos: dict[int, tuple[str, ...]] = {}
    for name in sorted(_names(data_dir)):
        if match := _VIDEO.fullmatch(name):
            videos[int(match[1])] = (*videos.get(int(match[1]), ()), name)
    return videos


def recording_id(start_utc: datetime) -> str:
    """A name for a recording that sorts by its start and that no other recording has."""
    return f"{start_utc:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def recording_path(data_dir: Path, identity: str) -> Path:
    """The file that a recording is written to."""
    return data_dir / f"{RECORDING_PREFIX}{identity}.h5"


def recovering_path(data_dir: Path, identity: str) -> Path:
    """The clean copy that is made of an interrupted recording."""
    return data_dir / f"{RECOVERING_PREFIX}{identity}.h5"


def lock_path(data_dir: Path, identity: str) -> Path:
    """Whoever records, or recovers, holds the lock on this file."""
    return data_dir / f"{RECORDING_PREFIX}{identity}.lock"


def identities(data_dir: Path, prefix: str) -> list[str]:
    """What follows `prefix` in the names of the HDF5 files that begin with it, in order."""
    return sorted(n[len(prefix) : -3] for n in _names(data_dir) if n.startswith(prefix) and n.endswith(".h5"))


def adopt(finished: Path, data_dir: Path) -> Path:
    """Give a finished file the next free episode number; no existing file is replaced.

    A kill in the middle leaves the same file under two names, which `recover` notices.
    """
    number = next_number(data_dir)
    while not move_no_replace(finished, target := episode_path(data_dir, number)):
        number += 1
    fsync_dir(data_dir)
    return target


def set_aside(path: Path, directory: Path) -> Path:
    """Move a file into `directory` (made if need be) under its name without the leading dot; nothing is replaced."""
    directory.mkdir(exist_ok=True)
    name, count = path.name.lstrip("."), 0
    while not move_no_replace(path, target := directory / (f"{count}-{name}" if count else name)):
        count += 1
    fsync_dir(directory)
    fsync_dir(path.parent)
    return target


def next_number(data_dir: Path) -> int:
    """The number after the highest that any file of an episode has."""
    taken = (match for name in _names(data_dir) if (match := _TAKEN.fullmatch(name)))
    return max((int(match[1]) + 1 for match in taken), default=0)


def move_no_replace(source: Path, target: Path) -> bool:
    """Move within one file system; False where `target` exists and is another file."""
    try:
        os.link(source, target)
    except FileExistsError:
        if not target.samefile(source):  # The same file: a kill came between the two halves of this move.
            return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _claim_and_move(source, target)
    source.unlink()
    return True


def _claim_and_move(source: Path, target: Path) -> bool:
    """The same where the file system has no hard links: an empty file claims the name first."""
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    source.replace(target)
    return True


def _names(data_dir: Path) -> Iterator[str]:
    try:
        with os.scandir(data_dir) as entries:
            yield from (entry.name for entry in entries)
    except FileNotFoundError:
        return
