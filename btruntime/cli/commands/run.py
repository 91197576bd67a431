"""Run a skill or an agent on a robot, drawing its tree, and keep a flight record.

Ctrl-C stops the robot at once: base at zero, arm holding. Why a run failed is said on standard error. Exit status: 0
when done, 1 when it failed, 128 + N when signal N stopped it.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from btruntime.cli.options import add_agents_dir, add_json, add_robot, add_skills_dir
from btruntime.cli.output import print_json, say, tell

if TYPE_CHECKING:
    from btruntime.comparison import ComparisonReport


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="of a skill or an agent")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="for policies")
    parser.add_argument(
        "--engine",
        default="eager",
        metavar="NAME",
        help="what computes policies: eager (default), the network itself in float32; auto (or $BTRUNTIME_ENGINE), the "
        "fastest that proves on loading that it computes the same within a bound; or the name of one",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="on the virtual clock, as fast as the machine can: simulated robots, recordings",
    )
    parser.add_argument("--quiet", action="store_true", help="do not draw the tree")
    parser.add_argument("--flights-dir", type=Path, metavar="DIR", help="where the flight record goes")
    add_robot(parser)
    add_skills_dir(parser)
    add_agents_dir(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from btruntime.comparison import as_json
    from btruntime.runtime import PolicyPool, inline_policies, process_policies
    from btruntime.session import Places, run_by_id
    from foundation.errors import BtruntimeError
    from hal.clock import MonotonicClock, VirtualClock
    from hal.connect import connect

    if args.fast and not args.robot.startswith(("sim:", "playback:")):
        raise BtruntimeError(f"--fast is for simulated robots and recordings; {args.robot} lives in real time.")
    clock = VirtualClock() if args.fast else MonotonicClock()
    pool = PolicyPool(inline_policies(latency_s=0.04) if args.fast else process_policies(args.device, args.engine))
    places = Places(args.skills_dir, args.agents_dir, args.flights_dir)
    robot = connect(args.robot, clock)
    try:
        ran = run_by_id(args.id, robot, clock, pool, places, show=not args.quiet, header={"address": args.robot})
        reports = pool.reports()
    finally:
        pool.close()
    result, timing = ran.result, ran.result.timing
    ending = f"{result.outcome}: {result.reason}" if result.reason else str(result.outcome)
    if result.success:
        say(ending)
    else:
        tell(f"btruntime: {ending}")
    say(
        f"{result.ticks} ticks, period {timing.period_ms_mean:.3f} ms, lateness p50 {timing.lateness_ms_p50:.2f} "
        f"p99 {timing.lateness_ms_p99:.2f} max {timing.lateness_ms_max:.2f} ms, {timing.late_ticks} late"
    )
    if result.gate_counts:
        say("motion gate: " + ", ".join(f"{reason} {count}" for reason, count in result.gate_counts.items()))
    for report in reports:
        say(f"policy: {report}")
    if ran.comparison is not None:
        say_comparison(ran.comparison)
    say(f"flight record: {ran.flight}")
    if ran.flight_problem is not None:
        tell(f"btruntime: warning: {ran.flight_problem}")
    if args.json:
        print_json(
            {
                "outcome": result.outcome.value,
                "reason": result.reason,
                "duration_s": result.duration_s,
                "ticks": result.ticks,
                "gate": dict(result.gate_counts),
                "flight": str(ran.flight),
                "policies": reports,
                "comparison": None if ran.comparison is None else as_json(ran.comparison),
                **asdict(timing),
            }
        )
    if ran.signal_number is not None:
        return 128 + ran.signal_number
    return 0 if result.success else 1


def say_comparison(report: ComparisonReport) -> None:
    """What was commanded beside what the person did, as a table."""
    say(f"{'commanded beside demonstrated':<32} {'difference':>12} {'deviation':>12}")
    for dim in report.dims:
        say(f"   {dim.name:<29} {dim.error:>12.4f} {dim.std:>12.4f} {dim.unit}")
    say(
        f"   in deviations, over {report.ticks} ticks: {report.l1:.3f}; commanding the mean action all the time: "
        f"{report.mean_action_l1:.3f}"
    )
