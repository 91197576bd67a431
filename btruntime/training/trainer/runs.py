"""Run directories of a skill: their names, and the state that an interrupted run continues from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from btruntime.training.run_ids import RunError
from btruntime.training.trainer.config import RESUMABLE_CHANGES, TrainerConfig
from foundation.files import replacing
from policies.normalize import error_line

STATE_FILE = "resume.pt"


def not_written(path: Path, reason: str) -> str:
    """What is said of a file of a run that the disk refuses."""
    return f"{path} cannot be written ({reason}). Is the disk full? Free some space, and resume the run."


class ResumeError(RunError):
    """The state of a run cannot be saved, or not be used to continue it."""


class Measured(BaseModel):
    """One validation of a run: error in normalised units, and per action dimension in its unit."""

    model_config = ConfigDict(frozen=True)

    step: int
    l1: float
    l1_by_dim: dict[str, float]


class RunRecord(BaseModel):
    """The part of a run's state that a person can read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainerConfig
    cache_key: str
    training: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    step: int = 0
    trained_s: float = 0.0
    measured: tuple[Measured, ...] = ()

    @property
    def best(self) -> Measured | None:
        """The validation with the smallest error."""
        return min(self.measured, key=lambda measured: measured.l1, default=None)

    def check_continues(self, config: TrainerConfig, cache_key: str, *, where: Path) -> None:
        """Refuse to go on with other data or other hyperparameters.

        Raises:
            ResumeError: names what differs.
        """
        mine, theirs = config.model_dump(), self.config.model_dump()
        other = [name for name in mine if mine[name] != theirs[name] and name not in RESUMABLE_CHANGES]
        if other:
            found = ", ".join(f"{name} {theirs[name]} (now {mine[name]})" for name in other)
            raise ResumeError(
                f"{where}: the run was started with {found}. Resume it with the same, or start a new run."
            )
        if cache_key != self.cache_key:
            raise ResumeError(f"{where}: the episodes changed since the run was started. Start a new run.")


@dataclass(frozen=True, slots=True)
class RunState:
    """A run between two steps: the record, and the learner's tensors."""

    record: RunRecord
    learner: dict[str, Any] = field(repr=False)


def save_state(directory: Path, state: RunState) -> None:
    """Replace the state as a whole.

    Raises:
        ResumeError: the disk refuses it; the state of before is still there.
    """
    path = directory / STATE_FILE
    try:
        with replacing(path) as temporary:
            torch.save({"record": state.record.model_dump_json(), "learner": state.learner}, temporary)
    except (OSError, RuntimeError) as error:  # torch turns most failures of the disk into the second
        raise ResumeError(not_written(path, error_line(error))) from error


def saved_config(directory: Path) -> TrainerConfig | None:
    """The hyperparameters that a run was started with; None where it has no state to resume from.

    Raises:
        ResumeError: the state is damaged.
    """
    return load_state(directory).record.config if (directory / STATE_FILE).exists() else None


def load_state(directory: Path) -> RunState:
    """The state that a run was left in, on the CPU.

    Raises:
        ResumeError: there is none, or it is damaged.
    """
    path = directory / STATE_FILE
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return RunState(RunRecord.model_validate_json(content["record"]), content["learner"])
    except FileNotFoundError as error:
        raise ResumeError(f"{path} does not exist: there is nothing to resume. Start a new run.") from error
    except (ValidationError, KeyError, TypeError) as error:
        raise ResumeError(f"{path} is of another version of the trainer. Start a new run.") from error
    except Exception as error:  # torch names no set of errors for a file that is not its own
        raise ResumeError(f"{path} is damaged ({error_line(error)}). Start a new run.") from error
