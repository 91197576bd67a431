"""`btruntime dataset replay`."""

from __future__ import annotations

import argparse
from pathlib import Path

from btruntime.cli.options import add_json, add_robot, add_skills_dir, speed, store_of, whole
from btruntime.cli.output import print_json, say, tell


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let a robot repeat a recorded episode by its own timestamps, through the motion gate, and say how well it "
        "followed. Ctrl-C stops the robot at once."
    )
    parser.add_argument("skill", help="its ID")
    parser.add_argument("number", type=whole(0), help="of the episode: N of episode_N.h5")
    parser.add_argument(
        "--clip",
        action="store_true",
        help="for a recording of another robot: cut what is beyond this one's limits, and say how much that is",
    )
    parser.add_argument("--speed", type=speed, default=1.0, help="time factor, 0.1 to 2 (default: 1)")
    parser.add_argument("--fast", action="store_true", help="on the virtual clock (simulated robots only)")
    parser.add_argument("--quiet", action="store_true", help="do not draw the tree")
    parser.add_argument("--flights-dir", type=Path, metavar="DIR", help="where the flight record goes")
    add_robot(parser)
    add_skills_dir(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from btruntime.replay import replay_episode
    from btruntime.runtime import PolicyPool, inline_policies
    from btruntime.session import Places
    from foundation.errors import BtruntimeError
    from hal.clock import MonotonicClock, VirtualClock
    from hal.connect import connect
    from skills.episodes.naming import episode_path

    if args.fast and not args.robot.startswith("sim:"):
        raise BtruntimeError(f"--fast is for simulated robots; {args.robot} lives in real time.")
    entry = store_of(args).get(args.skill)
    episode = episode_path(entry.data_dir, args.number)
    clock = VirtualClock() if args.fast else MonotonicClock()
    pool = PolicyPool(inline_policies())
    places = Places(args.skills_dir, None, args.flights_dir)
    robot = connect(args.robot, clock)
    try:
        replayed = replay_episode(
            episode, robot, clock, pool, places, clip=args.clip, speed=args.speed, show=not args.quiet
        )
    finally:
        pool.close()
    result = replayed.ran.result
    ending = f"{result.outcome}: {result.reason}" if result.reason else str(result.outcome)
    if result.success:
        say(ending)
    else:
        tell(f"btruntime: {ending}")
    for cut in replayed.cuts:
        say(f"cut to the limits of {robot.spec.name}: {cut}")
    if replayed.tracking:
        say(f"{'tracking error':<20} {'mean':>9} {'largest':>9}")
        for joint in replayed.tracking:
            say(f"   {joint.name:<17} {joint.mean:>9.4f} {joint.largest:>9.4f} rad")
        say(f"   {'without grippers':<17} {replayed.tracking_error_rad:>9.4f}")
    if result.gate_counts:
        say("motion gate: " + ", ".join(f"{reason} {count}" for reason, count in result.gate_counts.items()))
    say(f"flight record: {replayed.ran.flight}")
    if replayed.ran.flight_problem is not None:
        tell(f"btruntime: warning: {replayed.ran.flight_problem}")
    if args.json:
        print_json(
            {
                "outcome": result.outcome.value,
                "reason": result.reason,
                "tracking_error_rad": replayed.tracking_error_rad,
                "tracking": {each.name: {"mean": each.mean, "largest": each.largest} for each in replayed.tracking},
                "cut": {
                    each.name: {"share": each.share, "largest": each.largest, "unit": each.unit}
                    for each in replayed.cuts
                },
                "gate": dict(result.gate_counts),
                "flight": str(replayed.ran.flight),
            }
        )
    if replayed.ran.signal_number is not None:
        return 128 + replayed.ran.signal_number
    return 0 if result.success else 1
