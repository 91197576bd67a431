"""The folded network on a GPU as one CUDA graph.

Never measured: it was written on a machine without a GPU. Like every engine it has to prove itself when it is loaded,
and the network itself runs where it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from policies.checkpoint import Checkpoint
from policies.engines.base import Candidate, EngineError
from policies.engines.torch_cpu import as_tensor, example, folded, grouped
from policies.spec import Image

_WARM_UPS = 3


class CudaGraphEngine:
    """See `Engine`.

    Args:
        checkpoint: its network is not changed.
        name: see `Engine`.
        dtype: of weights and activations.

    Raises:
        EngineError: torch finds no usable GPU.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, dtype: torch.dtype):
        if not torch.cuda.is_available():
            raise EngineError("torch finds no usable GPU.")
        device = torch.device("cuda")
        self.name, self.description = name, f"CUDA graph {str(dtype).removeprefix('torch.')}, never measured"
        with torch.inference_mode():
            network = folded(checkpoint, dtype).to(device)
            self._groups = network.groups
            self._inputs = [tensor.to(device) for tensor in example(checkpoint.spec, network)]
            # Capturing wants everything that is made at the first call to be there already, and on another stream.
            beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(_WARM_UPS):
                    network(*self._inputs)
            torch.cuda.current_stream().wait_stream(beside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._chunk = network(*self._inputs)
        self._network = network  # the graph reads its weights

    def __call__(self, state: NDArray[np.float32], frames: Sequence[Image]) -> NDArray[np.float32]:
        """See `Engine`."""
        with torch.inference_mode():
            given = (as_tensor(state), *grouped(frames, self._groups))
            for there, here in zip(self._inputs, given, strict=True):
                there.copy_(here)
            self._graph.replay()
            chunk: NDArray[np.float32] = self._chunk.cpu().numpy()
        return chunk

    def close(self) -> None:
        """Nothing to release."""


def cuda_candidates() -> list[Candidate]:
    """Half precisions first."""
    dtypes = {"cuda-f16": torch.float16, "cuda-bf16": torch.bfloat16, "cuda-f32": torch.float32}
    return [
        Candidate(
            name, "float32" if dtype == torch.float32 else "half", partial(CudaGraphEngine, name=name, dtype=dtype)
        )
        for name, dtype in dtypes.items()
    ]
