"""Success of a learned skill in fresh simulated scenes, beside two yardsticks that must fail.

The yardsticks: the scripted leader that does not look, and the policy that is shown black pictures.
"""

from __future__ import annotations

import argparse

from btruntime.cli.options import add_json, add_skills_dir, store_of, whole
from btruntime.cli.output import print_json, say, tell


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("skill", help="its ID")
    parser.add_argument("--scenes", type=whole(1), default=20, metavar="N")
    parser.add_argument("--seed", type=whole(0), default=900_000_000, help="of the first scene")
    parser.add_argument("--robot", default="sim:demo", metavar="ADDRESS", help="a simulated robot (default: sim:demo)")
    parser.add_argument("--workers", type=whole(1), metavar="N", help="processes (default: one per core)")
    add_skills_dir(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from btruntime.cli.progress import progress_bar
    from btruntime.evaluate import Contender, EvaluationStoppedError, Job, evaluate, fresh_seeds, tally
    from btruntime.session import stopping_on_signals
    from hal.clock import VirtualClock
    from hal.connect import connect
    from hal.sim.pick import PickTask
    from skills.episodes import recorded_seeds
    from skills.kinds import SkillNotRunnableError

    entry = store_of(args).get(args.skill)
    if not entry.runnable:
        raise SkillNotRunnableError(f"{entry.id} cannot be evaluated: {entry.problem or 'it has no checkpoint yet'}.")
    robot = connect(args.robot, VirtualClock())
    job = Job(entry.path.parent, str(entry.id), robot.spec, PickTask())

    def end(reason: str) -> None:
        raise EvaluationStoppedError(reason)

    with stopping_on_signals(end) as stopped:
        try:
            with progress_bar("evaluating", args.scenes * len(Contender)) as bar:
                results = evaluate(
                    job,
                    tuple(fresh_seeds(args.seed, args.scenes, recorded_seeds(entry.data_dir))),
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
                "scenes": args.scenes,
                "blind_rate": rates[Contender.BLIND].rate,
                "blank_rate": rates[Contender.BLANK].rate,
            }
        )
    return 0
