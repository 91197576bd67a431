"""The open-loop error on held-out episodes, as the running policy would make it: evaluation mode, latent 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from btruntime.training.trainer.batches import Examples
from policies.act.model import ACTNetwork
from policies.preprocess import to_tensor

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class OpenLoopError:
    """Mean absolute error over all valid steps of all chunks.

    Attributes:
        l1: normalised, mean over the action dimensions.
        by_dim: per action dimension, in its unit.
    """

    l1: float
    by_dim: tuple[float, ...]


@torch.inference_mode()
def open_loop_error(network: ACTNetwork, examples: Examples, *, batch_size: int) -> OpenLoopError:
    """Predict the chunk of every held-out step, of every n-th where there are more than 10,000.

    Args:
        network: in evaluation mode, on the device to use.
        examples: at least one.
        batch_size: examples per forward pass.
    """
    device = next(network.parameters()).device
    chosen = np.arange(0, len(examples), -(-len(examples) // _MOST))
    dims = network.config.action_dim
    normal, physical = torch.zeros(dims, dtype=torch.float64), torch.zeros(dims, dtype=torch.float64)
    count = 0
    for start in range(0, len(chosen), batch_size):
        batch = examples.gather(chosen[start : start + batch_size]).to(device)
        predicted, _ = network(batch.state, [to_tensor(frames) for frames in batch.frames])
        valid = ~batch.is_pad[..., None]
        normal += ((predicted - network.normalised_actions(batch.actions)).abs() * valid).sum((0, 1)).double().cpu()
        physical += ((network.physical_actions(predicted) - batch.actions).abs() * valid).sum((0, 1)).double().cpu()
        count += int(valid.sum())
    return OpenLoopError(float(normal.mean()) / count, tuple((physical / count).tolist()))
