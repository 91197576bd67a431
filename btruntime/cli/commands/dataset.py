"""The episodes of a skill: list them, or bring back what a crash left behind."""

from __future__ import annotations

import argparse

from btruntime.cli.options import add_json, add_skills_dir, print_json, store_of


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="episodes with length, time and what is wrong with them")
    recovery = actions.add_parser("recover", help="bring back episodes that a crash left unfinished")
    for each in (listing, recovery):
        each.add_argument("skill", help="its ID")
        add_skills_dir(each)
        add_json(each)


def run(args: argparse.Namespace) -> int:
    from skills.episodes import list_episodes, recover

    entry = store_of(args).get(args.skill)
    if args.action == "recover":
        found = recover(entry.data_dir)
        for each in found:
            print(each)
        print(f"{len(found)} unfinished recordings in {entry.data_dir}")
        return 0
    episodes = list_episodes(entry.data_dir)
    if args.json:
        print_json({"skill": str(entry.id), "episodes": [episode.model_dump(mode="json") for episode in episodes]})
        return 0
    for episode in episodes:
        remark = episode.problem or episode.recovered or (episode.outcome if episode.outcome != "unlabelled" else "")
        print(
            f"{episode.file_name:<20} {episode.length:>5} steps {episode.duration_s:>6.1f} s  "
            f"{episode.start_timestamp or '':<24} {remark}"
        )
    total_s = sum(episode.duration_s for episode in episodes)
    print(f"{len(episodes)} episodes, {total_s:.0f} s, in {entry.data_dir}")
    return 0
