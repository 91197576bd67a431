"""Making the HDF5 file of an episode so that finishing it later changes as little of it as possible."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hal.types import Image
from skills.episodes.header import EpisodeError, EpisodeHeader, columns, image_path, utc_text

# Versions that every HDF5 reader since 1.10 opens; "latest" would move with the library.
LIBVER = ("v110", "v110")
ROWS_PER_CHUNK = 30
_MANY_ATTRIBUTES = 64


def new_file(path: Path) -> Any:
    """An open, empty file; `path` must not exist.

    HDF5's own locks are off here and in the reader: within a process, all who open a file must agree on that.
    """
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    # Attributes stay in one block: beyond 8, HDF5 would spread them over several, and a kill between two of its
    # writes, while `finish` adds one, would make them all unreadable.
    creation.set_attr_phase_change(_MANY_ATTRIBUTES, _MANY_ATTRIBUTES)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_file_locking(False, False)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_EXCL, fcpl=creation, fapl=access))


def create_datasets(file: Any, header: EpisodeHeader) -> dict[str, Any]:
    """Write the root attributes and make all datasets, empty: one frame per chunk, or some rows of numbers."""
    for name, value in header.to_attributes().items():
        file.attrs[name] = value
    # Leaves a gap of the right size, so that `finish` need not make the block longer.
    file.attrs["end_utc"] = utc_text(header.start_utc)
    del file.attrs["end_utc"]
    # The order of the cameras is the order in which their datasets were made, not that of their names.
    file.create_group("images", track_order=True)
    datasets = {}
    for column in columns(header):
        datasets[column.path] = file.create_dataset(
            column.path,
            shape=(0, *column.shape),
            maxshape=(None, *column.shape),
            chunks=(1 if column.is_image else ROWS_PER_CHUNK, *column.shape),
            dtype=column.dtype,
        )
    datasets["committed"] = file.create_dataset("committed", (1,), "int64")
    return datasets


def write_steps(
    file: Any,
    header: EpisodeHeader,
    length: int,
    rows: Mapping[str, NDArray[Any]],
    frames: Mapping[str, Iterable[Image]],
) -> None:
    """Write all steps of an episode into a new file, and last that they are complete.

    Args:
        file: open and empty.
        header: what it says of itself.
        length: T.
        rows: (T, ...) by the path of the dataset, all of `columns(header)` but the images.
        frames: by camera of `header.image_cameras`, T frames (H, W, 3) uint8 RGB.

    Raises:
        EpisodeError: a camera gives another number of frames, or frames of another shape or type.
    """
    datasets = create_datasets(file, header)
    for column in columns(header):
        datasets[column.path].resize(length, axis=0)
        if not column.is_image:
            datasets[column.path][:] = rows[column.path]
    for camera in header.image_cameras:
        count, chunks, shape = 0, datasets[image_path(camera.name)].id, (camera.height, camera.width, 3)
        for count, frame in enumerate(frames[camera.name], 1):
            if count > length:
                raise EpisodeError(f"{camera.name} gave more than {length} frames, expected one per step.")
            if frame.shape != shape or frame.dtype != np.uint8:
                raise EpisodeError(
                    f"frame {count - 1} of {camera.name} is {frame.shape} {frame.dtype}, expected {shape} uint8."
                )
            chunks.write_direct_chunk((count - 1, 0, 0, 0), np.ascontiguousarray(frame))
        if count < length:
            raise EpisodeError(f"{camera.name} gave {count} frames, expected {length}, one per step.")
    datasets["committed"][0] = length


def finish(path: Path, end_utc: datetime) -> None:
    """State in a closed file when it ended, and bring it to the disk."""
    with h5py.File(path, "r+", libver=LIBVER, locking=False) as file:
        file.attrs["end_utc"] = utc_text(end_utc)
    with path.open("rb") as written:
        os.fsync(written.fileno())
