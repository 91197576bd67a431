"""The demo with several seeds: success, yardsticks and loop timing of each, all of them.

`--quick` shows in under a minute that the path works; its policy is trained too little to succeed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from btruntime import __version__
from btruntime.cli.progress import Progress, progress_bar
from btruntime.demo import DemoConfig, run_demo


class Quiet:
    """Shows steps and progress, and leaves the rest out."""

    def section(self, title: str) -> None:
        print(title, file=sys.stderr)

    def say(self, text: str) -> None:
        pass

    def bar(self, title: str, total: float) -> AbstractContextManager[Progress]:
        return progress_bar(title, total)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--full", action="store_true", help="the demo's --full")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    args = parser.parse_args()
    rows = [figures(seed, args) for seed in range(1 if args.quick else args.seeds)]
    print("| seed | skill | blank images | blind leader | period ms | lateness p50 / p99 / max ms | late | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        held = round(row["success_rate"] * row["scenes"])
        low, high = row["success_interval"]
        print(
            f"| {row['seed']} | {held} of {row['scenes']} ({low:.0%} to {high:.0%}) | {row['blank_rate']:.0%} "
            f"| {row['blind_rate']:.0%} | {row['period_ms_mean']:.3f} | {row['lateness_ms_p50']:.2f} / "
            f"{row['lateness_ms_p99']:.2f} / {row['lateness_ms_max']:.2f} | {row['late_ticks']} of {row['ticks']} "
            f"| {sum(row['took_s'].values()) / 60:.1f} |"
        )
    if args.json:
        median = statistics.median(row["success_rate"] for row in rows)
        print(json.dumps({"runs": rows, "success_rate_median": median}))
    return 0


def figures(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One demo, in a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="btruntime-demo-") as place:
        directory = Path(place) / "demo"
        config = DemoConfig.full(directory, seed) if args.full else DemoConfig(directory, seed)
        if args.quick:
            options = ("max_steps=60", "checkpoints=1")
            config = DemoConfig(directory, seed, demonstrations=12, scenes=4, needed=0, train_options=options)
        return run_demo(config, Quiet(), software=f"btruntime {__version__}").figures()


if __name__ == "__main__":
    sys.exit(main())
