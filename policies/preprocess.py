"""The one way from a decoded frame to what a network sees, in training and in running.

Frames are (H, W, 3) uint8 RGB. They are resized as bytes, then scaled to 0..1; normalising with statistics is the
network's (`policies.normalize`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from policies.spec import Image, InputSpec, PolicyInputError, check_frame


def resize(rgb: Image, height: int, width: int) -> Image:
    """The frame at another size, aspect not kept; the same array when the size is right already.

    Args:
        rgb: (H, W, 3) uint8.
        height: rows of the result.
        width: columns of the result.

    Raises:
        PolicyInputError: the frame is not (H, W, 3) uint8.
    """
    check_frame(rgb, what="a frame to resize")
    if rgb.shape[:2] == (height, width):
        return rgb
    # By keyword: the fourth positional argument of cv2.resize is not the filter.
    return np.asarray(cv2.resize(rgb, dsize=(width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def to_tensor(frames: Tensor, *, colour: Literal["rgb", "bgr"] = "rgb") -> Tensor:
    """RGB frames (..., H, W, 3) uint8 to (..., 3, H, W) float32 in 0..1, in the channel order `colour`.

    Runs where `frames` is, so that a trainer copies bytes to its GPU, not floats.

    Raises:
        PolicyInputError: the tensor is not uint8 (..., H, W, 3).
    """
    if frames.dtype != torch.uint8 or frames.dim() < 3 or frames.shape[-1] != 3:
        raise PolicyInputError(f"frames are {frames.dtype} {tuple(frames.shape)}, expected uint8 (..., H, W, 3).")
    ordered = frames.flip(-1) if colour == "bgr" else frames
    return ordered.movedim(-1, -3).to(torch.float32) / 255.0


def images_for(spec: InputSpec, images: Mapping[str, Image], device: torch.device) -> list[Tensor]:
    """The frames of one observation as the network wants them: per camera of the spec (1, 3, H, W) in 0..1.

    Raises:
        PolicyInputError: a camera is missing, or a frame is not (H, W, 3) uint8.
    """
    tensors = []
    for camera in spec.cameras:
        if camera.name not in images:
            raise PolicyInputError(f"the policy needs camera {camera.name!r}, given: {', '.join(images) or 'none'}.")
        frame = np.ascontiguousarray(resize(images[camera.name], camera.height, camera.width))
        if not frame.flags.writeable:
            frame = frame.copy()  # torch takes no read-only array without a warning
        tensors.append(to_tensor(torch.from_numpy(frame)[None].to(device), colour=spec.colour))
    return tensors
