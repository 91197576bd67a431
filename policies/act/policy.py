"""An ACT checkpoint as a policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policies.checkpoint import load
from policies.engines.base import Engine, EngineReport
from policies.engines.choose import choose_engine
from policies.engines.devices import DeviceError, choose_device
from policies.preprocess import resize
from policies.runner import checked_actions
from policies.spec import InputSpec, PolicyInput, check_input

__all__ = ["ACTPolicy", "DeviceError", "choose_device"]


class ACTPolicy:
    """See `policies.runner.Policy`. Holds an engine; has no memory between observations.

    Args:
        spec: what the engine sees.
        engine: computes the chunks.
        report: how the engine was chosen.
    """

    def __init__(self, spec: InputSpec, engine: Engine, report: EngineReport):
        self.spec = spec
        self.engine_report = report
        self._engine = engine

    @classmethod
    def load(cls, path: Path, device: str = "auto", engine: str = "auto") -> ACTPolicy:
        """Load a checkpoint file, and choose an engine that computes what its network computes.

        Args:
            path: see `policies.checkpoint.load`.
            device: "cpu", "cuda", or "auto": a GPU where there is one.
            engine: see `policies.engines.choose.choose_engine`.

        Raises:
            CheckpointError: see `policies.checkpoint.load`.
            ManifestError: see there.
            StatisticsError: see there.
            DeviceError: the device is unknown or not there.
            EngineError: the engine is unknown, or cannot run this policy here.
        """
        choose_device(device)  # a wrong word is told before seconds are spent on loading
        checkpoint = load(path)
        return cls(checkpoint.spec, *choose_engine(checkpoint, device, engine))

    @property
    def report(self) -> str:
        """What computes, how fast, and how exactly, in one line."""
        return str(self.engine_report)

    def predict(self, inputs: PolicyInput) -> NDArray[np.float32]:
        """(H, A) float32 actions in physical units.

        Raises:
            PolicyInputError: the observation is not what the spec describes.
            PolicyError: the network gave a number that is not finite.
        """
        check_input(self.spec, inputs)
        frames = [resize(inputs.images[camera.name], camera.height, camera.width) for camera in self.spec.cameras]
        return checked_actions(self._engine(np.asarray(inputs.state, dtype=np.float32), frames), self.spec)

    def reset(self) -> None:
        """Nothing to forget."""
