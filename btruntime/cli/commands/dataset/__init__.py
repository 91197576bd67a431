"""The episodes of a skill: list, check, import or replay them, or bring back what a crash left behind."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from btruntime.cli.commands.dataset import importing, replay
from btruntime.cli.options import add_json, add_skills_dir, store_of
from btruntime.cli.output import print_json, say, tell

if TYPE_CHECKING:
    from skills.store import SkillEntry


_OWN_MODULES: Mapping[str, Callable[[argparse.Namespace], int]] = {"import": importing.run, "replay": replay.run}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="episodes with length, time and what is wrong with them")
    checking = actions.add_parser("check", help="open and hash every episode, and rebuild the index")
    recovery = actions.add_parser("recover", help="bring back episodes that a crash left unfinished")
    importing.configure(actions.add_parser("import", help="bring in the episodes of another program's dataset"))
    replay.configure(actions.add_parser("replay", help="let a robot repeat an episode, and say how well it followed"))
    for each in (listing, checking, recovery):
        each.add_argument("skill", help="its ID")
        add_skills_dir(each)
        add_json(each)


def run(args: argparse.Namespace) -> int:
    from skills.episodes import list_episodes, recover
    from skills.episodes.index import index_problem

    if args.action in _OWN_MODULES:
        return _OWN_MODULES[args.action](args)
    entry = store_of(args).get(args.skill)
    if args.action == "check":
        return _check(entry, args.json)
    if args.action == "recover":
        found = recover(entry.data_dir)
        for each in found:
            say(str(each))
        say(f"{len(found)} unfinished recordings in {entry.data_dir}")
        return 0
    if (problem := index_problem(entry.data_dir)) is not None:
        tell(f"btruntime: warning: {problem}")
    episodes = list_episodes(entry.data_dir)
    if args.json:
        print_json({"skill": str(entry.id), "episodes": [episode.model_dump(mode="json") for episode in episodes]})
        return 0
    for episode in episodes:
        remark = episode.problem or episode.recovered or (episode.outcome if episode.outcome != "unlabelled" else "")
        say(
            f"{episode.file_name:<20} {episode.length:>5} steps {episode.duration_s:>6.1f} s  "
            f"{episode.start_timestamp or '':<24} {remark}"
        )
    total_s = sum(episode.duration_s for episode in episodes)
    say(f"{len(episodes)} episodes, {total_s:.0f} s, in {entry.data_dir}")
    return 0


def _check(entry: SkillEntry, as_json: bool) -> int:
    """Exit status 1 when an episode is not as it was recorded."""
    from skills.episodes import check_episodes
    from skills.episodes.index import INDEX_NAME, index_problem

    if not entry.data_dir.is_dir():
        say(f"{entry.data_dir} does not exist: no episodes yet")
        episodes = []
    else:
        broken = index_problem(entry.data_dir) is not None
        episodes = check_episodes(entry.data_dir)
        if broken:
            tell(
                f"btruntime: warning: {entry.data_dir / INDEX_NAME} could not be read; it was made again, and the old "
                f"one is kept beside it as {INDEX_NAME}.corrupt-<n>."
            )
    problems = {each.file_name: each.problem for each in episodes if each.problem is not None}
    if as_json:
        print_json({"skill": str(entry.id), "episodes": len(episodes), "problems": problems})
        return 1 if problems else 0
    for problem in problems.values():
        say(problem)
    say(f"{len(episodes)} episodes in {entry.data_dir}, {len(problems)} with a problem; the index is up to date")
    return 1 if problems else 0
