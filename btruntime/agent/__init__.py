"""Agents: the class a person derives from, the tree it becomes, and the files it is found in."""

from btruntime.agent.base import Agent
from btruntime.agent.discovery import (
    AgentEntry,
    AgentFileError,
    AgentFiles,
    UnknownAgentError,
    default_agents_dir,
    discover,
    find,
)
from btruntime.agent.target import TargetError, find_target, target_tree
from btruntime.agent.tree import (
    AgentTreeError,
    BuildSkill,
    SkillNotListedError,
    SkillSet,
    compose,
    drawing_builder,
    listed_skills,
    name_uniquely,
)

__all__ = [
    "Agent",
    "AgentEntry",
    "AgentFileError",
    "AgentFiles",
    "AgentTreeError",
    "BuildSkill",
    "SkillNotListedError",
    "SkillSet",
    "TargetError",
    "UnknownAgentError",
    "compose",
    "default_agents_dir",
    "discover",
    "drawing_builder",
    "find",
    "find_target",
    "listed_skills",
    "name_uniquely",
    "target_tree",
]
