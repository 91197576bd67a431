"""Where a policy runs."""

from __future__ import annotations

import torch

from foundation.errors import BtruntimeError

_DEVICES = ("auto", "cpu", "cuda")


class DeviceError(BtruntimeError):
    """The device that was asked for is not there."""


def choose_device(device: str) -> torch.device:
    """The device by name; "auto" takes a GPU where there is one.

    Raises:
        DeviceError: "cuda" without a GPU that torch can use, or another word.
    """
    if device not in _DEVICES:
        raise DeviceError(f"device is {device!r}, expected one of {', '.join(_DEVICES)}.")
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise DeviceError('device is "cuda", but torch finds no usable GPU. Use "cpu", or install the driver.')
    return torch.device("cuda" if device != "cpu" and found else "cpu")
