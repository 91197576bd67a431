"""Reading HDF5 files of strangers: nothing but what is in the file itself, and never more than its bytes can hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py

from skills.episodes.header import EpisodeError

MAX_STEPS = 1_000_000
# A frame of the largest size allowed is one chunk.
_MAX_CHUNK_BYTES = 8192 * 8192 * 3
# The most that deflate can make of a byte.
_MAX_EXPANSION = 1032


def holds(file: Any, path: str, where: Path) -> bool:
    """Whether there is something at that path, in this very file; follows no link to anywhere else.

    Args:
        file: the open `h5py.File`.
        path: names of groups, and last of the thing itself.
        where: the file's path, for the error.

    Raises:
        EpisodeError: a soft or an external link is on the way.
    """
    group = file
    for name in path.split("/"):
        links, key = group.id.links, name.encode()
        if not links.exists(key):
            return False
        if links.get_info(key).type != h5py.h5l.TYPE_HARD:
            raise EpisodeError(
                f"{where}: {path} is a link to somewhere else (at {name}), expected data in this file. "
                f"The file was altered; remove it."
            )
        group = group[name]
        if not isinstance(group, h5py.Group):
            break
    return True


def dataset_at(file: Any, path: str, where: Path, remedy: str) -> Any:
    """The dataset at that path: all of it is in this file, and a part of it can be read at bounded cost.

    Raises:
        EpisodeError: it is missing (then `remedy` says what to do), or takes its bytes from elsewhere.
    """
    dataset = file.get(path) if holds(file, path, where) else None
    if not isinstance(dataset, h5py.Dataset):
        raise EpisodeError(f"{where}: dataset {path} missing. {remedy}")
    if dataset.external or dataset.is_virtual:
        raise EpisodeError(
            f"{where}: {path} takes its bytes from other files, expected data in this file. "
            f"The file was altered; remove it."
        )
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise EpisodeError(
            f"{where}: {path} has chunks of {dataset.chunks}, expected at most {_MAX_CHUNK_BYTES} "
            f"bytes each. The file was altered; remove it."
        )
    return dataset


def refuse_impossible_size(dataset: Any, path: str, length: int, where: Path) -> None:
    """Refuse `length` steps that the file's bytes cannot hold: reading them would fill the memory with nothing.

    Raises:
        EpisodeError: they are more than that, or more than any episode has.
    """
    size = where.stat().st_size
    row_bytes = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    room = size * (_MAX_EXPANSION if dataset.id.get_create_plist().get_nfilters() else 1)
    if length > MAX_STEPS or length * row_bytes > room:
        raise EpisodeError(
            f"{where}: {path} claims {length} steps of {row_bytes} bytes, expected at most {MAX_STEPS} "
            f"steps and no more than the file's {size} bytes can hold. The file was altered; remove it."
        )
