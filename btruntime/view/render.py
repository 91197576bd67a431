"""For the tools of py_trees: `py-trees-render btruntime.view.render.create_root -k '{"id": "pick_up_cup"}'`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from btruntime.agent import BuildSkill, compose, discover, drawing_builder, find, name_uniquely
from foundation.errors import BtruntimeError

if TYPE_CHECKING:
    from py_trees.behaviour import Behaviour

_AGENT = "agent/"


class NothingToDrawError(BtruntimeError):
    """An id names no agent and no skill, or one of each."""


def create_root(
    id: str, skills_dir: str | None = None, agents_dir: str | None = None, build: BuildSkill | None = None
) -> Behaviour:
    """The tree of an agent or of a skill for looking at: no robot, no policy is loaded.

    Args:
        id: of an agent ("tidy_up", "agent/tidy_up") or a skill ("pick_up_cup", "local/pick-up-cup").
        skills_dir: where the skills are; the default directory if None.
        agents_dir: where the agents are; the default directory if None.
        build: makes a skill's subtree instead of those in `skills_dir`.

    Raises:
        NothingToDrawError: the id does not name one thing; the error lists what there is.
    """
    build = build or drawing_builder(Path(skills_dir) if skills_dir else None)
    found, problems = [], []
    for draw in _drawers(id, agents_dir, build):
        try:
            found.append(draw())
        except BtruntimeError as error:
            problems.append(str(error))
    if len(found) > 1:
        raise NothingToDrawError(f"{id!r} is an agent and a skill; write {_AGENT}{id}, or the skill's whole id.")
    if not found:
        raise NothingToDrawError("\n".join(problems))
    return found[0]


def _drawers(id: str, agents_dir: str | None, build: BuildSkill) -> Iterator[Callable[[], Behaviour]]:
    """What the id may mean. A whole skill id names no agent, and the other way round."""
    if id.startswith(_AGENT) or "/" not in id:
        yield lambda: _agent(id.removeprefix(_AGENT), agents_dir, build)
    if not id.startswith(_AGENT):
        yield lambda: _skill(id, build)


def _agent(agent_id: str, agents_dir: str | None, build: BuildSkill) -> Behaviour:
    entries = discover(Path(agents_dir) if agents_dir else None)
    return compose(find(agent_id, entries).create(), build)


def _skill(skill_id: str, build: BuildSkill) -> Behaviour:
    root = build(skill_id)
    name_uniquely(root)
    return root
