"""The command line of the trainer: options, lines of JSON on stdout, signals, exit status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import torch

from btruntime.training.run_ids import RunError, check_run_id, free_run_id
from btruntime.training.trainer.config import (
    CPU_PRESET,
    DEFAULT_PRESET,
    TrainerConfig,
    assigned,
    make_config,
    presets,
    read_config,
)
from btruntime.training.trainer.events import Event, Note, Progress, Report, event_line, silent
from btruntime.training.trainer.processes import joined
from btruntime.training.trainer.runs import not_written, saved_config
from btruntime.training.trainer.train import Interrupted, train
from foundation.errors import BtruntimeError

REFERENCE_EVERY = 25
"""Steps between two progress lines of the reference's trainer."""

_DESCRIPTION = "Train one policy on the episodes of a skill. torchrun starts one of these per GPU."
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Remembers the first of SIGTERM and SIGINT; the second one ends the program at once."""

    def __init__(self) -> None:
        self.number = 0
        for number in _SIGNALS:
            signal.signal(number, self._remember)

    def __call__(self) -> int:
        return self.number

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0, 1 after an error, 128 + the signal that stopped it."""
    options = _parser().parse_args(arguments)
    stop = StopSignal()
    try:
        starting_point, why = _starting_point(options)
        config = make_config(values=starting_point.model_dump(), assignments=tuple(options.set))
        if options.progress_lines:
            config = config.model_copy(update={"log_every": REFERENCE_EVERY})
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")  # TF32; on a CPU it would lose precision for nothing
        with joined() as processes:
            if options.run_id is None and (options.resume or processes.size > 1):
                raise RunError("--run-id is missing: resuming, or training in several processes, needs it.")
            report = write_lines(progress_lines=options.progress_lines) if processes.first else silent
            report(Note(why))
            train(
                options.skill_dir,
                options.run_id or free_run_id(options.skill_dir),
                config,
                report,
                resume=options.resume,
                skip_broken=options.skip_broken,
                stop=stop,
                processes=processes,
            )
    except Interrupted as interrupted:
        sys.stderr.write(f"{interrupted}\n")
        return 128 + interrupted.signal_number
    except BtruntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        # What nobody foresaw is nearly always a file of the run, on a disk that is full.
        path = Path(os.fsdecode(error.filename)) if error.filename else options.skill_dir
        sys.stderr.write(f"{not_written(path, error.strerror or str(error))}\n")
        return 1
    return 0


def _starting_point(options: argparse.Namespace) -> tuple[TrainerConfig, str]:
    """The hyperparameters before `--set`, and where they come from, as a sentence.

    Those asked for, else those of the run to resume, else the preset for the device.
    """
    if options.config:
        return read_config(options.config), f"hyperparameters of {options.config}"
    if options.preset is not None:
        return make_config(preset=options.preset), f"preset {options.preset}"
    if options.resume and options.run_id is not None:
        saved = saved_config(options.skill_dir / check_run_id(options.run_id))
        if saved is not None:
            return saved, f"hyperparameters of run {options.run_id}, which goes on"
    preset, why = preset_for(str(dict(assigned(text) for text in options.set).get("device", "auto")))
    return make_config(preset=preset), f"preset {preset}: {why}; --preset chooses another"


def preset_for(device: str) -> tuple[str, str]:
    """The preset for training on a device ("auto", "cpu", "cuda", ...), and why that one."""
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return DEFAULT_PRESET, f"training on {torch.cuda.get_device_name() if torch.cuda.is_available() else device}"
    why = "training on the CPU was asked for" if device == "cpu" else "no GPU was found"
    return CPU_PRESET, f"{why}, {os.cpu_count()} CPU cores"


def write_lines(*, progress_lines: bool) -> Report:
    """A report that writes each event as a line to stdout, and the reference's progress line where it is wanted."""

    def report(event: Event) -> None:
        sys.stdout.write(event_line(event) + "\n")
        if progress_lines and isinstance(event, Progress):
            sys.stdout.write(f"@@INNATE_PROGRESS step={event.step} total={event.total}\n")
        sys.stdout.flush()

    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m btruntime.training.trainer", description=_DESCRIPTION)
    parser.add_argument("--skill-dir", type=Path, required=True, help="directory of the skill; episodes in its data/")
    parser.add_argument("--run-id", help="name of the run; by default the smallest free number")
    parser.add_argument("--config", type=Path, help="JSON file with hyperparameters")
    parser.add_argument("--preset", help=f"starting point: {', '.join(presets())} (default: by device)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change one hyperparameter")
    parser.add_argument(
        "--resume", action="store_true", help="continue the run where it was saved last, as it was begun"
    )
    parser.add_argument("--skip-broken", action="store_true", help="leave out episodes that cannot be read")
    parser.add_argument("--progress-lines", action="store_true", help="also print @@INNATE_PROGRESS lines")
    return parser
