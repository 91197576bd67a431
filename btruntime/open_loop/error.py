"""The error of a policy and of the yardsticks on some episodes, and what the policy would have sent to the robot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from btruntime.open_loop.baselines import Chunks, Yardstick, yardsticks
from btruntime.open_loop.rows import rows_at
from btruntime.training.trainer.batches import Batch, Examples, Indices
from btruntime.training.trainer.cache import Cache, Rows
from btruntime.training.trainer.validation import OpenLoopError, Predict, Progress, measure, policy_chunks
from policies.checkpoint import Checkpoint

POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Trace:
    """One episode over time: what was demonstrated, and what the policy would have sent.

    Attributes:
        episode: its file name.
        demonstrated: (T, A), in physical units.
        sent: (T, A), by an executor that looks every n steps and goes through the chunk in between.
    """

    episode: str
    demonstrated: Rows
    sent: Rows


@dataclass(frozen=True, slots=True)
class Errors:
    """Of all who predicted the same chunks."""

    policy: OpenLoopError
    yardsticks: Mapping[Yardstick, OpenLoopError]
    traces: tuple[Trace, ...]


class Places:
    """Where the examples of some episodes lie, in the order of `Examples`.

    Attributes:
        names: of the episodes, in the order of the cache.
        episode: (N,) place of each example's episode in the cache.
        step: (N,) its step in the episode.
    """

    def __init__(self, cache: Cache, episodes: Sequence[str]):
        chosen = [index for index, name in enumerate(cache.names) if name in episodes]
        lengths = cache.lengths[chosen]
        self.names = tuple(cache.names[index] for index in chosen)
        self.episode: Indices = np.repeat(np.array(chosen, dtype=np.int64), lengths)
        self.step: Indices = np.concatenate([np.arange(length) for length in lengths])


def open_loop_errors(
    checkpoint: Checkpoint,
    cache: Cache,
    *,
    episodes: Sequence[str],
    training: Sequence[str],
    n_action_steps: int,
    device: torch.device,
    batch_size: int,
    progress: Progress = lambda done, total: None,
) -> Errors:
    """Let the policy and every yardstick predict the chunk of every step of some episodes.

    Errors are divided by the standard deviation in the statistics of the policy's own run.

    Args:
        checkpoint: its network is on `device`.
        cache: holds all the episodes at the policy's size; its chunk size is the horizon, at most the policy's.
        episodes: names of those to predict, at least one.
        training: names of those that the yardsticks are made of, at least one.
        n_action_steps: after how many steps the executor of the traces looks again, at most the policy's chunk.
        device: where to predict.
        batch_size: examples per forward pass.
        progress: told after each batch.
    """
    examples, places = Examples(cache, episodes), Places(cache, episodes)
    executor = _Executor(
        policy_chunks(checkpoint.network, colour=checkpoint.spec.colour), cache, places, every=n_action_steps
    )
    made = yardsticks(cache, training, cache.content.input_spec.chunk_size)
    predictors: dict[str, Predict] = {POLICY: executor}
    predictors |= {yardstick: _from_places(chunks, places) for yardstick, chunks in made.items()}
    found = measure(
        predictors,
        examples,
        np.arange(len(examples)),
        std=checkpoint.statistics.action.std,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    return Errors(
        policy=found[POLICY],
        yardsticks=MappingProxyType({yardstick: found[yardstick] for yardstick in made}),
        traces=executor.traces(),
    )


def _from_places(chunks: Chunks, places: Places) -> Predict:
    def predict(batch: Batch, numbers: Indices) -> Tensor:
        return torch.from_numpy(chunks(places.episode[numbers], places.step[numbers])).to(batch.actions.device)

    return predict


class _Executor:
    """Predicts like `policy`, and keeps what a robot would be sent of the chunks of every n-th step."""

    def __init__(self, policy: Predict, cache: Cache, places: Places, *, every: int):
        self._policy, self._cache, self._places, self._every = policy, cache, places, every
        self._sent: Rows = np.zeros((len(places.step), cache.action.shape[1]), dtype=np.float32)

    def __call__(self, batch: Batch, numbers: Indices) -> Tensor:
        predicted = self._policy(batch, numbers)
        looks = np.flatnonzero(self._places.step[numbers] % self._every == 0)
        for index, chunk in zip(looks, predicted[torch.from_numpy(looks)].float().cpu().numpy(), strict=True):
            self._send(numbers[index], chunk)
        return predicted

    def _send(self, number: np.int64, chunk: Rows) -> None:
        """The chunk begins at the capture of the frame, so what is sent at the step itself may be further in it."""
        episode, step = self._places.episode[number], self._places.step[number]
        steps = np.arange(step, min(step + self._every, self._cache.lengths[episode]))
        origin = self._cache.origin[self._cache.starts[episode] + step]
        self._sent[number : number + len(steps)] = rows_at(chunk, steps - np.float64(origin))

    def traces(self) -> tuple[Trace, ...]:
        """One per episode, when every example was predicted."""
        found = []
        for name in self._places.names:
            episode = self._cache.names.index(name)
            start, length = self._cache.starts[episode], self._cache.lengths[episode]
            demonstrated = self._cache.action[start : start + length]
            found.append(Trace(name, demonstrated, self._sent[self._places.episode == episode]))
        return tuple(found)
