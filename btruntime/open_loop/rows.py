"""Rows of actions at fractions of a row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from btruntime.training.trainer.cache import Rows


def rows_at(rows: Rows, at: NDArray[np.float64]) -> Rows:
    """Linearly interpolated rows; before the first and after the last it is that one.

    Args:
        rows: (N, A), at least one.
        at: (...) row numbers, of any shape.

    Returns:
        (..., A).
    """
    inside = np.clip(at, 0, len(rows) - 1)
    before = inside.astype(np.int64)
    share = (inside - before).astype(np.float32)[..., None]
    return rows[before] * (1 - share) + rows[np.minimum(before + 1, len(rows) - 1)] * share
