"""Locks between processes: flock on a small file of their own, released by the kernel when the holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the block; waits for whoever holds it. Threads exclude one another too.

    The file stays behind, empty: removing it would let two processes lock two files of the same name.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class OwnedLock:
    """A lock that is held for as long as its object, and whose file goes with it."""

    def __init__(self, path: Path, handle: int):
        self._path, self._handle = path, handle

    @classmethod
    def try_take(cls, path: Path) -> OwnedLock | None:
        """Take the lock without waiting; None while somebody else holds it."""
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return None
            if _is_still(path, handle):
                return cls(path, handle)
            os.close(handle)

    def release(self) -> None:
        """Remove the file and let go. Idempotent."""
        if self._handle < 0:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = -1


def _is_still(path: Path, handle: int) -> bool:
    """Whether `path` names the locked file, and not one that replaced it while we waited."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
