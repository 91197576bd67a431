"""From demonstrations to a running skill, in simulation: no robot, no GPU, no network, about four minutes.

Records demonstrations of a pick task with a scripted leader, trains an ACT policy on them, runs an agent with it in
real time, and tries the skill in scenes that no demonstration has shown.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from btruntime.cli.options import add_json, print_json
from btruntime.cli.progress import Progress, progress_bar

if TYPE_CHECKING:
    from btruntime.demo import DemoReport

DEFAULT_DIRECTORY = Path("btruntime-demo")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="train longer; 95 of 100 scenes instead of 14 of 20")
    parser.add_argument("--seed", type=int, default=0, help="of scenes and training")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="where everything goes (default: ./btruntime-demo, or -2, -3, ...)"
    )
    parser.add_argument("--demonstrations", type=int, metavar="N", help="default: 120")
    parser.add_argument("--scenes", type=int, metavar="N", help="default: 20, with --full 100")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from btruntime import __version__
    from btruntime.demo import DemoConfig, run_demo
    from btruntime.demo.demo import DemoStoppedError, free_directory
    from btruntime.training.local import TrainingStoppedError

    directory = (args.dir or free_directory(DEFAULT_DIRECTORY)).absolute()
    config = DemoConfig.full(directory, args.seed) if args.full else DemoConfig(directory, args.seed)
    if args.demonstrations is not None:
        config = replace(config, demonstrations=args.demonstrations)
    if args.scenes is not None:
        config = replace(config, scenes=args.scenes, needed=round(config.needed / config.scenes * args.scenes))
    try:
        report = run_demo(config, _Terminal(), software=f"btruntime {__version__}")
    except (DemoStoppedError, TrainingStoppedError) as error:
        print(f"btruntime: {error}", file=sys.stderr)
        return 128 + error.signal_number
    _print(report)
    if args.json:
        print_json(report.figures())
    return 1 if report.shortcomings else 0


class _Terminal:
    """Shows the demo on standard error, so that standard output holds the results alone."""

    def section(self, title: str) -> None:
        print(f"\n{title}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(f"   {text}", file=sys.stderr, flush=True)

    def bar(self, title: str, total: float) -> AbstractContextManager[Progress]:
        return progress_bar(title, total)


def _print(report: DemoReport) -> None:
    timing, directory = report.run.timing, report.config.directory
    print("\nHeld the cube, lifted, at the end (95 % Wilson interval):")
    for contender, rate in report.rates.items():
        print(f"  {contender:<14} {rate}")
    print(
        f"Loop timing of the real-time run: period {timing.period_ms_mean:.3f} ms, lateness p50 "
        f"{timing.lateness_ms_p50:.2f}, p99 {timing.lateness_ms_p99:.2f}, max {timing.lateness_ms_max:.2f} ms, "
        f"{timing.late_ticks} of {report.run.ticks} ticks late (over 5 ms)"
    )
    print("Time: " + ", ".join(f"{step} {seconds:.0f} s" for step, seconds in report.took_s.items()))
    print(f"Skills, agents and flight records are in {directory}; this run is {report.flight}")
    for shortcoming in report.shortcomings:
        print(f"Not as it should be: {shortcoming}.")
    shown = _shown(directory)
    print(
        f"\nNext:\n"
        f"  btruntime run pick-up-cube --robot 'sim:demo?seed=7' --skills-dir {shown}/skills\n"
        f"  btruntime tree demo --skills-dir {shown}/skills --agents-dir {shown}/agents\n"
        f"  btruntime flight {_shown(report.flight)}"
    )


def _shown(path: Path) -> str:
    """Relative to where the person is, when that is shorter."""
    try:
        relative = path.relative_to(Path.cwd())
    except ValueError:
        return str(path)
    return str(relative)
