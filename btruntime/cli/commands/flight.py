"""What a run did: its outcome, timing, every change of state, and how long each node ran."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from btruntime.cli.options import add_json
from btruntime.cli.output import print_json, say


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, metavar="FILE", help="a flight record, *.jsonl")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from btruntime.flight import read_flight

    flight = read_flight(args.record)
    summary = flight.summary()
    if args.json:
        print_json({"run": dict(flight.run), "damage": flight.damage, **asdict(summary)})
        return 0
    say(f"{summary.outcome or 'unfinished'}: {summary.reason}" if summary.reason else str(summary.outcome))
    timing = summary.timing
    say(
        f"{summary.duration_s:.2f} s, {summary.ticks} ticks, period {timing.period_ms_mean:.3f} ms, lateness p50 "
        f"{timing.lateness_ms_p50:.2f} p99 {timing.lateness_ms_p99:.2f} max {timing.lateness_ms_max:.2f} ms"
    )
    start_s = flight.ticks[0].time_s if flight.ticks else 0.0
    for change in summary.changes:
        why = f"  {change.feedback}" if change.feedback else ""
        say(f"{change.time_s - start_s:8.2f} s  {change.name}: {change.before} -> {change.after}{why}")
    if flight.damage:
        say(f"damaged: {flight.damage}")
    return 0
