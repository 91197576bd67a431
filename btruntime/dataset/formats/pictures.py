"""PNG and JPEG pictures out of a dataset, decoded only when they are as large as announced."""

from __future__ import annotations

import struct

import numpy as np

from btruntime.dataset.source import DatasetError
from hal.types import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_AGAIN = "Download or copy the dataset again."


def decoded_picture(data: bytes, height: int, width: int, where: str) -> Image:
    """(height, width, 3) uint8 RGB.

    Args:
        data: a PNG or JPEG file.
        height: that it must have.
        width: that it must have.
        where: file and field, for the error.

    Raises:
        DatasetError: another kind of file, damaged, or of another size.
    """
    import cv2

    found = _stated_size(data)
    if found is None:
        raise DatasetError(f"{where} is no whole PNG or JPEG picture. {_AGAIN}")
    # Before decoding: that allocates what the picture claims to need.
    if found != (height, width):
        raise DatasetError(f"{where} is {found[0]}x{found[1]}, expected {height}x{width}. {_AGAIN}")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        bgr = None
    if bgr is None or bgr.shape != (height, width, 3) or bgr.dtype != np.uint8:
        raise DatasetError(f"{where} is damaged: it cannot be decoded. {_AGAIN}")
    rgb: Image = np.ascontiguousarray(bgr[..., ::-1], dtype=np.uint8)
    return rgb


def _stated_size(data: bytes) -> tuple[int, int] | None:
    """Height and width from the head of a PNG or JPEG file; None for anything else."""
    if data.startswith(_PNG):
        return _png_size(data)
    return _jpeg_size(data) if data.startswith(_JPEG) else None


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Size of a PNG all of whose chunks are there: OpenCV allocates what a chunk says of its length."""
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        if at + 12 > len(data):
            return None
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, at = data[at + 4 : at + 8], at + 12 + length
    if at > len(data) or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Size from the start-of-frame segment (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None
