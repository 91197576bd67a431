"""One training run, from the episodes of a skill to its checkpoint. Reads from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch

from btruntime.training.run_ids import RunError, check_run_id
from btruntime.training.trainer.batches import Examples, Order, batches
from btruntime.training.trainer.cache import Cache, DataError, open_cache
from btruntime.training.trainer.config import TrainerConfig
from btruntime.training.trainer.estimate import seconds_per_step
from btruntime.training.trainer.events import (
    Estimate,
    Event,
    Note,
    Progress,
    Report,
    silent,
)
from btruntime.training.trainer.learner import Learner
from btruntime.training.trainer.outputs import Run, TrainedRun, finish, finished, validate_and_save
from btruntime.training.trainer.processes import Processes
from btruntime.training.trainer.runs import (
    STATE_FILE,
    RunRecord,
    RunState,
    load_state,
    save_state,
)
from btruntime.training.trainer.split import Split, split_episodes
from foundation.errors import BtruntimeError
from policies.act.loss import ACTLoss
from policies.normalize import Statistics, StatisticsBuilder
from skills.locks import OwnedLock

_FRAMES_FOR_STATISTICS = 2_000
_AGREE_EVERY = 10

Stop = Callable[[], int]
"""Gives the signal that asked the run to stop; 0 while it may go on."""


class TrainingError(BtruntimeError):
    """The training went wrong in itself."""


class Interrupted(BtruntimeError):  # noqa: N818 - nothing is wrong: somebody asked for it
    """The run was asked to stop; its state is saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


def train(
    skill_dir: Path,
    run_id: str,
    config: TrainerConfig,
    report: Report = silent,
    *,
    resume: bool = False,
    skip_broken: bool = False,
    stop: Stop = lambda: 0,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> TrainedRun:
    """Train a policy on the episodes of a skill into `<skill>/<run_id>/`. Blocks until it is done.

    Args:
        skill_dir: has its episodes in `data/`.
        run_id: a new name, or that of a run to resume.
        config: hyperparameters; those of a resumed run must be the same.
        report: called from this thread.
        resume: continue an interrupted run; one that is finished is returned as it is.
        skip_broken: leave out episodes that cannot be read.
        stop: asked after each step.
        processes: this one's place among those that train together.

    Raises:
        DataError: the episodes cannot be trained on.
        DiskSpaceError: the prepared frames do not fit on the disk.
        RunError: the run exists already, is being trained, or cannot be resumed.
        TrainingError: the loss is not finite.
        Interrupted: `stop` gave a signal; the state is saved.
    """
    directory = skill_dir / check_run_id(run_id)
    if resume and (complete := finished(directory)):
        return complete
    if not resume and processes.first and directory.exists():
        raise RunError(f"{directory} exists already. Choose another run ID, or resume it.")
    with torch.random.fork_rng(), _threads(config.threads):
        cache = open_cache(
            skill_dir,
            _interruptible(report, stop),
            chunk_size=config.chunk_size,
            height=config.image_height,
            width=config.image_width,
            successes_only=config.successes_only,
            skip_broken=skip_broken,
        )
        if processes.first:
            directory.mkdir(exist_ok=resume)
        with _sole_trainer(directory, processes):
            return _train(directory, config, cache, report, resume, stop, processes)


def _interruptible(report: Report, stop: Stop) -> Report:
    """A report that ends what reports to it once the run is asked to stop."""

    def watched(event: Event) -> None:
        report(event)
        if number := stop():
            raise Interrupted("stopped while the frames were prepared; nothing was trained yet.", number)

    return watched


def _train(
    directory: Path,
    config: TrainerConfig,
    cache: Cache,
    report: Report,
    resume: bool,
    stop: Stop,
    processes: Processes,
) -> TrainedRun:
    state = load_state(directory) if resume else None
    record = state.record if state else _new_record(config, cache, report)
    record.check_continues(config, cache.content.key, where=directory / STATE_FILE)
    split = Split(record.training, record.validation)
    statistics = measure_statistics(cache, split)
    spec, device = cache.content.input_spec, processes.device(config.device)
    longest_s = float(cache.lengths.max()) / spec.data_frequency_hz
    run = Run(directory, config, spec, statistics, first_pose(cache, split), longest_s, record, report, processes)

    try:
        if processes.size == 1:
            per_step_s = seconds_per_step(config, spec, device)
            report(Estimate(per_step_s, per_step_s * (config.max_steps - record.step)))
        learner = Learner(config, config.network(spec), statistics, device, processes)
        if state:
            learner.load_state_dict(state.learner, where=str(directory / STATE_FILE))
        _learn(run, learner, Examples(cache, split.training), Examples(cache, split.validation), stop)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{device} has too little memory for batch_size {config.batch_size}; lower it, or image size or model size."
        ) from error
    return finish(run)


def _learn(run: Run, learner: Learner, training: Examples, validation: Examples, stop: Stop) -> None:
    """The training loop."""
    config, first = run.config, run.record.step
    order = Order(training.lengths, batch_size=config.batch_size * run.processes.size, seed=config.seed)
    stream = batches(
        training,
        order,
        first=first,
        stop=config.max_steps,
        share=run.processes.share,
        ahead=config.num_workers,
        pin=learner.device.type == "cuda",
    )
    begin_s, trained_before_s = time.monotonic(), run.record.trained_s
    for step, batch in enumerate(stream, start=first):
        loss = learner.step(step, batch)
        done = step + 1
        trained_s = time.monotonic() - begin_s
        run.record = run.record.model_copy(update={"step": done, "trained_s": trained_before_s + trained_s})
        last = done == config.max_steps or _out_of_time(run)
        if done % config.log_every == 0 or last:
            _report_progress(run, learner, loss, steps_per_s=(done - first) / trained_s)
        if last or done in milestones(config):
            validate_and_save(run, learner, validation)
        if last:
            break
        _save_if_due(run, learner, stop)


