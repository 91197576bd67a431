"""What an ID that a person types means: an agent or a skill, and its tree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from btruntime.agent.discovery import AgentEntry, UnknownAgentError, discover, find, named
from btruntime.agent.tree import BuildSkill, compose, name_uniquely
from foundation.errors import BtruntimeError
from skills.ids import AmbiguousSkillError, SkillId, UnknownSkillError, resolve

if TYPE_CHECKING:
    from py_trees.behaviour import Behaviour

_AGENT = "agent/"


class TargetError(BtruntimeError):
    """An ID names no agent and no skill, or one of each."""


def target_tree(query: str, skills: Sequence[SkillId], agents_dir: Path | None, build: BuildSkill) -> Behaviour:
    """The tree of the agent or the skill that an ID names.

    Args:
        query: of an agent ("tidy_up", "agent/tidy_up") or a skill ("pick_up_cup", "local/pick-up-cup").
        skills: those there are, broken ones too.
        agents_dir: where the agents are; the default directory if None. A whole skill ID imports none of them.
        build: makes a fresh subtree of a skill.

    Raises:
        TargetError: the ID does not name one thing; the error lists what there is.
        BtruntimeError: what it names is broken.
    """
    found = find_target(query, skills, agents_dir)
    if isinstance(found, AgentEntry):
        return compose(found.create(), build)
    root = build(str(found))
    name_uniquely(root)
    return root


def find_target(query: str, skills: Sequence[SkillId], agents_dir: Path | None) -> AgentEntry | SkillId:
    """What the ID names, by name alone: a broken agent or skill takes its name, too. See `target_tree`."""
    if query.startswith(_AGENT):
        return find(query.removeprefix(_AGENT), discover(agents_dir))
    if "/" in query:
        return resolve(query, skills)
    agents = discover(agents_dir)
    unknown: UnknownSkillError | None = None
    skill: SkillId | AmbiguousSkillError | None = None
    try:
        skill = resolve(query, skills)
    except UnknownSkillError as error:
        unknown = error
    except AmbiguousSkillError as error:
        skill = error
    if skill is not None and named(query, agents):
        raise TargetError(f"{query!r} is an agent and a skill; write {_AGENT}{query}, or the skill's whole ID.")
    if isinstance(skill, AmbiguousSkillError):
        raise skill
    if skill is not None:
        return skill
    try:
        return find(query, agents)
    except UnknownAgentError as error:
        raise TargetError(f"{error}\n{unknown}") from unknown
