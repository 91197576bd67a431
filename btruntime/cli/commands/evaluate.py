"""How good is a learned skill? In simulated scenes, or against recordings that it was not trained on.

--scenes N    Success in N fresh simulated scenes, beside two yardsticks that must fail: the scripted leader that does
              not look, and the policy that is shown black pictures. For skills recorded in simulated scenes.
--open-loop   Error of the predicted actions on held-out episodes, beside four yardsticks that do not look either: the
              mean and the median action of the training episodes, holding the last action, and the median by frame
              number. L1 in standard deviations of the training actions. With a picture. For recordings of any robot.

Without either, the episodes decide: scenes where they were recorded in some, else open-loop.
Episodes are held out in training: btruntime train run SKILL --set 'hold_out=[3, 7]'
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btruntime.cli.options import add_json, add_skills_dir, store_of, whole
from btruntime.cli.output import print_json, say, tell

if TYPE_CHECKING:
    from btruntime.cli.progress import Progress
    from btruntime.open_loop import OpenLoopReport
    from btruntime.training.trainer.events import Report
    from skills.store import SkillEntry

_SCENES = 20
_PLOT = "open_loop.png"
_OF_RECORDINGS = ("episodes", "training_episodes", "run_id", "horizon", "plot", "no_plot", "device", "skip_broken")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("skill", help="its ID")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--scenes", type=whole(1), metavar="N", help=f"in simulated scenes, so many (default: {_SCENES})")
    kind.add_argument("--open-loop", action="store_true", help="against recordings")
    scenes = parser.add_argument_group("in simulated scenes")
    scenes.add_argument("--seed", type=whole(0), default=900_000_000, help="of the first scene")
    scenes.add_argument("--robot", default="sim:demo", metavar="ADDRESS", help="a simulated robot (default: sim:demo)")
    scenes.add_argument("--workers", type=whole(1), metavar="N", help="processes (default: one per core)")
    recordings = parser.add_argument_group("open-loop")
    recordings.add_argument(
        "--episodes",
        type=_numbers,
        metavar="N,N",
        help="their numbers (default: those that the run held out, else those that chose its checkpoint)",
    )
    recordings.add_argument("--training-episodes", action="store_true", help="allow episodes that it was trained on")
    recordings.add_argument(
        "--run", dest="run_id", metavar="ID", help="which training run (default: that of the active checkpoint)"
    )
    recordings.add_argument("--horizon", type=whole(1), metavar="H", help="actions of each chunk that count")
    recordings.add_argument("--plot", type=Path, metavar="FILE", help=f"the picture (default: {_PLOT} in the run)")
    recordings.add_argument("--no-plot", action="store_true", help="no picture")
    recordings.add_argument("--device", choices=("auto", "cpu", "cuda"), help="default: auto, a GPU if any")
    recordings.add_argument("--skip-broken", action="store_true", help="leave out episodes that cannot be read")
    add_skills_dir(parser)
    add_json(parser)
    parser.set_defaults(wrong_usage=parser.error)


def run(args: argparse.Namespace) -> int:
    from skills.kinds import SkillNotRunnableError

    entry = store_of(args).get(args.skill)
    if entry.kind != "learned":
        why = entry.problem or f"it is a {entry.kind} skill, and only learned ones have a policy."
        raise SkillNotRunnableError(f"{entry.id} cannot be evaluated: {why}")
    return _open_loop(args, entry) if _is_open_loop(args, entry) else _in_scenes(args, entry)


def _numbers(text: str) -> list[int]:
    """Numbers of episodes, as in "20,36"."""
    number = whole(0)
    return [number(part) for part in text.split(",")]


def _is_open_loop(args: argparse.Namespace, entry: SkillEntry) -> bool:
    """As asked for, by an option that has no other meaning, too; else as the episodes were recorded, and says so."""
    from skills.episodes import recorded_seeds

    of_recordings = [name for name in _OF_RECORDINGS if getattr(args, name) not in (None, False)]
    if args.scenes is not None:
        if of_recordings:
            args.wrong_usage(
                f"argument --scenes: not allowed with {_options(of_recordings)}, which is about recordings"
            )
        return False
    if args.open_loop or of_recordings:
        return True
    if recorded_seeds(entry.data_dir):
        tell(f"in {_SCENES} simulated scenes, because its episodes were recorded in some; --open-loop takes recordings")
        return False
    tell("open-loop, because its episodes were not recorded in simulated scenes; --scenes N tries it in some")
    return True


def _options(names: list[str]) -> str:
    return ", ".join("--run" if name == "run_id" else f"--{name.replace('_', '-')}" for name in names)


def _in_scenes(args: argparse.Namespace, entry: SkillEntry) -> int:
    from btruntime.cli.progress import progress_bar
    from btruntime.evaluate import Contender, EvaluationStoppedError, Job, evaluate, fresh_seeds, tally
    from btruntime.session import stopping_on_signals
    from hal.clock import VirtualClock
    from hal.connect import connect
    from hal.sim.pick import PickTask
    from skills.episodes import recorded_seeds
    from skills.kinds import SkillNotRunnableError

    if not entry.runnable:
        raise SkillNotRunnableError(f"{entry.id} cannot be evaluated: {entry.problem or 'it has no checkpoint yet'}.")
    scenes = args.scenes or _SCENES
    robot = connect(args.robot, VirtualClock())
    job = Job(entry.path.parent, str(entry.id), robot.spec, PickTask())

    def end(reason: str) -> None:
        raise EvaluationStoppedError(reason)

    with stopping_on_signals(end) as stopped:
        try:
            with progress_bar("evaluating", scenes * len(Contender)) as bar:
                results = evaluate(
                    job,
                    tuple(fresh_seeds(args.seed, scenes, recorded_seeds(entry.data_dir))),
                    workers=args.workers,
                    progress=lambda result: bar.advance(
                        f"{result.contender}: {'held' if result.succeeded else result.ending}"
                    ),
                )
        except EvaluationStoppedError as error:
            tell(f"btruntime: {error}")
            return 128 + (stopped.number or 0)
    rates = tally(results)
    for contender, rate in rates.items():
        say(f"{contender:<14} {rate}")
    if args.json:
        print_json(
            {
                "success_rate": rates[Contender.SKILL].rate,
                "interval": list(rates[Contender.SKILL].interval),
                "scenes": scenes,
                "blind_rate": rates[Contender.BLIND].rate,
                "blank_rate": rates[Contender.BLANK].rate,
            }
        )
    return 0


def _open_loop(args: argparse.Namespace, entry: SkillEntry) -> int:
    from btruntime.cli.progress import progress_bar
    from btruntime.open_loop import OpenLoopStoppedError, open_loop
    from btruntime.session import stopping_on_signals

    def end(reason: str) -> None:
        raise OpenLoopStoppedError(reason)

    with stopping_on_signals(end) as stopped:
        try:
            with progress_bar("evaluating", 1.0) as bar:
                report = open_loop(
                    entry.path,
                    run=args.run_id,
                    episodes=None if args.episodes is None else [f"episode_{number}.h5" for number in args.episodes],
                    allow_training=args.training_episodes,
                    horizon=args.horizon,
                    device=args.device or "auto",
                    skip_broken=args.skip_broken,
                    report=_told_to(bar),
                    progress=lambda done, total: bar.reach(done / total, f"step {done} of {total}"),
                )
            # The numbers come first: a picture that cannot be written costs nobody the measurement.
            _say(report)
            picture = None if args.no_plot else _plotted(report, args.plot or entry.path / report.run_id / _PLOT)
        except OpenLoopStoppedError as error:
            tell(f"btruntime: {error}")
            return 128 + (stopped.number or 0)
    if picture is not None:
        say(f"picture: {picture}")
    if args.json:
        print_json(_as_json(report, picture))
    return 0


def _told_to(bar: Progress) -> Report:
    """What the preparation of the frames reports."""
    from btruntime.training.trainer.events import Event, Note, Preparing

    def report(event: Event) -> None:
        if isinstance(event, Preparing):
            bar.reach(0.0, f"preparing frames, episode {event.done} of {event.total}")
        elif isinstance(event, Note):
            tell(event.text)

    return report


def _plotted(report: OpenLoopReport, path: Path) -> Path:
    from btruntime.open_loop.plot import plot

    plot(report, path)
    return path


def _say(report: OpenLoopReport) -> None:
    """The table: everyone's error, then each dimension's in its unit."""
    say(
        f"{report.skill}, run {report.run_id}, {report.checkpoint}: {', '.join(report.episodes)}; "
        f"{report.horizon} steps ahead"
    )
    for note in report.notes:
        tell(f"note: {note}")
    contenders = _contenders(report)
    say(f"{'':<16} {'L1':>7}  policy / it")
    for who, error in contenders.items():
        ratio = f"{report.policy.l1 / error.l1:11.2f}" if error.l1 else f"{'-':>11}"
        say(f"{who.replace('_', ' '):<16} {error.l1:>7.3f}  {ratio}")
    say()
    width = max(len(dim.name) for dim in report.dims)
    say(f"{'':<{width}} {'unit':<5} " + " ".join(f"{who.replace('_', ' '):>15}" for who in contenders))
    for index, dim in enumerate(report.dims):
        values = " ".join(f"{error.by_dim[index]:>15.4g}" for error in contenders.values())
        say(f"{dim.name:<{width}} {dim.unit:<5} {values}")


def _contenders(report: OpenLoopReport) -> dict[str, Any]:
    return {"policy": report.policy, **{str(who): error for who, error in report.yardsticks.items()}}


def _as_json(report: OpenLoopReport, picture: Path | None) -> dict[str, object]:
    contenders = _contenders(report)
    by_dim = {
        dim.name: {"unit": dim.unit, **{who: error.by_dim[index] for who, error in contenders.items()}}
        for index, dim in enumerate(report.dims)
    }
    return {
        "open_loop_l1": report.policy.l1,
        **{f"baseline_{who}_l1": error.l1 for who, error in report.yardsticks.items()},
        "horizon": report.horizon,
        "episodes": report.episodes,
        "training_episodes": report.training_episodes,
        "run_id": report.run_id,
        "checkpoint": report.checkpoint,
        "plot": None if picture is None else str(picture),
        "by_dim": by_dim,
        "notes": report.notes,
    }
