"""Which checkpoint is evaluated, and on which episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from btruntime.training.local import chosen_checkpoint
from btruntime.training.run_ids import check_run_id
from foundation.errors import BtruntimeError
from foundation.files import confined
from policies.manifest import MANIFEST_FILE, RunManifest, read_run
from skills.metadata import METADATA_NAME, LearnedExecution, load_metadata


class OpenLoopRefusedError(BtruntimeError):
    """The open-loop error cannot be measured as it was asked for."""


class OpenLoopStoppedError(BtruntimeError):
    """The measurement was asked to stop; nothing was written."""


class RunEpisodes(BaseModel):
    """What the hyperparameters in `run.json` say of the episodes; file names.

    Attributes:
        training_episodes: the policy learned from them.
        validation_episodes: they chose the checkpoint.
        held_out_episodes: nothing in the training saw them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    training_episodes: tuple[str, ...]
    validation_episodes: tuple[str, ...] = ()
    held_out_episodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Names of the episodes to predict and of those the yardsticks are made of; `notes` say what to keep in mind."""

    episodes: tuple[str, ...]
    training: tuple[str, ...]
    notes: tuple[str, ...]


def find_checkpoint(skill_dir: Path, run: str | None) -> Path:
    """The checkpoint that a run chose; without a run the one that the skill uses.

    Raises:
        OpenLoopRefusedError: the skill is not a learned one, or uses no checkpoint yet.
        RunError, ManifestError, MetadataError, PathEscapesError: the run or a file of the skill is broken.
    """
    if run is not None:
        directory = skill_dir / check_run_id(run)
        named = chosen_checkpoint(read_run(directory), run)
        return confined(directory, named, what=f"{directory / MANIFEST_FILE}: metrics.checkpoint")
    where = skill_dir / METADATA_NAME
    execution = load_metadata(where).execution
    if not isinstance(execution, LearnedExecution):
        raise OpenLoopRefusedError(f"{where}: the skill is not a learned one, so it predicts nothing to compare.")
    if execution.checkpoint is None:
        raise OpenLoopRefusedError(
            f"{where}: execution.checkpoint is empty, so there is no active checkpoint. Train the skill, activate a "
            f"run (btruntime train activate), or name one (--run)."
        )
    return confined(skill_dir, execution.checkpoint, what=f"{where}: execution.checkpoint")


def choose_episodes(manifest: RunManifest, asked: Sequence[str] | None, *, allow_training: bool, where: Path) -> Choice:
    """The episodes to measure on: those asked for, else the held-out ones, else those that chose the checkpoint.

    Args:
        manifest: of the run.
        asked: file names; None for those of the run.
        allow_training: take episodes that the policy was trained on, too.
        where: the `run.json`, for errors.

    Raises:
        OpenLoopRefusedError: there is none, the policy was trained on one, or the run does not say on which.
    """
    of_run = _episodes_of(manifest, where)
    chosen = (
        tuple(dict.fromkeys(asked)) if asked is not None else of_run.held_out_episodes or of_run.validation_episodes
    )
    if not chosen:
        raise OpenLoopRefusedError(
            f"{where}: the run held out no episode to measure on. Train one that does "
            f"(btruntime train run SKILL --set 'hold_out=[3, 7]'), record new ones and name them (--episodes), or "
            f"measure on what it was trained on (--episodes with --training-episodes)."
        )
    trained = [name for name in chosen if name in of_run.training_episodes]
    if trained and not allow_training:
        raise OpenLoopRefusedError(
            f"{where}: the run was trained on {', '.join(trained)}, so its error there says nothing about new data. "
            f"Choose others, or insist on it (--training-episodes)."
        )
    notes = []
    if trained:
        notes.append(f"the policy was trained on {', '.join(trained)}: the error on new data is larger")
    if selecting := [name for name in chosen if name in of_run.validation_episodes]:
        notes.append(f"{', '.join(selecting)} also chose the checkpoint: the error on new data may be larger")
    return Choice(chosen, of_run.training_episodes, tuple(notes))


def _episodes_of(manifest: RunManifest, where: Path) -> RunEpisodes:
    try:
        found = RunEpisodes.model_validate(manifest.hyperparameters)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise OpenLoopRefusedError(
            f"{where}: hyperparameters.{field}: {first['msg']}. The yardsticks need the episodes that the policy was "
            f"trained on, as btruntime's trainer writes them."
        ) from error
    if not found.training_episodes:
        raise OpenLoopRefusedError(
            f"{where}: hyperparameters.training_episodes is empty, so there is nothing to make the yardsticks of."
        )
    return found
