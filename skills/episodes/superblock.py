"""What HDF5 leaves in the first bytes of a file whose writer was killed.

A mark says that a writer has the file open, and the length that they state is not the file's: too small after a
kill, too large after a full disk. Nothing else is wrong with a file whose data was flushed; `h5clear` does the same
as this. The other way around the mark, reading with SWMR, is for files that are still being written: where bytes are
missing at the end, it waits for them, for hours.
Source: HDF5 File Format Specification 3.0, II.A (superblock version 3); checksum: Bob Jenkins, lookup3, 2006.
"""

from __future__ import annotations

import os
from pathlib import Path

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION_AT, _WIDTH_AT, _FLAGS_AT, _LENGTH_AT, _CHECKSUM_AT, _SIZE = 8, 9, 11, 28, 44, 48
_MASK = 0xFFFFFFFF


def clear_write_mark(path: Path) -> bool:
    """Make a file that its writer left open readable as any other; only for a file that nobody has open.

    Returns:
        True when there was a mark; False for a file without one, or whose superblock is of another kind.
    """
    with path.open("r+b") as file:
        block = bytearray(file.read(_SIZE))
        if not _is_marked(bytes(block)):
            return False
        block[_FLAGS_AT] = 0
        block[_LENGTH_AT : _LENGTH_AT + 8] = os.fstat(file.fileno()).st_size.to_bytes(8, "little")
        block[_CHECKSUM_AT:] = _checksum(bytes(block[:_CHECKSUM_AT])).to_bytes(4, "little")
        file.seek(0)
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return True


def _is_marked(block: bytes) -> bool:
    if len(block) < _SIZE or not block.startswith(_SIGNATURE) or (block[_VERSION_AT], block[_WIDTH_AT]) != (3, 8):
        return False
    return block[_FLAGS_AT] != 0 and _checksum(block[:_CHECKSUM_AT]) == int.from_bytes(block[_CHECKSUM_AT:], "little")


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
