"""An ACT checkpoint as a policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.errors import BtruntimeError
from policies.checkpoint import Checkpoint, load
from policies.preprocess import images_for
from policies.runner import checked_actions
from policies.spec import InputSpec, PolicyInput, check_input

_DEVICES = ("auto", "cpu", "cuda")


class DeviceError(BtruntimeError):
    """The device that was asked for is not there."""


class ACTPolicy:
    """See `policies.runner.Policy`. Holds the network on its device; has no memory between observations.

    Raises:
        DeviceError: "cuda" without a GPU that torch can use, or another word.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "auto"):
        self.spec: InputSpec = checkpoint.spec
        self._device = choose_device(device)
        self._network = checkpoint.network.to(self._device).eval()

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> ACTPolicy:
        """Load a checkpoint file and warm the network up.

        Raises:
            CheckpointError: see `policies.checkpoint.load`.
            ManifestError: see there.
            StatisticsError: see there.
            DeviceError: see the class.
        """
        policy = cls(load(path), device=device)
        policy.warm_up()
        return policy

    def warm_up(self) -> None:
        """One pass on zeros through the network alone, so that nothing of it can reach a robot."""
        state = torch.zeros(1, self.spec.state_dim, device=self._device)
        images = [torch.zeros(1, 3, camera.height, camera.width, device=self._device) for camera in self.spec.cameras]
        with torch.inference_mode():
            self._network.predict(state, images)

    def predict(self, inputs: PolicyInput) -> NDArray[np.float32]:
        """(H, A) float32 actions in physical units.

        Raises:
            PolicyInputError: the observation is not what the spec describes.
            PolicyError: the network gave a number that is not finite.
        """
        check_input(self.spec, inputs)
        state = torch.from_numpy(np.array(inputs.state, dtype=np.float32))[None].to(self._device)
        with torch.inference_mode():
            chunk = self._network.predict(state, images_for(self.spec, inputs.images, self._device))
        return checked_actions(chunk[0].float().cpu().numpy(), self.spec)

    def reset(self) -> None:
        """Nothing to forget."""


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
