"""List skills, show one with its metadata, or make a new one."""

from __future__ import annotations

import argparse

from btruntime.cli.options import add_json, add_skills_dir, store_of
from btruntime.cli.output import print_json, say, say_lines
from skills.store import SkillEntry


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="all skills (the default)")
    show = actions.add_parser("show", help="one skill, with its whole metadata.json")
    show.add_argument("skill", help="its ID, for example pick-up-cup or builtin/wave")
    new = actions.add_parser("new", help="make a skill to record demonstrations for")
    new.add_argument("name", help='its display name, for example "Pick up cup"')
    new.add_argument("--type", choices=("learned", "replay", "poses"), default="learned")
    for each in (parser, listing, show, new):
        add_skills_dir(each)
        add_json(each)


def run(args: argparse.Namespace) -> int:
    store = store_of(args)
    if args.action == "show":
        return _show(store.get(args.skill), args.json)
    if args.action == "new":
        entry = store.create(args.name, args.type)
        if args.json:
            print_json(_summary(entry))
        else:
            say(f"{entry.id} is in {entry.path}")
        return 0
    entries = store.scan()
    if args.json:
        print_json({"skills": [_summary(entry) for entry in entries]})
        return 0
    for entry in entries:
        say(f"{entry.id!s:<32} {entry.kind or '?':<8} {entry.episode_count:>4} episodes  {_state(entry)}")
    if not entries:
        say('No skills yet. Make one with: btruntime skills new "Pick up cup"')
    return 0


def _show(entry: SkillEntry, as_json: bool) -> int:
    metadata = None if entry.metadata is None else entry.metadata.model_dump(mode="json", exclude_unset=True)
    if as_json:
        print_json({**_summary(entry), "metadata": metadata})
        return 0
    say(f"{entry.id}  ({_state(entry)})")
    say(str(entry.path))
    say(f"{entry.episode_count} episodes")
    if metadata is not None:
        import json

        say_lines(json.dumps(metadata, indent=4))
    return 0


def _state(entry: SkillEntry) -> str:
    if entry.problem is not None:
        return f"broken: {entry.problem}"
    return "in training" if entry.in_training else "ready"


def _summary(entry: SkillEntry) -> dict[str, object]:
    return {
        "id": str(entry.id),
        "name": entry.metadata.name if entry.metadata is not None else entry.id.name,
        "type": entry.kind,
        "episodes": entry.episode_count,
        "state": "broken" if entry.problem is not None else _state(entry),
        "problem": entry.problem,
        "path": str(entry.path),
    }
