"""Can this skill run on this robot, and if not, why not? Reads files and the robot's spec; nothing moves."""

from __future__ import annotations

import argparse

from btruntime.cli.options import add_json, add_robot, add_skills_dir, store_of
from btruntime.cli.output import print_json, say


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("skill", help="its ID, for example pick-up-cup")
    parser.add_argument("--no-hash", action="store_true", help="do not compare the checkpoint's SHA-256")
    add_robot(parser)
    add_skills_dir(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from hal.clock import VirtualClock
    from hal.connect import connect
    from skills.check import check

    robot = connect(args.robot, VirtualClock())
    report = check(store_of(args).get(args.skill), robot.spec, hash_files=not args.no_hash)
    if args.json:
        print_json(
            {
                "skill": report.skill,
                "robot": report.robot,
                "runnable": report.runnable,
                "problems": list(report.problems),
                "notes": list(report.notes),
            }
        )
        return 0 if report.runnable else 1
    for problem in report.problems:
        say(f"problem: {problem}")
    for note in report.notes:
        say(f"note: {note}")
    verdict = "can run" if report.runnable else "cannot run"
    say(f"{report.skill} {verdict} on robot {report.robot}.")
    return 0 if report.runnable else 1
