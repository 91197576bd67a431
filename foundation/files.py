"""Writing files so that a kill, a power cut or a full disk leaves either the old content or the new."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from foundation.errors import BtruntimeError

_READ_SIZE = 1 << 20


class PathEscapesError(BtruntimeError):
    """A path taken from a file points out of the directory that it belongs to."""


def fsync_dir(directory: Path) -> None:
    """Make a rename inside `directory` durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; when the block ends well it is fsynced and renamed to `path`.

    When the block raises, the temporary file is removed and `path` is as it was. What the system refuses is said of
    `path`: nobody knows the temporary name, and a full disk names no file at all.
    """
    temporary = path.with_name(f".{path.name}.{token_hex(8)}.tmp")
    try:
        # Created with the mode of any new file: to ask for the umask is to change it, for every thread.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        yield temporary
        _keep_mode(path, temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename is None or os.fspath(error.filename) == str(temporary)):
            error.filename = str(path)
        raise
    fsync_dir(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace the content of `path` as a whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Hexadecimal SHA-256 of a file; `progress` is told the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_READ_SIZE):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done)
    return digest.hexdigest()


def confined(root: Path, relative: str, *, what: str) -> Path:
    """`root / relative`, refused when it would leave `root` (absolute, `..`, or through a link).

    Args:
        root: the directory that owns the path.
        relative: the path as it stood in a file.
        what: names file and field for the error, for example "metadata.json: execution.checkpoint".

    Raises:
        PathEscapesError: the path leaves `root`.
    """
    base = root.resolve()
    target = base if "\0" in relative else _resolved(base / relative)
    if target is None or target == base or not target.is_relative_to(base):
        raise PathEscapesError(f"{what} is {relative!r}, which is not a path inside {root}. Use a relative path.")
    return target


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return None


def _keep_mode(path: Path, temporary: Path) -> None:
    """Give the replacement the permissions of the file it replaces."""
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode & 0o7777
        temporary.chmod(mode)
