"""List the agents that were found, with what is wrong with those that cannot be used."""

from __future__ import annotations

import argparse

from btruntime.agent import discover
from btruntime.cli.options import add_agents_dir, add_json
from btruntime.cli.output import print_json, say


def configure(parser: argparse.ArgumentParser) -> None:
    add_agents_dir(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    entries = discover(args.agents_dir)
    if args.json:
        found = [
            {"id": e.id, "display_name": e.display_name, "path": str(e.path), "problem": e.problem} for e in entries
        ]
        print_json({"agents": found})
        return 0
    for entry in entries:
        say(f"{entry.id:<24} {entry.display_name:<24} {entry.problem or entry.path}")
    if not entries:
        say("No agents yet: an agent is a Python file with a class that derives from btruntime.Agent.")
    return 0
