"""What a run leaves on disk: checkpoints with their description, and the state to resume from."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from btruntime.training.trainer.batches import Examples
from btruntime.training.trainer.config import TrainerConfig
from btruntime.training.trainer.events import Finished, Report, Saved, Validated
from btruntime.training.trainer.learner import Learner
from btruntime.training.trainer.processes import Processes
from btruntime.training.trainer.runs import STATE_FILE, Measured, RunRecord, RunState, save_state
from btruntime.training.trainer.validation import open_loop_error
from policies import checkpoint
from policies.manifest import MANIFEST_FILE, STATISTICS_FILE, checkpoint_name, read_run, write_run
from policies.normalize import Statistics
from policies.spec import InputSpec

_PATIENCE = 2.0
_SHORTEST_S = 5


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What a finished run left behind.

    Attributes:
        checkpoint: the best on held-out episodes, or the last where none were held out.
        metrics: as in `run.json`.
        start_pose: (J,) median first joint positions of the training episodes.
    """

    run_id: str
    directory: Path
    checkpoint: Path
    statistics: Path
    metrics: dict[str, Any]
    start_pose: tuple[float, ...]
    action_dim: int


@dataclass(slots=True)
class Run:
    """A run on its way: what is fixed, and the record that grows.

    Attributes:
        start_pose: (J,) where a run of the policy should start, rad.
        longest_s: duration of the longest demonstration.
    """

    directory: Path
    config: TrainerConfig
    spec: InputSpec
    statistics: Statistics
    start_pose: tuple[float, ...]
    longest_s: float
    record: RunRecord
    report: Report
    processes: Processes
    saved_at_s: float = field(default_factory=time.monotonic)


def validate_and_save(run: Run, learner: Learner, validation: Examples) -> None:
    """Measure the averaged weights on held-out episodes and keep them, and the state to resume from."""
    if not run.processes.first:
        return
    step = run.record.step
    if len(validation):
        error = open_loop_error(learner.average, validation, batch_size=run.config.batch_size)
        names = [str(dim.get("name", index)) for index, dim in enumerate(run.spec.action)]
        measured = Measured(step=step, l1=error.l1, l1_by_dim=dict(zip(names, error.by_dim, strict=True)))
        run.record = run.record.model_copy(update={"measured": (*run.record.measured, measured)})
        best = run.record.best is measured
        run.report(Validated(step, measured.l1, measured.l1_by_dim, best))
    path = checkpoint.save(
        run.directory,
        step,
        learner.average.state_dict(),
        run.statistics,
        run.spec,
        learner.network.config,
        checkpoint.RunNotes(_hyperparameters(run), _metrics(run, finished=False), f"btruntime {version('btruntime')}"),
    )
    _remove_superseded(run)
    save_state(run.directory, RunState(run.record, learner.state_dict()))
    run.saved_at_s = time.monotonic()
    run.report(Saved(step, f"{run.directory.name}/{path.name}"))


def _remove_superseded(run: Run) -> None:
    """Keep the best and the last checkpoint, unless all are to be kept."""
    if run.config.keep_all_checkpoints:
        return
    keep = {checkpoint_name(run.record.step), _chosen(run.record)}
    manifest = read_run(run.directory)
    superseded = [name for name in manifest.checkpoints().values() if name not in keep]
    kept = {name: entry for name, entry in manifest.files.items() if name not in superseded}
    write_run(run.directory, manifest.model_copy(update={"files": kept}))
    for name in superseded:
        (run.directory / name).unlink(missing_ok=True)


def _chosen(record: RunRecord) -> str:
    """The checkpoint to run: the best measured one, or the last where nothing is measured."""
    return checkpoint_name(record.best.step if record.best else record.step)


def _hyperparameters(run: Run) -> dict[str, Any]:
    record = run.record
    split = {
        "training_episodes": list(record.training),
        "validation_episodes": list(record.validation),
        "held_out_episodes": list(record.held_out),
    }
    return {**run.config.model_dump(mode="json"), **split}


def _metrics(run: Run, *, finished: bool) -> dict[str, Any]:
    record = run.record
    return {
        "finished": finished,
        "step": record.step,
        "checkpoint": _chosen(record),
        "start_pose": list(run.start_pose),
        "execution": suggested_execution(run.config, run.longest_s),
        "trained_s": round(record.trained_s, 1),
        "best": record.best.model_dump() if record.best else None,
        "validation": [{"step": measured.step, "l1": measured.l1} for measured in record.measured],
    }


def suggested_execution(config: TrainerConfig, longest_s: float) -> dict[str, Any]:
    """What `execution` of the skill should say where nobody has said otherwise.

    `duration` leaves the policy twice the time of the longest demonstration, in whole seconds.
    """
    suggested: dict[str, Any] = {"duration": float(max(_SHORTEST_S, math.ceil(_PATIENCE * longest_s)))}
    if config.n_action_steps is not None:
        suggested["n_action_steps"] = min(config.n_action_steps, config.chunk_size)
    return suggested


def finish(run: Run) -> TrainedRun:
    """Mark the run as complete; there is nothing to resume any more."""
    if not run.processes.first:
        return _trained(run.directory, _metrics(run, finished=True), run.spec.action_dim)
    manifest = read_run(run.directory)
    write_run(run.directory, manifest.model_copy(update={"metrics": _metrics(run, finished=True)}))
    (run.directory / STATE_FILE).unlink(missing_ok=True)
    trained = _trained(run.directory, _metrics(run, finished=True), run.spec.action_dim)
    best = run.record.best
    run.report(Finished(trained.run_id, f"{trained.run_id}/{trained.checkpoint.name}", best.l1 if best else None))
    return trained


def finished(directory: Path) -> TrainedRun | None:
    """The run in that directory, if it is complete."""
    if not (directory / MANIFEST_FILE).exists():
        return None
    manifest = read_run(directory)
    if not manifest.metrics.get("finished"):
        return None
    return _trained(directory, manifest.metrics, manifest.input_spec.action_dim)


def _trained(directory: Path, metrics: dict[str, Any], action_dim: int) -> TrainedRun:
    return TrainedRun(
        run_id=directory.name,
        directory=directory,
        checkpoint=directory / str(metrics["checkpoint"]),
        statistics=directory / STATISTICS_FILE,
        metrics=metrics,
        start_pose=tuple(metrics["start_pose"]),
        action_dim=action_dim,
    )