def milestones(config: TrainerConfig) -> frozenset[int]:
    """The steps after which a run is validated and saved; the last one is among them."""
    parts = config.checkpoints
    return frozenset(round(config.max_steps * part / parts) for part in range(1, parts + 1)) - {0}


def measure_statistics(cache: Cache, split: Split) -> Statistics:
    """Means and deviations of the training episodes; of pictures, from an even selection."""
    builder = StatisticsBuilder(cameras=cache.frames)
    steps = np.concatenate([_steps(cache, name) for name in split.training])
    builder.add_state(cache.state[steps])
    builder.add_action(cache.action[steps])
    selection = steps[:: -(-len(steps) // _FRAMES_FOR_STATISTICS)]
    for camera, frames in cache.frames.items():
        for index in selection:
            builder.add_images(camera, frames[index][None])
    return builder.build()


def first_pose(cache: Cache, split: Split) -> tuple[float, ...]:
    """(J,) median first joint positions of the training episodes, where a run of the policy should start."""
    first = [cache.state[_steps(cache, name)[0]] for name in split.training]
    return tuple(float(value) for value in np.median(first, axis=0)[: len(cache.content.input_spec.joint_names)])


def _steps(cache: Cache, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    index = cache.names.index(name)
    return np.arange(cache.starts[index], cache.starts[index] + cache.lengths[index])


def _new_record(config: TrainerConfig, cache: Cache, report: Report) -> RunRecord:
    held_out = _held_out(config, cache)
    names = [name for name in cache.names if name not in held_out]
    if not names:
        raise DataError("there is no episode to train on.")
    split = split_episodes(names, share=config.validation_share, seed=config.seed)
    if not split.validation:
        why = "there is a single episode" if len(names) == 1 else "validation_share is 0"
        report(Note(f"{why}: no episode chooses the checkpoint, so the last one is taken"))
    kept = f", {len(held_out)} kept out for evaluation" if held_out else ""
    report(Note(f"training on {len(split.training)} episodes, {len(split.validation)} to choose the checkpoint{kept}"))
    return RunRecord(
        config=config,
        cache_key=cache.content.key,
        training=split.training,
        validation=split.validation,
        held_out=held_out,
    )


def _held_out(config: TrainerConfig, cache: Cache) -> tuple[str, ...]:
    """Names of the episodes that the run must not see.

    Raises:
        DataError: one of them is not there.
    """
    wanted = tuple(f"episode_{number}.h5" for number in dict.fromkeys(config.hold_out))
    if missing := [name for name in wanted if name not in cache.names]:
        raise DataError(f"hold_out names {', '.join(missing)}; the skill has {', '.join(cache.names)}.")
    return wanted


def _report_progress(run: Run, learner: Learner, loss: ACTLoss, *, steps_per_s: float) -> None:
    """Tell where the run is; the one place where the device is waited for, so that the loss is checked here too."""
    total, done = float(loss.total), run.record.step
    if not np.isfinite(total):
        raise TrainingError(
            f"{run.directory}: the loss is {total} at step {done}. Lower the learning rate; saved steps are kept."
        )
    if run.processes.first:
        left_s = (run.config.max_steps - done) / steps_per_s
        run.report(
            Progress(
                step=done,
                total=run.config.max_steps,
                loss=total,
                l1=float(loss.l1),
                kl=float(loss.kl),
                lr=learner.learning_rate(done - 1),
                steps_per_s=steps_per_s,
                eta_s=left_s,
            )
        )


def _out_of_time(run: Run) -> bool:
    if run.config.max_minutes is None:
        return False
    late = int(run.record.trained_s > run.config.max_minutes * 60)
    return bool(_agreed(run, late))


def _agreed(run: Run, mine: int) -> int:
    """What any process says; asked seldom, because it costs a round trip among them."""
    if run.processes.size > 1 and run.record.step % _AGREE_EVERY:
        return 0
    return run.processes.agree(mine)


def _save_if_due(run: Run, learner: Learner, stop: Stop) -> None:
    """Save the state every so often, and when the run is asked to stop."""
    signal_number = _agreed(run, stop())
    now_s = time.monotonic()
    if run.processes.first and (signal_number or now_s - run.saved_at_s > run.config.save_minutes * 60):
        save_state(run.directory, RunState(run.record, learner.state_dict()))
        run.saved_at_s = now_s
    if signal_number:
        skill = run.directory.resolve().parent
        raise Interrupted(
            f"stopped after step {run.record.step} of {run.config.max_steps}; the state is saved. To go on: "
            f"btruntime train run {quote(skill.name)} --resume {run.directory.name} "
            f"--skills-dir {quote(str(skill.parent))}",
            signal_number,
        )


@contextmanager
def _sole_trainer(directory: Path, processes: Processes) -> Iterator[None]:
    """Hold the run's lock, so that no other trainer writes into it."""
    if not processes.first:
        yield
        return
    lock = OwnedLock.try_take(directory / ".lock")
    if lock is None:
        raise RunError(f"{directory} is being trained by another process. Wait for it, or choose another run ID.")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use that many threads for arithmetic within the block; 0 changes nothing."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
