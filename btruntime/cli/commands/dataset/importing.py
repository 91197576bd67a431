"""`btruntime dataset import`."""

from __future__ import annotations

import argparse
from pathlib import Path

from btruntime.cli.options import add_json, add_skills_dir, numbers, store_of
from btruntime.cli.output import print_json, say, tell

_SHOWN = 6


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Bring the episodes of another program's dataset into a skill: LeRobot v2.x directories, and the reference "
        "robot's skills. Videos are copied unchanged. What is there already is left as it is, so a stopped import "
        "goes on with the same command."
    )
    parser.add_argument("dataset", type=Path, help="its directory")
    parser.add_argument("--skill", required=True, metavar="ID", help="the skill to add to; a new name makes a new one")
    parser.add_argument("--episodes", type=numbers, metavar="N,N,...", help="only these (default: all)")
    parser.add_argument(
        "--map", type=Path, metavar="FILE", help="JSON or YAML that says what the dataset does not: names, units"
    )
    add_skills_dir(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from btruntime.cli.progress import progress_bar
    from btruntime.dataset.formats import open_source
    from btruntime.dataset.formats.mapping import load_mapping
    from btruntime.dataset.importing import import_dataset
    from btruntime.session import stopping_on_signals

    source = open_source(args.dataset, load_mapping(args.map) if args.map else None)
    tell(f"{source.name}: {source.format}, {len(source.present)} episodes")
    stop: list[str] = []
    count = sum(args.episodes is None or number in args.episodes for number in source.present)
    with stopping_on_signals(stop.append) as stopped, progress_bar("importing", count) as bar:
        report = import_dataset(
            source,
            store_of(args),
            args.skill,
            numbers=args.episodes,
            progress=lambda number, note: bar.advance(f"episode {number}: {note}"),
            cancelled=lambda: bool(stop),
        )
    for note in report.notes:
        tell(f"note: {note}")
    for sentence in report.refused.values():
        tell(f"btruntime: left out: {sentence}")
    if report.missing:
        listed = ", ".join(str(number) for number in report.missing)
        tell(f"{len(report.missing)} of {len(report.missing) + len(source.present)} episodes are not there: {listed}")
        for sentence in list(report.missing.values())[:1]:
            tell(f"for example: {sentence}")
    before = sum(episode.before for episode in report.episodes)
    again = f", {before} of them from before" if before else ""
    where = "imported" if report.skill is None else f"in {report.skill.data_dir}"
    say(f"{len(report.episodes)} episodes{again} are {where}")
    if report.cancelled:
        tell("btruntime: stopped; the same command goes on with the rest.")
    if args.json:
        print_json(
            {
                "skill": None if report.skill is None else str(report.skill.id),
                "format": source.format,
                "episodes": [
                    {"number": each.number, "file": each.path.name, "steps": each.steps} for each in report.episodes
                ],
                "missing": list(report.missing),
                "refused": {str(number): why for number, why in report.refused.items()},
                "notes": list(report.notes),
            }
        )
    if stopped.number is not None:
        return 128 + stopped.number
    return 1 if report.refused else 0
