"""One episode of the reference robot's container: HDF5, as its recorder writes it or as its documentation says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from btruntime.dataset.source import DatasetError
from hal.types import Array, Image
from skills.episodes import CameraShape, EpisodeError
from skills.episodes.guarded import dataset_at, holds, refuse_impossible_size

_AGAIN = "Copy it again from where it came from, or leave it out."
_LARGEST = 8192
_WIDEST = 256


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the recorder or the documentation puts things. `is_bgr`: the colour order of the frames in the file."""

    group: str
    is_bgr: bool

    def path(self, name: str) -> str:
        """Where qpos, qvel or images lie."""
        return f"{self.group}{name}"


RECORDER = Layout("observations/", is_bgr=True)
DOCUMENTED = Layout("", is_bgr=False)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What an episode holds beside its frames, T steps of everything.

    Attributes:
        action: (T, A).
        qpos, qvel: (T, J); `qvel` None where it has none.
        arm_s: (T,) when the joints were measured, on the robot's clock; None where it is not stated.
        image_s: (T,) by camera.
        cmd_vel, odom: (T, 2) and (T, 5); both or none.
        cameras: whose frames are in the file, with their sizes.
        notes: what was left out.
    """

    layout: Layout
    action: Array
    qpos: Array
    qvel: Array | None
    arm_s: Array | None
    image_s: dict[str, Array]
    cmd_vel: Array | None
    odom: Array | None
    cameras: tuple[CameraShape, ...]
    notes: tuple[str, ...]


def read_numbers(path: Path) -> Numbers:
    """All of an episode but its frames.

    Raises:
        DatasetError: no HDF5 file, damaged, or something missing, of another shape, or not finite.
    """
    with _opened(path) as file:
        layout = RECORDER if holds(file, "observations", path) else DOCUMENTED
        action = _numbers(file, path, "action", 2)
        steps = len(action)
        notes: list[str] = []

        def optional(name: str, dimensions: int) -> Array | None:
            return _numbers(file, path, name, dimensions, steps) if holds(file, name, path) else None

        cmd_vel, odom = optional("cmd_vel", 2), optional("odom", 2)
        if cmd_vel is None or odom is None or cmd_vel.shape[1] != 2 or odom.shape[1] != 5:
            if cmd_vel is not None or odom is not None:
                notes.append("cmd_vel and odom were left out: expected are (T, 2) and (T, 5).")
            cmd_vel = odom = None
        return Numbers(
            layout=layout,
            action=action,
            qpos=_numbers(file, path, layout.path("qpos"), 2, steps),
            qvel=optional(layout.path("qvel"), 2),
            arm_s=optional("timestamps/arm", 1),
            image_s={
                name: _numbers(file, path, f"timestamps/images/{name}", 1, steps)
                for name in _names(file, path, "timestamps/images")
            },
            cmd_vel=cmd_vel,
            odom=odom,
            cameras=tuple(
                _camera(file, path, layout, name, steps) for name in _names(file, path, layout.path("images"))
            ),
            notes=tuple(notes),
        )


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """The frames of a camera that are in the file; each call reads them from the start, one at a time, as RGB."""

    path: Path
    layout: Layout
    camera: str
    steps: int

    def __call__(self) -> Iterator[Image]:
        with _opened(self.path) as file:
            frames = dataset_at(file, self.layout.path(f"images/{self.camera}"), self.path, _AGAIN)
            for step in range(self.steps):
                frame = frames[step]
                yield np.ascontiguousarray(frame[..., ::-1]) if self.layout.is_bgr else frame


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except EpisodeError as error:
        raise DatasetError(str(error)) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DatasetError(f"{path}: cannot be read as HDF5: {error}. {_AGAIN}") from error


def _names(file: Any, path: Path, group: str) -> list[str]:
    """The cameras that a group has datasets for."""
    if not holds(file, group, path):
        return []
    found = file[group]
    if not isinstance(found, h5py.Group):
        raise DatasetError(f"{path}: {group} is a dataset, expected one dataset per camera in it. {_AGAIN}")
    return sorted(found)


def _numbers(file: Any, path: Path, name: str, dimensions: int, steps: int | None = None) -> Array:
    dataset = dataset_at(file, name, path, _AGAIN)
    shape: tuple[int, ...] = dataset.shape or ()
    if len(shape) != dimensions or dataset.dtype.kind not in "fiu" or (dimensions == 2 and not 0 < shape[1] <= _WIDEST):
        wanted = "(T,)" if dimensions == 1 else f"(T, N) with N of at most {_WIDEST}"
        raise DatasetError(f"{path}: {name} is {shape} {dataset.dtype}, expected numbers {wanted}. {_AGAIN}")
    refuse_impossible_size(dataset, name, shape[0], path)
    if shape[0] == 0 or (steps is not None and shape[0] != steps):
        wanted = "at least one" if steps is None else f"{steps} as action has"
        raise DatasetError(f"{path}: {name} has {shape[0]} steps, expected {wanted}. {_AGAIN}")
    values = np.asarray(dataset[:], dtype=np.float64)
    if not np.isfinite(values).all():
        step = int(np.argwhere(~np.isfinite(values))[0][0])
        raise DatasetError(f"{path}: {name} of step {step} is not finite. Leave the episode out.")
    return values


def _camera(file: Any, path: Path, layout: Layout, name: str, steps: int) -> CameraShape:
    where = layout.path(f"images/{name}")
    dataset = dataset_at(file, where, path, _AGAIN)
    shape: tuple[int, ...] = dataset.shape or ()
    if len(shape) != 4 or shape[3] != 3 or dataset.dtype != np.uint8 or not all(0 < n <= _LARGEST for n in shape[1:3]):
        raise DatasetError(
            f"{path}: {where} is {shape} {dataset.dtype}, expected (T, height, width, 3) uint8 of at most "
            f"{_LARGEST}x{_LARGEST}. {_AGAIN}"
        )
    refuse_impossible_size(dataset, where, shape[0], path)
    if shape[0] != steps:
        raise DatasetError(f"{path}: {where} has {shape[0]} frames, expected {steps} as action has. {_AGAIN}")
    return CameraShape(name, shape[1], shape[2])
