"""Datasets of other programs, recognised by what lies in their directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from btruntime.dataset.formats.lerobot import LeRobotSource
from btruntime.dataset.formats.lerobot_meta import INFO, VERSIONS
from btruntime.dataset.formats.mapping import SourceMapping, load_mapping
from btruntime.dataset.formats.reference import ReferenceSource
from btruntime.dataset.formats.reference_index import data_directory
from btruntime.dataset.source import DatasetError, DatasetSource
from skills.episodes.naming import episode_files

__all__ = ["SourceMapping", "load_mapping", "open_source"]

_READ = (
    f"LeRobot {' and '.join(VERSIONS)} ({INFO}), and the reference robot's recordings (episode_N.h5, with or without "
    f"data/dataset_metadata.json)"
)
_SHOWN = 8


def open_source(path: Path, mapping: SourceMapping | None = None) -> DatasetSource:
    """Open a dataset of another program.

    Args:
        path: its directory.
        mapping: what a person says of it.

    Raises:
        DatasetError: nothing that can be read lies there, or the dataset does not say enough.
    """
    if not path.is_dir():
        raise DatasetError(f"{path}: no such directory, expected one that holds {_READ}.")
    if (path / INFO).is_file():
        return LeRobotSource(path, mapping)
    if (data := data_directory(path)) is not None:
        _refuse_others(data)
        return ReferenceSource(path, mapping)
    if any(path.glob("episode_*.hdf5")):
        raise DatasetError(f"{path}: ALOHA's recordings (episode_N.hdf5) are not read yet; read are {_READ}.")
    raise DatasetError(f"{path}: no dataset that is known: it holds {_listing(path)}; read are {_READ}.")


def _refuse_others(data: Path) -> None:
    """Tell recordings that have the same file names apart by what the first file that opens says of itself."""
    for episode in episode_files(data).values():
        attributes = _attributes(episode)
        if attributes is None:
            continue
        if "schema" in attributes:
            raise DatasetError(f"{episode}: btruntime's own recording, which needs no import. Copy or merge the skill.")
        if "sim" in attributes or "compress" in attributes:
            raise DatasetError(f"{episode}: ALOHA's recordings are not read yet; read are {_READ}.")
        return


def _attributes(path: Path) -> set[str] | None:
    """Names of a file's root attributes; None where it cannot be opened, which is said when it is read."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            found: Any = file.attrs.keys()
            return set(found)
    except (OSError, RuntimeError):
        return None


def _listing(path: Path) -> str:
    names = sorted(os.listdir(path))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "nothing") + more
