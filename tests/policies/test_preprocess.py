from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_policy import SPEC

from policies.preprocess import images_for, resize, to_tensor
from policies.spec import PolicyInputError


def red_card(height: int, width: int) -> np.ndarray:
    card = np.zeros((height, width, 3), dtype=np.uint8)
    card[...] = (198, 60, 9)
    return card


def test_a_red_card_stays_red_through_resizing() -> None:
    small = resize(red_card(480, 640), 224, 224)
    assert small.shape == (224, 224, 3)
    assert (small == (198, 60, 9)).all()


def test_the_filter_averages_areas() -> None:
    checks = np.zeros((4, 4, 3), dtype=np.uint8)
    checks[::2, ::2] = 200
    assert (resize(checks, 2, 2) == 50).all()


def test_a_frame_of_the_right_size_is_left_alone() -> None:
    frame = red_card(4, 6)
    assert resize(frame, 4, 6) is frame


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_frame_is_refused(frame: np.ndarray) -> None:
    with pytest.raises(PolicyInputError, match="expected uint8"):
        resize(frame, 2, 2)


@pytest.mark.parametrize(("colour", "channels"), [("rgb", (198, 60, 9)), ("bgr", (9, 60, 198))])
def test_channels_come_in_the_order_of_training(colour: str, channels: tuple[int, ...]) -> None:
    spec = SPEC.model_copy(update={"colour": colour})
    frame = red_card(40, 60)
    frame.setflags(write=False)  # as frames of an observation are
    (image,) = images_for(spec, {"top": frame}, torch.device("cpu"))
    assert image.shape == (1, 3, 4, 6)
    assert image.dtype == torch.float32
    assert torch.allclose(image[0, :, 2, 3], torch.tensor(channels) / 255)


def test_training_and_running_see_the_same() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    cached = torch.from_numpy(resize(frame, 4, 6)).expand(2, 7, -1, -1, -1)  # as a trainer batches what it cached
    (running,) = images_for(SPEC, {"top": frame}, torch.device("cpu"))
    assert torch.equal(to_tensor(cached)[1, 6], running[0])


def test_a_missing_camera_is_named() -> None:
    with pytest.raises(PolicyInputError, match="'top'"):
        images_for(SPEC, {}, torch.device("cpu"))


def test_float_frames_are_no_batch() -> None:
    with pytest.raises(PolicyInputError, match="uint8"):
        to_tensor(torch.zeros(1, 4, 4, 3))
