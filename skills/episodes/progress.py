"""Progress and termination: the two action columns that are known only when an episode has ended."""

from __future__ import annotations

import numpy as np

from hal.types import ActionKind, ActionSpec, Array

TERMINATION_ROWS = 10


def fill_progress(action: Array, spec: ActionSpec) -> Array:
    """A copy of `action` with progress i/(T-1) and termination (1 on the last 10 rows) filled in.

    Args:
        action: (T, A), all rows of an episode.
        spec: says which columns are progress and termination; without any, nothing changes.

    Returns:
        (T, A). With one row, progress is 0; with fewer than 10, termination is 1 throughout.
    """
    filled, length = action.copy(), len(action)
    filled[:, spec.indices(ActionKind.PROGRESS)] = (np.arange(length) / max(length - 1, 1))[:, None]
    filled[:, spec.indices(ActionKind.TERMINATION)] = (np.arange(length) >= length - TERMINATION_ROWS)[:, None]
    return filled
