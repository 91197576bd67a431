"""A learned skill on recordings that it was not trained on: its error, beside those of the yardsticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from btruntime.open_loop.baselines import Yardstick
from btruntime.open_loop.choice import Choice, OpenLoopRefusedError, choose_episodes, find_checkpoint
from btruntime.open_loop.error import Trace, open_loop_errors
from btruntime.training.trainer.cache import Cache, open_cache
from btruntime.training.trainer.events import Report, silent
from btruntime.training.trainer.validation import OpenLoopError, Progress
from policies.act.policy import choose_device
from policies.checkpoint import load
from policies.manifest import MANIFEST_FILE, RunManifest
from policies.spec import InputSpec
from skills.metadata import METADATA_NAME, LearnedExecution, load_metadata

_CHUNK_SHARE = 3


@dataclass(frozen=True, slots=True)
class ActionName:
    """An action dimension, for a person."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class OpenLoopReport:
    """How well a policy predicts recordings.

    Attributes:
        skill: name of its directory.
        run_id, checkpoint: which policy; the checkpoint is a file of the run.
        horizon: actions of each chunk that count.
        n_action_steps: after how many steps the executor of the traces looks again.
        rate_hz: steps per second of the recordings.
        episodes: file names of those that were predicted.
        training_episodes: file names of those that the yardsticks were made of.
        dims: the action dimensions, in the order of `by_dim` of the errors.
        policy, yardsticks: the errors, all on the same examples.
        traces: one per predicted episode.
        notes: what to keep in mind.
    """

    skill: str
    run_id: str
    checkpoint: str
    horizon: int
    n_action_steps: int
    rate_hz: float
    episodes: tuple[str, ...]
    training_episodes: tuple[str, ...]
    dims: tuple[ActionName, ...]
    policy: OpenLoopError
    yardsticks: Mapping[Yardstick, OpenLoopError]
    traces: tuple[Trace, ...]
    notes: tuple[str, ...] = ()


def open_loop(
    skill_dir: Path,
    *,
    run: str | None = None,
    episodes: Sequence[str] | None = None,
    allow_training: bool = False,
    horizon: int | None = None,
    n_action_steps: int | None = None,
    device: str = "auto",
    batch_size: int = 32,
    skip_broken: bool = False,
    report: Report = silent,
    progress: Progress = lambda done, total: None,
) -> OpenLoopReport:
    """Measure the error of a policy on recordings. Blocks until it is done; what a callback raises ends it.

    Args:
        skill_dir: has its episodes in `data/` and its runs beside it.
        run: its ID; None for that of the active checkpoint.
        episodes: file names; None for those that the run held out, else those that chose its checkpoint.
        allow_training: take episodes that the policy was trained on, too.
        horizon: actions of each chunk that count; None for the whole chunk.
        n_action_steps: of the traces; None for what the skill says, else a third of the chunk.
        device: "auto", "cpu" or "cuda".
        batch_size: examples per forward pass.
        skip_broken: leave out episodes that cannot be read.
        report: told while frames are prepared.
        progress: told the examples that are done, and how many there are.

    Raises:
        OpenLoopRefusedError: there is nothing to measure on, or episodes and policy do not fit each other.
        DataError, DiskSpaceError: see `open_cache`.
        BtruntimeError: the run, its checkpoint or the device cannot be used.
    """
    path = find_checkpoint(skill_dir, run)
    where = path.parent / MANIFEST_FILE
    target = choose_device(device)
    checkpoint = load(path, device=target)
    spec = checkpoint.spec
    choice = choose_episodes(checkpoint.manifest, episodes, allow_training=allow_training, where=where)
    counted = spec.chunk_size if horizon is None else horizon
    if not 1 <= counted <= spec.chunk_size:
        raise OpenLoopRefusedError(f"horizon is {counted}, expected 1 to {spec.chunk_size}, the run's chunk size.")
    cache = _cache(skill_dir, checkpoint.manifest, counted, skip_broken=skip_broken, report=report, where=where)
    _refuse_missing(choice, cache, skill_dir / "data")
    every = min(n_action_steps or _steps_between_looks(skill_dir, spec), spec.chunk_size)
    errors = open_loop_errors(
        checkpoint,
        cache,
        episodes=choice.episodes,
        training=choice.training,
        n_action_steps=every,
        device=target,
        batch_size=batch_size,
        progress=progress,
    )
    return OpenLoopReport(
        skill=skill_dir.resolve().name,
        run_id=path.parent.name,
        checkpoint=path.name,
        horizon=counted,
        n_action_steps=every,
        rate_hz=spec.data_frequency_hz,
        episodes=tuple(trace.episode for trace in errors.traces),
        training_episodes=choice.training,
        dims=_dims(spec),
        policy=errors.policy,
        yardsticks=errors.yardsticks,
        traces=errors.traces,
        notes=choice.notes,
    )


def _cache(
    skill_dir: Path, manifest: RunManifest, horizon: int, *, skip_broken: bool, report: Report, where: Path
) -> Cache:
    """The frames at the size that the policy sees; the run's own cache where that is still there."""
    spec = manifest.input_spec
    sizes = {(camera.height, camera.width) for camera in spec.cameras} or {(1, 1)}
    if len(sizes) > 1:
        raise OpenLoopRefusedError(
            f"{where}: the cameras have different sizes, {sorted(sizes)}; frames are prepared at one size for all. "
            f"Evaluate a run of btruntime's trainer."
        )
    ((height, width),) = sizes
    cache = open_cache(
        skill_dir,
        report,
        chunk_size=horizon,
        height=height,
        width=width,
        successes_only=manifest.hyperparameters.get("successes_only") is True,
        skip_broken=skip_broken,
    )
    expected, found = _compared(spec), _compared(cache.content.input_spec)
    for what, value in expected.items():
        if found[what] != value:
            raise OpenLoopRefusedError(
                f"{skill_dir / 'data'}: the episodes have {what} {found[what]}, the run was trained with {value} "
                f"({where}). Choose a run that was trained on such episodes."
            )
    return cache


def _compared(spec: InputSpec) -> dict[str, object]:
    """What episodes and policy must agree in; cameras in order, since that is how the network gets them."""
    return {
        "cameras": spec.camera_names,
        "joints": spec.joint_names,
        "actions": tuple(f"{dim.name} ({dim.unit})" for dim in _dims(spec)),
        "data_frequency": spec.data_frequency_hz,
    }


def _dims(spec: InputSpec) -> tuple[ActionName, ...]:
    return tuple(
        ActionName(str(dim.get("name", index)), str(dim.get("unit", "?"))) for index, dim in enumerate(spec.action)
    )


def _refuse_missing(choice: Choice, cache: Cache, data_dir: Path) -> None:
    if missing := [name for name in choice.episodes if name not in cache.names]:
        raise OpenLoopRefusedError(
            f"{data_dir} has no usable {', '.join(missing)}; it has {', '.join(cache.names)}. Choose among those."
        )
    if missing := [name for name in choice.training if name not in cache.names]:
        raise OpenLoopRefusedError(
            f"{data_dir} has no usable {', '.join(missing)} any more, which the run was trained on and the yardsticks "
            f"are made of. Bring the files back, or train a new run."
        )


def _steps_between_looks(skill_dir: Path, spec: InputSpec) -> int:
    """What the skill says, for the picture to show what the robot would do."""
    execution = load_metadata(skill_dir / METADATA_NAME).execution
    said = execution.n_action_steps if isinstance(execution, LearnedExecution) else None
    return said or max(1, spec.chunk_size // _CHUNK_SHARE)
