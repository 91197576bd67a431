"""For the tools of py_trees: `py-trees-render btruntime.view.render.create_root -k '{"id": "pick_up_cup"}'`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from btruntime.agent import drawing_builder, target_tree
from skills.store import SkillStore

if TYPE_CHECKING:
    from py_trees.behaviour import Behaviour


def create_root(id: str, skills_dir: str | None = None, agents_dir: str | None = None) -> Behaviour:
    """The tree of an agent or of a skill for looking at: no robot, no policy is loaded.

    Args:
        id: of an agent ("tidy_up", "agent/tidy_up") or a skill ("pick_up_cup", "local/pick-up-cup").
        skills_dir: where the skills are; the default directory if None.
        agents_dir: where the agents are; the default directory if None.

    Raises:
        TargetError: the id does not name one thing; the error lists what there is.
        BtruntimeError: what it names is broken.
    """
    skills = Path(skills_dir) if skills_dir else None
    known = [entry.id for entry in SkillStore(skills).scan()]
    return target_tree(id, known, Path(agents_dir) if agents_dir else None, drawing_builder(skills))
