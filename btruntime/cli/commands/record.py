"""Record demonstrations of the pick task with its scripted leader, on the simulated robot and the virtual clock.

Episodes go through the same recorder, motion gate and files as a person's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from btruntime.cli.options import add_json, add_skills_dir, store_of, whole
from btruntime.cli.output import print_json, say, tell


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("skill", help="which skill the episodes belong to; make one with: btruntime skills new NAME")
    parser.add_argument("--episodes", type=whole(1), default=10, metavar="N")
    parser.add_argument("--seed", type=whole(0), help="of the first scene (default: the first after those recorded)")
    parser.add_argument("--robot", default="sim:demo", metavar="ADDRESS", help="a simulated robot (default: sim:demo)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="recorder.yaml with frequency, image size, ...")
    add_skills_dir(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from btruntime import __version__
    from btruntime.cli.progress import progress_bar
    from btruntime.record.config import RecorderConfig, load_recorder_config
    from btruntime.record.recorder import Recorded
    from btruntime.record.simulated import record_demonstrations
    from btruntime.session import stopping_on_signals
    from foundation.errors import BtruntimeError
    from hal.clock import VirtualClock
    from hal.connect import connect
    from hal.sim.pick import PickTask
    from hal.sim.robot import SimRobot
    from skills.episodes import recorded_seeds, recover

    entry = store_of(args).get(args.skill)
    robot = connect(args.robot, VirtualClock())
    if not isinstance(robot, SimRobot):
        raise BtruntimeError(f"the scripted leader moves the simulated robot only, not {args.robot}.")
    rate_hz = min(camera.rate_hz for camera in robot.spec.cameras)
    config = load_recorder_config(args.config) if args.config else RecorderConfig(data_frequency=min(30.0, rate_hz))
    data_dir = entry.path / "data"
    for found in recover(data_dir) if data_dir.is_dir() else ():
        say(f"recovered: {found}")
    first = args.seed if args.seed is not None else max(recorded_seeds(data_dir), default=-1) + 1
    if first + args.episodes > 1 << 63:
        raise BtruntimeError(f"--seed is {first}, expected less than {(1 << 63) - args.episodes}: seeds have 63 bits.")
    stop: list[str] = []
    with stopping_on_signals(stop.append) as stopped, progress_bar("recording", args.episodes) as bar:

        def advance(seed: int, recorded: Recorded | None) -> None:
            bar.advance(f"scene {seed}: {'trashed' if recorded is None else recorded.path.name}")

        saved = record_demonstrations(
            PickTask(),
            robot.spec,
            data_dir,
            range(first, first + args.episodes),
            config,
            software=f"btruntime {__version__}",
            progress=advance,
            cancelled=lambda: bool(stop),
        )
    say(f"{len(saved)} episodes of {entry.id} are in {data_dir}")
    if args.json:
        episodes = [{"file": each.path.name, "steps": each.steps} for each in saved]
        print_json({"skill": str(entry.id), "episodes": episodes})
    if stopped.number is not None:
        tell("btruntime: stopped; the episode that was being recorded is in the trash, those before it are saved.")
        return 128 + stopped.number
    return 0
