"""From demonstrations to a running skill, in simulation: no robot, no GPU, no network, about four minutes.

Records demonstrations of a pick task with a scripted leader, trains an ACT policy on them, runs an agent with it in
real time, and tries the skill in scenes that no demonstration has shown.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from btruntime.cli.options import add_json, whole
from btruntime.cli.output import print_json, say, tell
from btruntime.cli.progress import Progress, progress_bar

if TYPE_CHECKING:
    from btruntime.demo import DemoReport

DEFAULT_DIRECTORY = Path("btruntime-demo")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="train longer; 95 of 100 scenes instead of 14 of 20")
    parser.add_argument("--seed", type=whole(0), default=0, help="of scenes and training")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="where everything goes (default: ./btruntime-demo, or -2, -3, ...)"
    )
    parser.add_argument("--demonstrations", type=whole(1), metavar="N", help="default: 120")
    parser.add_argument("--scenes", type=whole(1), metavar="N", help="default: 20, with --full 100")
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
        tell(f"btruntime: {error}")
        return 128 + error.signal_number
    _print(report)
    if args.json:
        print_json(report.figures())
    return 1 if report.shortcomings else 0


class _Terminal:
    """Shows the demo on standard error, so that standard output holds the results alone."""

    def section(self, title: str) -> None:
        tell(f"\n{title}")

    def say(self, text: str) -> None:
        say(f"   {text}", file=sys.stderr)

    def bar(self, title: str, total: float) -> AbstractContextManager[Progress]:
        return progress_bar(title, total)


def _print(report: DemoReport) -> None:
    timing, directory = report.run.timing, report.config.directory
    say()
    say("Held the cube, lifted, at the end (95 % Wilson interval):")
    for contender, rate in report.rates.items():
        say(f"  {contender:<14} {rate}")
    say(
        f"Loop timing of the real-time run: period {timing.period_ms_mean:.3f} ms, lateness p50 "
        f"{timing.lateness_ms_p50:.2f}, p99 {timing.lateness_ms_p99:.2f}, max {timing.lateness_ms_max:.2f} ms, "
        f"{timing.late_ticks} of {report.run.ticks} ticks late (over 5 ms)"
    )
    say("Time: " + ", ".join(f"{step} {seconds:.0f} s" for step, seconds in report.took_s.items()))
    say(f"Skills, agents and flight records are in {directory}; this run is {report.flight}")
    for shortcoming in report.shortcomings:
        say(f"Not as it should be: {shortcoming}.")
    say()
    say("Next:")
    for line in _next_commands(directory, report.flight):
        say(f"  {line}")


def _next_commands(directory: Path, flight: Path) -> list[str]:
    """What a person may type next, as it is typed."""
    program = _program()
    skills, agents = (shlex.quote(str(_shown(directory) / name)) for name in ("skills", "agents"))
    return [
        f"{program} run pick-up-cube --robot 'sim:demo?seed=7' --skills-dir {skills}",
        f"{program} tree demo --skills-dir {skills} --agents-dir {agents}",
        f"{program} flight {shlex.quote(str(_shown(flight)))}",
    ]


def _program() -> str:
    """`btruntime` where the shell finds it, else the program as it was started."""
    return "btruntime" if shutil.which("btruntime") else shlex.quote(sys.argv[0])


def _shown(path: Path) -> Path:
    """Relative to where the person is, when that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
