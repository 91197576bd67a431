"""Which episodes are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Split:
    """Names of the episodes, each in one of the two, both in the order of the data."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


def split_episodes(names: Sequence[str], *, share: float, seed: int) -> Split:
    """Hold out a share of the episodes, at least one where there are two or more, and never all.

    Whole episodes, because neighbouring frames of one are almost the same. The same names, share and seed give
    the same split.

    Args:
        names: without repetition, at least one.
        share: 0 (nothing is held out) to below 1.
        seed: of the draw.
    """
    held_out = min(max(round(len(names) * share), 1), len(names) - 1) if share > 0 else 0
    chosen = set(np.random.default_rng([seed, 1]).permutation(len(names))[:held_out].tolist())
    return Split(
        training=tuple(name for index, name in enumerate(names) if index not in chosen),
        validation=tuple(name for index, name in enumerate(names) if index in chosen),
    )
