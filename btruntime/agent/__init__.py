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
    "UnknownAgentError",
    "compose",
    "default_agents_dir",
    "discover",
    "drawing_builder",
    "find",
    "listed_skills",
    "name_uniquely",
]
