"""Writing an episode so that a kill at any moment leaves a file that opens and lacks at most half a second."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from foundation.errors import BtruntimeError
from hal.types import Array, Image
from skills.episodes.header import (
    EpisodeHeader,
    EpisodeStep,
    columns,
    image_path,
    image_time_path,
    stale_path,
)
from skills.episodes.index import index_episode
from skills.episodes.labels import EpisodeLabels, Outcome, save_labels
from skills.episodes.layout import create_datasets, finish, new_file
from skills.episodes.naming import TRASH, adopt, lock_path, recording_id, recording_path, set_aside
from skills.episodes.progress import fill_progress
from skills.locks import OwnedLock

FLUSH_STEPS = 15
FLUSH_S = 0.4
MIN_FREE_BYTES = 256 << 20
# h5py turns most failures of the disk into the first, and some into the second.
_H5_ERRORS = (OSError, RuntimeError)
_H5_ERRNO = re.compile(r"errno = (\d+)")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class StepError(BtruntimeError):
    """A step does not fit the episode: wrong shape, wrong type, NaN, or time that goes back. It was not written."""


class EpisodeWriteError(BtruntimeError):
    """An episode cannot be written to."""


class DiskFullError(EpisodeWriteError):
    """The disk is nearly full; what was recorded so far is safe and can be finalised."""


class EpisodeWriter:
    """Writes one episode to `.recording-<id>.h5`, and moves it to `episode_N.h5` when it is finalised.

    One thread, best in a process of its own: `append` blocks on the disk. Frames are written at once, rows of
    numbers at each flush; a flush ends with `committed`, the count of complete steps.

    Args:
        data_dir: the skill's `data/`; made if it does not exist.
        header: what the file says of itself.
        now: seconds for the flush interval; not recorded.
        utc_now: wall time for `end_utc`.
        min_free_bytes: recording stops when less than this is free on the disk.

    Raises:
        DiskFullError: the disk is nearly full; nothing was made.
        EpisodeWriteError: the file cannot be made.
    """

    def __init__(
        self,
        data_dir: Path,
        header: EpisodeHeader,
        *,
        now: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
        min_free_bytes: int = MIN_FREE_BYTES,
    ):
        if header.videos:
            raise EpisodeWriteError("an episode with videos is saved as a whole, see skills.episodes.saving.")
        self._data_dir, self._header = data_dir, header
        self._now, self._utc_now, self._min_free_bytes = now, utc_now, min_free_bytes
        self._columns = tuple(columns(header))
        self._rows: list[dict[str, Array]] = []
        self._length = self._committed = 0
        self._failed_to_write = False
        self._last_step_s = float("-inf")
        identity = recording_id(header.start_utc)
        self._path = recording_path(data_dir, identity)
        self._lock = self._take_lock(lock_path(data_dir, identity))
        try:
            self._check_disk()
            self._file, self._datasets = self._create()
        except BaseException:
            self._lock.release()
            raise
        self._flushed_s = now()

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._path

    def __len__(self) -> int:
        return self._length

    def append(self, step: EpisodeStep) -> None:
        """Add a step. Flushes, and waits for the disk, every 15 steps or 0.4 s, whichever comes first.

        Raises:
            StepError: the step does not fit the header; it was not written, and the episode can go on.
            DiskFullError: the disk is nearly full; the step was written, no more will be.
            EpisodeWriteError: the file is closed, or writing failed, and it is closed now.
        """
        self._check_open()
        row = checked_row(step, self._header, self._last_step_s)
        try:
            for camera in self._header.cameras:
                self._write_frame(image_path(camera.name), step.images[camera.name])
        except _H5_ERRORS as error:
            raise self._failed(error) from error
        self._rows.append(row)
        self._length += 1
        self._last_step_s = step.step_s
        if len(self._rows) >= FLUSH_STEPS or self._now() - self._flushed_s >= FLUSH_S:
            self.flush()
            self._check_disk()

    def flush(self) -> None:
        """Bring all steps so far to the disk, then count them in `committed`."""
        self._check_open()
        self._flushed_s = self._now()
        if not self._rows:
            return
        try:
            self._write_rows()
            self._sync()
            # A second sync, because a power cut may keep the later of two unsynced writes and lose the earlier.
            self._datasets["committed"][0] = self._length
            self._sync()
        except _H5_ERRORS as error:
            raise self._failed(error) from error
        self._committed = self._length

    def finalize(self, *, outcome: Outcome | None = None, note: str = "") -> Path:
        """Fill in progress and termination, close, and move the file to the next free `episode_N.h5`.

        Args:
            outcome: written to `episode_N.json` beside it, where this or a note is given.
            note: free text, to the same file.

        Returns:
            The path of the episode, which is in the index.

        Raises:
            EpisodeWriteError: there is no step, the file is closed, or writing failed. The recording stays on disk.
        """
        self._check_open()
        if not self._length:
            raise EpisodeWriteError(f"{self._path}: nothing was recorded, expected at least one step. Discard it.")
        self.flush()
        try:
            self._write_progress()
            self._close()
            finish(self._path, self._utc_now())
            episode = adopt(self._path, self._data_dir)
        except _H5_ERRORS as error:
            raise self._failed(error) from error
        self._lock.release()
        if outcome is not None or note:
            save_labels(episode, EpisodeLabels(outcome=outcome or "unlabelled", note=note))
        index_episode(episode)
        return episode

    def discard(self) -> Path:
        """Close, and move the recording to `.trash/` in the same directory; returns where it is now.

        Works after a failure to write, too.

        Raises:
            EpisodeWriteError: the file is closed already, or cannot be moved.
        """
        if not self._failed_to_write:
            self._check_open()
        try:
            # What a full disk refuses here is not missed: it was to be thrown away.
            with suppress(EpisodeWriteError):
                if self._file:
                    self._flush_and_close()
            return set_aside(self._path, self._data_dir / TRASH)
        except OSError as error:
            raise EpisodeWriteError(f"{self._path}: cannot be moved to {TRASH}: {error}. Free some space.") from error
        finally:
            self._let_go()

    def close(self) -> None:
        """Stop writing and leave the recording where it is, for `recover`. Idempotent; call it after a failure.

        Raises:
            EpisodeWriteError: the disk refused the last steps; file and lock are let go of all the same.
        """
        try:
            if self._file:
                self._flush_and_close()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._failed_to_write = False
        self._lock.release()

    def _sync(self) -> None:
        self._file.flush()
        os.fdatasync(self._file.id.get_vfd_handle())

    def _take_lock(self, path: Path) -> OwnedLock:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = OwnedLock.try_take(path)
        except OSError as error:
            raise EpisodeWriteError(f"{path}: cannot be created: {error}. Is the directory writable?") from error
        if lock is None:
            raise EpisodeWriteError(f"{self._path}: another process records to this file. Stop it first.")
        return lock

    def _create(self) -> tuple[Any, dict[str, Any]]:
        file = None
        try:
            file = new_file(self._path)
            datasets = create_datasets(file, self._header)
            # A write that fails while the mode is changed leaves a file that HDF5 crashes on; let it fail here.
            file.flush()
            file.swmr_mode = True
        except _H5_ERRORS as error:
            if file is not None:
                _abandon(file)
            if not isinstance(error, FileExistsError):
                self._path.unlink(missing_ok=True)
            number, reason = _reason(error)
            remedy = "Free some space." if number in _FULL else "Is the directory writable?"
            raise EpisodeWriteError(f"{self._path}: cannot be created: {reason}. {remedy}") from error
        return file, datasets

    def _write_frame(self, path: str, frame: Image) -> None:
        dataset = self._datasets[path].id
        dataset.set_extent((self._length + 1, *frame.shape))
        dataset.write_direct_chunk((self._length, 0, 0, 0), np.ascontiguousarray(frame))

    def _write_rows(self) -> None:
        for column in self._columns:
            if not column.is_image:
                dataset = self._datasets[column.path]
                dataset.resize(self._length, axis=0)
                dataset[self._length - len(self._rows) :] = np.stack([row[column.path] for row in self._rows])
        self._rows.clear()

    def _write_progress(self) -> None:
        for path in ("action", "applied_action"):
            dataset = self._datasets[path]
            dataset[:] = fill_progress(dataset[:], self._header.action)
        self._file.flush()

    def _check_open(self) -> None:
        if not self._file:
            raise EpisodeWriteError(f"{self._path}: the episode is closed. Start a new one.")

    def _check_disk(self) -> None:
        disk = os.statvfs(self._data_dir)
        free = disk.f_bavail * disk.f_frsize
        if free < self._min_free_bytes:
            stopped = f"Recording stopped; the {self._length} steps so far are safe. " if self._length else ""
            raise DiskFullError(
                f"{self._data_dir}: {free >> 20} MiB free, expected at least {self._min_free_bytes >> 20} MiB. "
                f"{stopped}Free some space."
            )

    def _flush_and_close(self) -> None:
        self.flush()
        try:
            self._close()
        except _H5_ERRORS as error:
            raise self._failed(error) from error

    def _close(self) -> None:
        self._datasets.clear()
        self._file.close()

    def _failed(self, error: Exception) -> EpisodeWriteError:
        """The error to raise; the file stays as it is now, for `recover`, and is closed."""
        self._failed_to_write = True
        self._datasets.clear()
        if self._file:
            _abandon(self._file)
        number, reason = _reason(error)
        remedy = "Free some space." if number in _FULL else "Is the disk full or gone?"
        return EpisodeWriteError(
            f"{self._path}: writing failed: {reason}. {self._committed} of {self._length} steps are safe and will be "
            f"recovered at the next start. {remedy}"
        )


def _abandon(file: Any) -> None:
    """Close an HDF5 file that could not be written, and leave it on the disk as it is, for `recover`.

    What HDF5 has left to write goes to memory: some of it without the rest would spoil what is safe. There must be no
    second flush, after which HDF5 2.0 crashes at the end of the process. It also does after a first one that broke
    off in the middle of the metadata, against which nothing helps; by then everything is said and saved.
    """
    memory = os.memfd_create("abandoned")
    try:
        os.dup2(memory, file.id.get_vfd_handle(), inheritable=False)
    finally:
        os.close(memory)
    with suppress(*_H5_ERRORS):
        file.close()


def _reason(error: Exception) -> tuple[int | None, str]:
    """The number of the system's error, None if HDF5 does not tell, and what went wrong, in one line."""
    found = _H5_ERRNO.search(str(error))
    number = error.errno if isinstance(error, OSError) and error.errno else int(found[1]) if found else None
    return number, os.strerror(number) if number else " ".join(str(error).split())


