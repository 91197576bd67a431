"""Random changes of the pictures of a batch, on the device that trains.

Each camera of an example varies on its own: mounts shift, and exposure and white balance drift, camera by camera.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shift(frames: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shift every picture at random; the border repeats.

    Args:
        frames: (B, H, W, 3), any type.
        share: largest shift as a share of height and width.
        generator: of the CPU, wherever the frames are.

    Returns:
        A tensor of the same shape.
    """
    count, height, width = frames.shape[:3]
    rows = _shifted(count, height, share, generator).to(frames.device)
    columns = _shifted(count, width, share, generator).to(frames.device)
    which = torch.arange(count, device=frames.device)[:, None, None]
    return frames[which, rows[:, :, None], columns[:, None, :]]


def vary_colour(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Vary brightness, contrast and colour balance of every picture at random.

    Args:
        images: (B, 3, H, W) in 0..1; changed in place.
        strength: contrast and brightness vary by up to this share, the colour channels by half of it.
        generator: of the CPU, wherever the images are.

    Returns:
        The images, in 0..1.
    """
    contrast = 1 + strength * _signed((len(images), 1, 1, 1), generator)
    balance = 1 + strength / 2 * _signed((len(images), 3, 1, 1), generator)
    brightness = strength / 2 * _signed((len(images), 1, 1, 1), generator)
    gain, offset = contrast * balance, (1 - contrast) / 2 + brightness
    return images.mul_(gain.to(images.device)).add_(offset.to(images.device)).clamp_(0.0, 1.0)


def _shifted(count: int, size: int, share: float, generator: torch.Generator) -> Tensor:
    """(B, size) where each row or column is taken from."""
    limit = round(size * share)
    offsets = torch.randint(-limit, limit + 1, (count, 1), generator=generator)
    return (torch.arange(size) + offsets).clamp_(0, size - 1)


def _signed(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=generator) - 1
