"""`Agent`: what a person writes to have skills composed into one tree.

Importing this module imports no py_trees: `from btruntime import Agent` stays instant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py_trees.behaviour import Behaviour

    from btruntime.agent.tree import BuildSkill


class Agent(ABC):
    """Derive from this class in a file under `~/agents/`; the constructor takes no arguments.

    `id` and `display_name` may be properties or plain class attributes.
    """

    @property
    @abstractmethod
    def id(self) -> str:
        """What the agent is called by commands: letters, digits, `-`, `_` and `.`; `-` and `_` are equal."""

    @property
    @abstractmethod
    def display_name(self) -> str:
        """What a person sees; free text."""

    @abstractmethod
    def get_skills(self) -> list[str]:
        """Ids of the skills that the agent uses, in the order in which they run when there is no brain."""

    @abstractmethod
    def get_prompt(self) -> str:
        """What a language model that picks the skills is told; may be empty."""

    @property
    def display_icon(self) -> str | None:
        """Path of a 32x32 picture, relative to the directory of the agent's file."""
        return None

    def get_inputs(self) -> list[str]:
        """What the agent listens to besides the robot's own sensors, for example "micro"."""
        return []

    def uses_gaze(self) -> bool:
        """Whether the head should follow the person that the agent talks to."""
        return False

    def build_tree(self, skills: Mapping[str, Behaviour]) -> Behaviour:
        """The agent's tree, made anew at each call. Override it for retries, fallbacks and conditions.

        Args:
            skills: `skills["pick_up_cup"]` is a fresh subtree each time it is asked for (a py_trees node has one
                parent), so asking twice runs the skill at two places. Only the listed skills are there.

        Returns:
            The root of a tree without a parent. The default runs the skills in the order listed.
        """
        from py_trees.composites import Sequence

        from btruntime.agent.tree import AgentTreeError

        listed = self.get_skills()
        if not listed:
            raise AgentTreeError(f"agent {self.id}: get_skills() lists nothing, so there is nothing to run.")
        return Sequence(self.display_name, memory=True, children=[skills[each] for each in listed])

    def create_root(self, build: BuildSkill | None = None) -> Behaviour:
        """The agent's tree for looking at, without a robot: `py-trees-render module.Class.create_root` calls this.

        Args:
            build: makes a skill's subtree; by default from the skills in the default directory.
        """
        from btruntime.agent.tree import compose, drawing_builder

        return compose(self, build or drawing_builder())
