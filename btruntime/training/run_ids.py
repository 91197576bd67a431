"""Names of training runs; each is a directory of its skill."""

from __future__ import annotations

import re
from pathlib import Path

from foundation.errors import BtruntimeError

_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")
_RESERVED = frozenset({"data", "raw_data"})


class RunError(BtruntimeError):
    """A run cannot be started or continued under that name."""


def check_run_id(run_id: str) -> str:
    """The name, if it can be a run's directory.

    Raises:
        RunError: it cannot.
    """
    if not _RUN_ID.fullmatch(run_id) or run_id in _RESERVED:
        raise RunError(
            f"{run_id!r} cannot name a run: use letters, digits, '-', '_' and '.', and not {sorted(_RESERVED)}."
        )
    return run_id


def free_run_id(skill_dir: Path) -> str:
    """The smallest number, from 1 on, that nothing in the skill's directory is called."""
    number = 1
    while (skill_dir / str(number)).exists():
        number += 1
    return str(number)
