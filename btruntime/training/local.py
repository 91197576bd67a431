"""Training on this machine: the trainer program in a process of its own, and what to do with a finished run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundation.errors import BtruntimeError
from foundation.files import sha256_of
from policies.manifest import MANIFEST_FILE, STATISTICS_FILE, RunManifest, checkpoint_name, read_run
from skills.metadata import SkillMetadata, activate

OnEvent = Callable[[Mapping[str, Any]], None]
_STOP_GRACE_S = 60.0
_AGAIN = "Download the run again, or activate another one."


class TrainingFailedError(BtruntimeError):
    """The trainer ended without a finished run."""


class DamagedRunError(BtruntimeError):
    """A file of a run is missing, or another one than its `run.json` says."""


class TrainingStoppedError(BtruntimeError):
    """The training was asked to stop; it can be resumed."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


def train_locally(
    skill_dir: Path,
    run_id: str,
    *,
    preset: str | None = None,
    assignments: Sequence[str] = (),
    resume: bool = False,
    skip_broken: bool = False,
    on_event: OnEvent = lambda event: None,
) -> Path:
    """Run the trainer to its end and return the run's directory.

    Args:
        skill_dir: has its episodes in `data/`.
        run_id: a new name, or that of a run to resume.
        preset: hyperparameters to start from; None for the default ones, or those of the run to resume.
        assignments: hyperparameters to change, see `btruntime.training.trainer.config.make_config`.
        resume: continue an interrupted run.
        skip_broken: leave out episodes that cannot be read.
        on_event: told each event of the trainer as the JSON object it wrote.

    Raises:
        TrainingFailedError: with the trainer's last words.
        TrainingStoppedError: Ctrl-C or SIGTERM; the trainer has saved its state.
    """
    command = [sys.executable, "-m", "btruntime.training.trainer", "--skill-dir", str(skill_dir), "--run-id", run_id]
    command += ["--preset", preset] if preset is not None else []
    for assignment in assignments:
        command += ["--set", assignment]
    command += ["--resume"] * resume + ["--skip-broken"] * skip_broken
    with tempfile.TemporaryFile() as log:
        # A group of its own, so that Ctrl-C reaches the trainer once, through us.
        with _forwarding() as signals:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, process_group=0, text=True
            )
            try:
                signals.forward_to(process)
                _follow(process, on_event)
                code = process.wait(_STOP_GRACE_S if signals.asked else None)
            except BaseException:
                process.kill()
                process.wait()
                raise
        last_words = _last_line(log.fileno())
    if signals.asked:
        stopped = "training was stopped before anything was saved. Start it again."
        raise TrainingStoppedError(last_words or stopped, signals.asked[0])
    if code != 0:
        raise TrainingFailedError(last_words or f"the trainer ended with exit status {code} and said nothing.")
    return skill_dir / run_id


class _Signals:
    """What this process was asked by signals, passed on to the trainer as SIGTERM once there is one."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._process: subprocess.Popen[str] | None = None

    def take(self, number: int, _: object) -> None:
        self.asked.append(number)
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def forward_to(self, process: subprocess.Popen[str]) -> None:
        """Pass signals on from now on, and one that came before."""
        self._process = process
        if self.asked:
            process.send_signal(signal.SIGTERM)


@contextmanager
def _forwarding() -> Iterator[_Signals]:
    """Take signals within the block, from before there is a trainer that one of them could leave behind.

    A signal that is ignored stays so (`nohup`).
    """
    signals = _Signals()
    before = {
        number: signal.signal(number, signals.take)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def activate_run(skill_dir: Path, run_id: str) -> SkillMetadata:
    """Switch a learned skill to a run: its best checkpoint, or the newest where none is named.

    What the run suggests for `execution` (start pose, duration, ...) is written where nobody has set it.

    Raises:
        ManifestError: the run's description is missing or malformed, or does not list the checkpoint.
        DamagedRunError: checkpoint or statistics are not the files that were trained.
        MetadataError: see `skills.metadata.activate`.
    """
    manifest = read_run(skill_dir / run_id)
    checkpoint = chosen_checkpoint(manifest, run_id)
    for name in (checkpoint, STATISTICS_FILE):
        _check_file(skill_dir / run_id / name, manifest)
    return activate(
        skill_dir,
        run_id,
        checkpoint,
        STATISTICS_FILE,
        fill={"action_dim": manifest.input_spec.action_dim} | _suggested(manifest.metrics),
    )


def _check_file(path: Path, manifest: RunManifest) -> None:
    expected = manifest.entry(path.name).sha256
    if not path.is_file():
        raise DamagedRunError(f"{path} is missing. {_AGAIN}")
    try:
        found = sha256_of(path)
    except OSError as error:
        raise DamagedRunError(f"{path} cannot be read: {error.strerror}. {_AGAIN}") from error
    if found != expected:
        raise DamagedRunError(
            f"{path} is not the file that was trained: its SHA-256 is {found[:12]}, {MANIFEST_FILE} says "
            f"{expected[:12]}. {_AGAIN}"
        )


def _suggested(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the run suggests for `execution`; runs of other trainers suggest less."""
    execution = metrics.get("execution")
    suggested = {"start_pose": metrics.get("start_pose")}
    if isinstance(execution, dict):
        suggested |= {name: execution.get(name) for name in ("duration", "n_action_steps")}
    return suggested


def chosen_checkpoint(manifest: RunManifest, run_id: str) -> str:
    """File name of the checkpoint to run.

    Raises:
        TrainingFailedError: the run has none.
    """
    named = manifest.metrics.get("checkpoint")
    if isinstance(named, str):
        return named
    steps = manifest.checkpoints()
    if not steps:
        raise TrainingFailedError(f"run {run_id} has no checkpoint yet. Resume its training.")
    return checkpoint_name(max(steps))


def _follow(process: subprocess.Popen[str], on_event: OnEvent) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            on_event(event)


def _last_line(file: int) -> str:
    size = os.fstat(file).st_size
    text = os.pread(file, 8192, max(0, size - 8192)).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
