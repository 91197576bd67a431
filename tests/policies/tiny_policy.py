"""Policies without a network, for tests; a policy process imports this module."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import BtruntimeError
from policies.spec import CameraInput, InputSpec, PolicyInput

SPEC = InputSpec(
    cameras=(CameraInput(name="top", height=4, width=6),),
    joint_names=("a", "b"),
    action=({"name": "a"}, {"name": "b"}, {"name": "red"}),
    data_frequency_hz=10.0,
    chunk_size=5,
    robot="tiny",
)


class TinyRefusalError(BtruntimeError):
    """What the tiny policy raises when the first joint is below -100."""


class TinyPolicy:
    """Repeats the state, and the mean of the red channel; the step number is added to the first value."""

    def __init__(self, gate: Path | None = None):
        self.spec = SPEC
        self.resets = 0
        self._gate = gate

    def predict(self, inputs: PolicyInput) -> NDArray[np.float32]:
        wish = float(inputs.state[0])
        if wish < -100:
            raise TinyRefusalError("The tiny policy does not go there.")
        if wish == 77:
            raise EOFError("a file of the policy ended early")
        if wish == 99:
            sys.stderr.write("the tiny policy gives up\n")
            sys.stderr.flush()
            os._exit(3)
        if wish == 55:
            return np.full((5, 3), np.nan, dtype=np.float32)
        if self._gate is not None:
            wait_for(self._gate)
        actions = np.empty((5, 3), dtype=np.float32)
        actions[:, 0] = wish + np.arange(5)
        actions[:, 1] = self.resets
        actions[:, 2] = inputs.images["top"][..., 0].mean()
        return actions

    def reset(self) -> None:
        self.resets += 1


def make(gate: Path | None = None) -> TinyPolicy:
    return TinyPolicy(gate)


def make_after(gate: Path) -> TinyPolicy:
    """As `make`, once the file `gate` exists: a policy that loads slowly."""
    wait_for(gate)
    return TinyPolicy()


def make_broken() -> TinyPolicy:
    raise TinyRefusalError("tiny.pth is damaged. Download it again.")


def make_other() -> TinyPolicy:
    policy = TinyPolicy()
    policy.spec = SPEC.model_copy(update={"joint_names": ("b", "a")})
    return policy


def wait_for(gate: Path) -> None:
    while not gate.exists():
        time.sleep(0.002)


def tiny_input(first: float = 1.0, *, red: int = 0, oldest_capture_s: float = 0.0, size: int = 4) -> PolicyInput:
    frame = np.zeros((size, size + 2, 3), dtype=np.uint8)
    frame[..., 0] = red
    return PolicyInput(np.array([first, 2.0], dtype=np.float32), {"top": frame}, oldest_capture_s)
