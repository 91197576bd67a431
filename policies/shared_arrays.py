"""Memory that a control process and its policy process both see: state and frames one way, actions the other.

It is a file without a name, handed over as a descriptor, so the kernel frees it when both are gone, however they
ended. The two sides take turns and say so through a socket, which also orders their reads and writes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from policies.spec import Image

_MEMORY = Path("/dev/shm")
_ALIGNMENT = 64
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies where.

    Attributes:
        state_dim: numbers of the state.
        action_shape: (H, A).
        frames: camera, height and width of each picture as it comes, before any resizing.
    """

    state_dim: int
    action_shape: tuple[int, int]
    frames: tuple[tuple[str, int, int], ...] = ()

    @property
    def actions_at(self) -> int:
        return _aligned(self.state_dim * _FLOAT_BYTES)

    @property
    def frames_at(self) -> int:
        return self.actions_at + _aligned(self.action_shape[0] * self.action_shape[1] * _FLOAT_BYTES)

    @property
    def size(self) -> int:
        return self.frames_at + sum(_aligned(height * width * 3) for _, height, width in self.frames)


def unnamed_file() -> IO[bytes]:
    """An empty file without a name: in memory where the system has that, else on disk."""
    directory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    return tempfile.TemporaryFile(dir=directory, buffering=0)


def reserve(file: int, size: int) -> None:
    """Make the file at least `size` bytes, all of them really there.

    Raises:
        OSError: there is no room. (A sparse file would raise SIGBUS at the first write instead.)
    """
    have = os.fstat(file).st_size
    if have < size:
        os.pwrite(file, bytes(size - have), have)
        if os.fstat(file).st_size < size:
            raise OSError(f"only {os.fstat(file).st_size} of {size} bytes of shared memory could be reserved")


class SharedArrays:
    """Arrays over the memory of one file, which is large enough for `layout`."""

    def __init__(self, file: int, layout: Layout):
        self.layout = layout
        memory = mmap.mmap(file, layout.size)
        self.state: NDArray[np.float32] = np.ndarray((layout.state_dim,), np.float32, memory)
        self.actions: NDArray[np.float32] = np.ndarray(layout.action_shape, np.float32, memory, layout.actions_at)
        self.frames: dict[str, Image] = {}
        at = layout.frames_at
        for camera, height, width in layout.frames:
            self.frames[camera] = np.ndarray((height, width, 3), np.uint8, memory, at)
            at += _aligned(height * width * 3)

    def write(self, state: NDArray[np.float32], images: Mapping[str, Image]) -> None:
        """Copy an observation in; frames have the sizes of the layout."""
        self.state[:] = state
        for camera, frame in self.frames.items():
            np.copyto(frame, images[camera])


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
