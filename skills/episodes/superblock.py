"""The mark that HDF5 leaves in the first bytes of a file that is open for writing.

A writer that is killed while a file is open without SWMR (the moment in which an episode gets its end time) leaves
the mark behind, and every reader then refuses. Nothing but that mark is wrong; `h5clear` does the same as this.
Source: HDF5 File Format Specification 3.0, II.A (superblock version 3); checksum: Bob Jenkins, lookup3, 2006.
"""

from __future__ import annotations

import os
from pathlib import Path

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION_AT, _FLAGS_AT, _CHECKSUM_AT, _SIZE = 8, 11, 44, 48
_MASK = 0xFFFFFFFF


def clear_write_mark(path: Path) -> bool:
    """Remove the mark of an open writer; only for a file that nobody has open.

    Returns:
        True when there was a mark; False for a file without one, or whose superblock is of another kind.
    """
    with path.open("r+b") as file:
        block = bytearray(file.read(_SIZE))
        if len(block) < _SIZE or not block.startswith(_SIGNATURE) or block[_VERSION_AT] != 3 or not block[_FLAGS_AT]:
            return False
        if _checksum(bytes(block[:_CHECKSUM_AT])) != int.from_bytes(block[_CHECKSUM_AT:], "little"):
            return False
        block[_FLAGS_AT] = 0
        block[_CHECKSUM_AT:] = _checksum(bytes(block[:_CHECKSUM_AT])).to_bytes(4, "little")
        file.seek(0)
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return True


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _checksum(data: bytes) -> int:
    """lookup3 of `data` with initial value 0, for data that is not empty."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    blocks = [data[start : start + 12].ljust(12, b"\0") for start in range(0, len(data), 12)]
    for number, block in enumerate(blocks):
        a, b, c = (
            (word + int.from_bytes(block[4 * i : 4 * i + 4], "little")) & _MASK for i, word in enumerate((a, b, c))
        )
        if number < len(blocks) - 1:
            a, b, c = _mixed(a, b, c)
    return _finished(a, b, c)


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (4, 6, 8, 16, 19, 4):
        a, c = ((a - c) & _MASK) ^ _rotated(c, bits), (c + b) & _MASK
        a, b, c = b, c, a
    return a, b, c


def _finished(a: int, b: int, c: int) -> int:
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotated(b, bits)) & _MASK
        a, b, c = b, c, a
    return b
