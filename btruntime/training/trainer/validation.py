"""The open-loop error of predicted chunks, on the same examples for everyone who predicts.

A policy predicts as it does when it runs: evaluation mode, latent 0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from btruntime.training.trainer.batches import Batch, Examples, Indices
from policies.act.model import ACTNetwork
from policies.preprocess import to_tensor

_MOST = 10_000

Predict = Callable[[Batch, Indices], Tensor]
"""From some examples and their numbers (B,) to chunks (B, C or more, A) in physical units, where the batch is."""

Progress = Callable[[int, int], None]
"""Told how many examples are done, and how many there are; what it raises ends the measurement."""

Who = TypeVar("Who", bound=Hashable)


@dataclass(frozen=True, slots=True)
class OpenLoopError:
    """Mean absolute error over all valid steps of all chunks; what lies past the end of an episode does not count.

    Attributes:
        l1: in standard deviations of the training actions, mean over the action dimensions.
        by_dim: per action dimension, in its unit.
        by_step: like `l1`, per step of the chunk; ends with the last step that any episode was long enough for.
    """

    l1: float
    by_dim: tuple[float, ...]
    by_step: tuple[float, ...]


def open_loop_error(network: ACTNetwork, examples: Examples, *, batch_size: int) -> OpenLoopError:
    """Predict the chunk of every held-out step, of every n-th where there are more than 10,000.

    Args:
        network: in evaluation mode, on the device to use.
        examples: at least one.
        batch_size: examples per forward pass.
    """
    std = network.get_buffer("normalize_targets.buffer_action.std").cpu().numpy()
    which = np.arange(0, len(examples), -(-len(examples) // _MOST))
    device = next(network.parameters()).device
    found = measure({"": policy_chunks(network)}, examples, which, std=std, batch_size=batch_size, device=device)
    return found[""]


def policy_chunks(network: ACTNetwork, *, colour: Literal["rgb", "bgr"] = "rgb") -> Predict:
    """What a network in evaluation mode predicts; `colour` is the channel order that it was trained with."""

    def predict(batch: Batch, _: Indices) -> Tensor:
        return network.predict(batch.state, [to_tensor(frames, colour=colour) for frames in batch.frames])

    return predict


@torch.inference_mode()
def measure(
    predictors: Mapping[Who, Predict],
    examples: Examples,
    which: Indices,
    *,
    std: NDArray[np.float32],
    batch_size: int,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> dict[Who, OpenLoopError]:
    """The error of each predictor. All get the same batches, and their predictions are compared in one place.

    Args:
        predictors: by whatever tells them apart.
        examples: with the chunks that are right; their length C is the horizon.
        which: (N,) numbers of the examples to predict, at least one.
        std: (A,) standard deviation of the training actions.
        batch_size: examples per call of a predictor.
        device: where the batches are moved to.
        progress: told after each batch.
    """
    sums: dict[Who, Tensor] = {}
    count: Tensor = torch.zeros((), dtype=torch.int64)
    for start in range(0, len(which), batch_size):
        numbers = which[start : start + batch_size]
        batch = examples.gather(numbers).to(device)
        valid = ~batch.is_pad  # (B, C)
        count = count + valid.sum(0).cpu()
        for who, predict in predictors.items():
            predicted = predict(batch, numbers)[:, : valid.shape[1]]
            error = (predicted - batch.actions).abs() * valid[..., None]  # (B, C, A)
            sums[who] = sums.get(who, 0) + error.sum(0).double().cpu()
        progress(min(start + batch_size, len(which)), len(which))
    return {who: _error(total.numpy(), count.numpy(), std) for who, total in sums.items()}


def _error(total: NDArray[np.float64], count: NDArray[np.int64], std: NDArray[np.float32]) -> OpenLoopError:
    """From sums (C, A) of absolute errors over (C,) steps that count."""
    by_dim = total.sum(0) / count.sum()
    occurs = count > 0
    by_step = (total[occurs] / count[occurs, None] / std).mean(1)
    return OpenLoopError(float((by_dim / std).mean()), tuple(by_dim.tolist()), tuple(by_step.tolist()))
