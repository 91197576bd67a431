"""The folded network compiled by OpenVINO, where that is installed (`pip install "btruntime[openvino]"`).

Tracing a full-size network takes about ten seconds, so that it is never tried unless it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from policies.checkpoint import Checkpoint
from policies.engines.base import Candidate, EngineError
from policies.engines.torch_cpu import example, folded, grouped
from policies.spec import Image


class OpenVinoEngine:
    """See `Engine`.

    Args:
        checkpoint: its network is not changed.
        name: see `Engine`.
        precision: "f32" or "bf16", of what OpenVINO computes.

    Raises:
        EngineError: OpenVINO is not installed.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, precision: str):
        if importlib.util.find_spec("openvino") is None:
            raise EngineError('openvino is not installed: pip install "btruntime[openvino]".')

        openvino: Any = importlib.import_module("openvino")
        network = folded(checkpoint, torch.float32)
        inputs = example(checkpoint.spec, network)
        with torch.no_grad():
            model = openvino.convert_model(network, example_input=inputs, input=[list(x.shape) for x in inputs])
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._request = compiled.create_infer_request()
        self._groups = network.groups
        self.name, self.description = name, f"OpenVINO {openvino.__version__.split('-')[0]} {precision}"

    def __call__(self, state: NDArray[np.float32], frames: Sequence[Image]) -> NDArray[np.float32]:
        """See `Engine`."""
        inputs = [np.asarray(state, np.float32), *(group.numpy() for group in grouped(frames, self._groups))]
        # A copy: the request's own memory is written again by the next pass.
        return np.array(self._request.infer(inputs, share_inputs=True)[0], np.float32)

    def close(self) -> None:
        """Nothing to release."""


def openvino_candidates() -> list[Candidate]:
    """Float32, and bfloat16 where the CPU has it."""
    return [
        Candidate("openvino-bf16", "half", partial(OpenVinoEngine, name="openvino-bf16", precision="bf16"), slow=True),
        Candidate("openvino-f32", "float32", partial(OpenVinoEngine, name="openvino-f32", precision="f32"), slow=True),
    ]
