"""Engines of torch: the network as it is, and folded, in float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.act.model import ACTNetwork
from policies.checkpoint import Checkpoint
from policies.engines.base import Candidate, EngineError
from policies.engines.folded import FoldedACT
from policies.engines.packed import pack
from policies.preprocess import to_tensor
from policies.spec import Image, InputSpec

CpuPlan = tuple[str, torch.dtype, bool]


class EagerEngine:
    """The network itself in float32: the reference for all others, the same as in training.

    Args:
        network: in evaluation mode; moved to the device.
        spec: what it sees.
        device: where it runs.
    """

    name = "eager"

    def __init__(self, network: ACTNetwork, spec: InputSpec, device: torch.device):
        self.description = "eager float32" if device.type == "cpu" else f"eager float32 on {device.type}"
        self._network, self._colour, self._device = network.to(device).eval(), spec.colour, device

    def __call__(self, state: NDArray[np.float32], frames: Sequence[Image]) -> NDArray[np.float32]:
        """See `Engine`."""
        images = [to_tensor(as_tensor(frame)[None].to(self._device), colour=self._colour) for frame in frames]
        with torch.inference_mode():
            chunk = self._network.predict(as_tensor(state)[None].to(self._device), images)
        return chunk[0].float().cpu().numpy()

    def close(self) -> None:
        """Nothing to release."""


class FoldedEngine:
    """A folded network on the CPU.

    Args:
        checkpoint: its network is not changed.
        name: see `Engine`.
        dtype: of weights and activations.
        packed: with weights in oneDNN's layout.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, dtype: torch.dtype, *, packed: bool):
        self.name = name
        self.description = f"{'packed' if packed else 'folded'} {str(dtype).removeprefix('torch.')}"
        with torch.inference_mode():
            self._network = folded(checkpoint, dtype)
            if packed:
                pack(self._network, example(checkpoint.spec, self._network))

    def __call__(self, state: NDArray[np.float32], frames: Sequence[Image]) -> NDArray[np.float32]:
        """See `Engine`."""
        with torch.inference_mode():
            chunk: Tensor = self._network(as_tensor(state), *grouped(frames, self._network.groups))
        return chunk.numpy()

    def close(self) -> None:
        """Nothing to release."""


def cpu_candidates() -> list[Candidate]:
    """Engines that run on any CPU, the most promising first."""
    plans: list[CpuPlan] = [
        ("packed-bf16", torch.bfloat16, True),
        ("folded-bf16", torch.bfloat16, False),
        ("packed-f32", torch.float32, True),
        ("folded-f32", torch.float32, False),
    ]
    # Where the CPU has bfloat16, each was measured faster than all after it.
    names = [name for name, _, _ in plans]
    return [_candidate(*plan, instead_of=tuple(names[:index])) for index, plan in enumerate(plans)]


def folded(checkpoint: Checkpoint, dtype: torch.dtype) -> FoldedACT:
    """The folded network of a checkpoint."""
    spec = checkpoint.spec
    sizes = [(camera.height, camera.width) for camera in spec.cameras]
    return FoldedACT(checkpoint.network, sizes, colour=spec.colour, dtype=dtype).eval()


def example(spec: InputSpec, network: FoldedACT) -> tuple[Tensor, ...]:
    """Inputs of a folded network, of zeros."""
    frames = [np.zeros((camera.height, camera.width, 3), np.uint8) for camera in spec.cameras]
    return torch.zeros(spec.state_dim), *grouped(frames, network.groups)


def grouped(frames: Sequence[Image], groups: Sequence[Sequence[int]]) -> list[Tensor]:
    """Per group of cameras (B, H, W, 3) uint8."""
    return [torch.from_numpy(np.stack([frames[camera] for camera in cameras])) for cameras in groups]


def as_tensor(array: NDArray[np.float32] | Image) -> Tensor:
    """The tensor of an array; torch takes no read-only array without a warning."""
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def _candidate(name: str, dtype: torch.dtype, packed: bool, *, instead_of: tuple[str, ...]) -> Candidate:
    def build(checkpoint: Checkpoint) -> FoldedEngine:
        if dtype == torch.bfloat16 and not has_bfloat16():
            raise EngineError("this CPU has no bfloat16 instructions.")
        return FoldedEngine(checkpoint, name, dtype, packed=packed)

    return Candidate(name, "float32" if dtype == torch.float32 else "half", build, instead_of=instead_of)


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; where it only pretends to, float32 is faster."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
