"""Batches: random access over the frames of many episodes, in an order that only seed and step decide.

Because batch k is a function of seed and k, a resumed run sees what an uninterrupted one would have, and threads
can put batches together ahead of time without any shared state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from btruntime.training.trainer.cache import Cache

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples as they lie in the cache, in physical units.

    Attributes:
        state: (B, S) float32.
        frames: per camera (B, H, W, 3) uint8 RGB.
        actions: (B, C, A) float32, from the capture of the oldest frame on; the last row repeats past the end.
        is_pad: (B, C) true past the end of the episode.
    """

    state: Tensor
    frames: tuple[Tensor, ...]
    actions: Tensor
    is_pad: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device, copied without waiting where that is possible."""
        if device.type == "cpu":
            return self
        return Batch(
            self.state.to(device, non_blocking=True),
            tuple(frames.to(device, non_blocking=True) for frames in self.frames),
            self.actions.to(device, non_blocking=True),
            self.is_pad.to(device, non_blocking=True),
        )

    def pinned(self) -> Batch:
        """The same in memory that a GPU copies from by itself."""
        return Batch(
            self.state.pin_memory(),
            tuple(frames.pin_memory() for frames in self.frames),
            self.actions.pin_memory(),
            self.is_pad.pin_memory(),
        )


class Examples:
    """The steps of some episodes of a cache, each with the chunk of actions that follows it. Thread-safe.

    Args:
        cache: of all episodes.
        episodes: names of those to use.
    """

    def __init__(self, cache: Cache, episodes: Sequence[str]):
        chosen = set(episodes)
        picked = [index for index, name in enumerate(cache.names) if name in chosen]
        spans = [np.arange(cache.starts[i], cache.starts[i] + cache.lengths[i]) for i in picked]
        self._cache = cache
        self._steps: Indices = np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)
        self.lengths: Indices = cache.lengths[picked]
        self._first = np.repeat(cache.starts[picked], self.lengths)
        self._last = self._first + np.repeat(self.lengths, self.lengths) - 1
        self._chunk = np.arange(cache.content.input_spec.chunk_size)

    def __len__(self) -> int:
        return len(self._steps)

    def gather(self, which: Indices) -> Batch:
        """Examples by their number, 0 to `len(self)` - 1, (B,); a number may occur twice."""
        steps, spec = self._steps[which], self._cache.content.input_spec
        actions, is_pad = self._chunks(which)
        return Batch(
            torch.from_numpy(self._cache.state[steps]),
            tuple(torch.from_numpy(self._cache.frames[name].take(steps, axis=0)) for name in spec.camera_names),
            torch.from_numpy(actions),
            torch.from_numpy(is_pad),
        )

    def _chunks(self, which: Indices) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Actions (B, C, A), interpolated at the capture of the oldest frame and one step apart, and (B, C) padding."""
        first, last = self._first[which][:, None], self._last[which][:, None]
        rows = first + self._cache.origin[self._steps[which]][:, None].astype(np.float64) + self._chunk  # (B, C)
        inside = np.clip(rows, first, last)
        before = inside.astype(np.int64)
        share = (inside - before).astype(np.float32)[..., None]
        action = self._cache.action
        chunk = action[before] * (1 - share) + action[np.minimum(before + 1, last)] * share
        return chunk, rows > last


class Order:
    """Which examples step k takes: each once per pass, every batch spread over as many episodes as it can hold.

    A pass is dealt like cards: an episode's steps, shuffled, take places at even distances over the whole pass. The
    passes follow one another without a gap, so a set smaller than a batch fills it several times.

    Args:
        lengths: (E,) steps of each episode.
        batch_size: of all processes together.
        seed: another seed, another order.
    """

    def __init__(self, lengths: Indices, *, batch_size: int, seed: int):
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._total = int(lengths.sum())
        self._of_pass = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int) -> Indices:
        """(B,) numbers of the examples of step 0, 1, ..."""
        places = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        passes = places // self._total
        parts = [self._of_pass(int(p))[places[passes == p] % self._total] for p in np.unique(passes)]
        return np.concatenate(parts)

    def _shuffled(self, number: int) -> Indices:
        rng = np.random.default_rng([self._seed, 2, number])
        places = [(rng.permutation(length) + rng.uniform(size=length)) / length for length in self._lengths]
        return np.argsort(np.concatenate(places), kind="stable")


def batches(
    examples: Examples, order: Order, *, first: int, stop: int, share: slice = slice(None), ahead: int = 0, pin: bool
) -> Iterator[Batch]:
    """The batches of steps `first` to `stop` - 1, in order.

    Args:
        examples: what to gather from.
        order: which examples a step takes.
        first: the first step.
        stop: the step after the last.
        share: this process's part of each batch.
        ahead: threads that gather ahead, one batch each; 0 gathers in the caller's.
        pin: put batches into pinned memory, for a GPU.
    """

    def make(step: int) -> Batch:
        batch = examples.gather(order.batch(step)[share])
        return batch.pinned() if pin else batch

    if ahead == 0:
        yield from map(make, range(first, stop))
        return
    with ThreadPoolExecutor(ahead, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in range(first, stop):
                waiting.append(pool.submit(make, step))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
