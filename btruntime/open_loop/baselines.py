"""Yardsticks: what predicts actions without looking at pictures or joints. A policy has to beat them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from btruntime.open_loop.rows import rows_at
from btruntime.training.trainer.batches import Indices
from btruntime.training.trainer.cache import Cache, Rows

Chunks = Callable[[Indices, Indices], Rows]
"""From episodes (B,), by their place in the cache, and steps of them (B,) to chunks (B, H, A) in physical units."""


class Yardstick(StrEnum):
    """Which one."""

    MEAN = "mean"
    MEDIAN = "median"
    HOLD = "hold"
    MEDIAN_BY_FRAME = "median_by_frame"


def yardsticks(cache: Cache, training: Sequence[str], horizon: int) -> Mapping[Yardstick, Chunks]:
    """All of them, from the training episodes alone.

    Args:
        cache: holds the training episodes, and those to predict.
        training: names of the episodes that the policy was trained on, at least one.
        horizon: H, actions per chunk.
    """
    demonstrated = [_actions(cache, cache.names.index(name)) for name in training]
    together = np.concatenate(demonstrated).astype(np.float64)
    found: dict[Yardstick, Chunks] = {
        Yardstick.MEAN: constant(together.mean(axis=0), horizon),
        Yardstick.MEDIAN: constant(np.median(together, axis=0), horizon),
        Yardstick.HOLD: hold(cache, horizon),
        Yardstick.MEDIAN_BY_FRAME: by_frame(cache, medians_by_frame(demonstrated), horizon),
    }
    return MappingProxyType(found)


def constant(action: NDArray[np.float64], horizon: int) -> Chunks:
    """The same action (A,) always."""
    chunk = np.tile(action.astype(np.float32), (horizon, 1))  # (H, A)
    return lambda episode, step: np.repeat(chunk[None], len(step), axis=0)


def hold(cache: Cache, horizon: int) -> Chunks:
    """Goes on with the last action: the one before the step at hand, for the first step its own.

    The action of the step at hand is what is to be predicted, so nothing that runs could repeat it; in the first step
    there is no other.
    """

    def chunks(episode: Indices, step: Indices) -> Rows:
        last = cache.action[cache.starts[episode] + np.maximum(step - 1, 0)]  # (B, A)
        return np.repeat(last[:, None], horizon, axis=1)

    return chunks


def by_frame(cache: Cache, table: Rows, horizon: int) -> Chunks:
    """Plays `table` (L, A), one row per frame number of an episode; beyond its end the last row.

    A chunk begins where the one to predict does: when the oldest frame of its step was captured.
    """

    def chunks(episode: Indices, step: Indices) -> Rows:
        origin = cache.origin[cache.starts[episode] + step].astype(np.float64)
        return rows_at(table, origin[:, None] + np.arange(horizon))

    return chunks


def medians_by_frame(episodes: Sequence[Rows]) -> Rows:
    """(L, A): per frame number the median action of those episodes (T, A) that are so long; L is the longest."""
    longest = max(len(actions) for actions in episodes)
    medians = [
        np.median([actions[frame] for actions in episodes if frame < len(actions)], axis=0) for frame in range(longest)
    ]
    return np.array(medians, dtype=np.float32)


def _actions(cache: Cache, episode: int) -> Rows:
    start = cache.starts[episode]
    return cache.action[start : start + cache.lengths[episode]]
