from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btruntime.dataset.formats.pictures import decoded_picture
from btruntime.dataset.source import DatasetError


def encoded(kind: str, height: int = 16, width: int = 24) -> bytes:
    picture = np.full((height, width, 3), (0, 100, 250), np.uint8)  # BGR
    return bytes(cv2.imencode(kind, picture)[1])


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_it_comes_out_as_rgb(kind):
    rgb = decoded_picture(encoded(kind), 16, 24, "here")
    assert (rgb.shape, rgb.dtype) == ((16, 24, 3), np.uint8)
    np.testing.assert_allclose(rgb[8, 12], (250, 100, 0), atol=4)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no whole PNG or JPEG"),
        (encoded(".bmp"), "no whole PNG or JPEG"),
        (encoded(".png", 8), "here is 8x24, expected 16x24"),
        (encoded(".jpg", 8), "here is 8x24, expected 16x24"),
        (encoded(".png")[:40], "no whole PNG"),
        (encoded(".png")[:33] + b"\x70" + encoded(".png")[34:], "no whole PNG"),
        (encoded(".png")[:45] + b"\0\0\0\0" + encoded(".png")[49:], "damaged"),
        (encoded(".png")[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + encoded(".png")[24:], "is 2147483647x2147483647"),
        (b"\xff\xd8\xff", "no whole"),
    ],
)
def test_anything_else_is_refused(data, why):
    with pytest.raises(DatasetError, match=why):
        decoded_picture(data, 16, 24, "here")


@given(at=st.integers(0, 200), value=st.integers(0, 255), kind=st.sampled_from([".png", ".jpg"]))
def test_a_changed_byte_gives_a_picture_or_an_error(at, value, kind):
    data = bytearray(encoded(kind))
    data[at % len(data)] = value
    try:
        assert decoded_picture(bytes(data), 16, 24, "here").shape == (16, 24, 3)
    except DatasetError as error:
        assert "here" in str(error)  # noqa: PT017