def checked_row(step: EpisodeStep, header: EpisodeHeader, last_step_s: float) -> dict[str, Array]:
    """The numbers of a step by dataset, after everything about the step was checked, its frames included.

    Raises:
        StepError: something is missing, has another shape or type, is not finite, or is not later than the last.
    """
    values = _values(step, header)
    row: dict[str, Array] = {}
    for column in columns(header):
        value = np.asarray(values[column.path])
        if value.shape != column.shape or not _fits(value.dtype, column.dtype):
            raise StepError(
                f"step at {step.step_s} s: {column.path} is {value.shape} {value.dtype}, "
                f"expected {column.shape} {column.dtype}. Is this the robot that the episode was begun with?"
            )
        if column.dtype == "float64" and not np.isfinite(value).all():
            raise StepError(
                f"step at {step.step_s} s: {column.path} is {value.tolist()}, expected finite numbers. "
                f"Check the source of these values before recording."
            )
        if not column.is_image:
            row[column.path] = value.astype(column.dtype)
    if step.step_s <= last_step_s:
        raise StepError(f"step at {step.step_s} s: expected a time after the last step's, {last_step_s} s.")
    return row


def _values(step: EpisodeStep, header: EpisodeHeader) -> dict[str, object]:
    """What a step holds, by dataset; every camera of the header must be there, and no other."""
    for what, found in (("images", step.images), ("stale", step.stale), ("image_s", step.image_s)):
        if set(found) != set(header.camera_names):
            expected = _listed(header.camera_names)
            raise StepError(f"step at {step.step_s} s: {what} has cameras {_listed(found)}, expected {expected}.")
    values: dict[str, object] = {
        "action": step.action,
        "applied_action": step.applied_action,
        "qpos": step.qpos,
        "qvel": step.qvel,
        "timestamps/step": step.step_s,
        "timestamps/arm": step.arm_s,
    }
    for name in header.camera_names:
        values[image_path(name)] = step.images[name]
        values[image_time_path(name)] = step.image_s[name]
        values[stale_path(name)] = step.stale[name]
    if header.has_base:
        values["cmd_vel"], values["odom"] = step.cmd_vel, step.odom
    return values


def _fits(found: np.dtype[Any], expected: str) -> bool:
    if expected == "float64":
        return found.kind in "fiu"
    return found == np.dtype(expected)


def _listed(names: Mapping[str, object] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) or "none"
