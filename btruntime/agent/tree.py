"""From an agent and its skills to one tree: looking skills up, checking the tree, naming its nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from btruntime.agent.blame import located
from foundation.errors import BtruntimeError
from skills.ids import SkillId

if TYPE_CHECKING:
    from py_trees.behaviour import Behaviour

    from btruntime.agent.base import Agent

BuildSkill = Callable[[str], "Behaviour"]
"""Makes a fresh subtree of the skill with that id each time it is called."""


class AgentTreeError(BtruntimeError):
    """An agent's `build_tree` raised, or gave something that is not a tree."""


class SkillNotListedError(BtruntimeError, KeyError):
    """An agent's `build_tree` asks for a skill that its `get_skills` does not list."""

    def __str__(self) -> str:
        return str(self.args[0])


class SkillSet(Mapping[str, "Behaviour"]):
    """The skills that an agent lists; each look-up builds a fresh subtree.

    Ids follow the rules of the skill store: `-` equals `_`, `innate-os/` equals `builtin/`, and a bare id stands for
    the one skill of that name.
    """

    def __init__(self, listed: Sequence[str], build: BuildSkill):
        self._listed = tuple(dict.fromkeys(listed))
        self._build = build

    def __getitem__(self, skill_id: str) -> Behaviour:
        return self._build(self._resolved(skill_id))

    def __contains__(self, skill_id: object) -> bool:
        return isinstance(skill_id, str) and any(_same_skill(skill_id, each) for each in self._listed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    def _resolved(self, skill_id: str) -> str:
        found = [each for each in self._listed if _same_skill(skill_id, each)]
        if not found:
            raise SkillNotListedError(
                f"skill {skill_id!r} is not among those that get_skills() lists: {', '.join(self._listed) or 'none'}. "
                "List it there, or use one of these."
            )
        if len({_key(each) for each in found}) > 1:
            raise SkillNotListedError(f"skill {skill_id!r} is ambiguous here: {', '.join(found)}. Write one of these.")
        return skill_id if "/" in skill_id else found[0]


def _key(skill_id: str) -> tuple[str, str]:
    """Equal for IDs that name the same skill; the namespace is empty where none is stated."""
    if "/" in skill_id:
        return SkillId.parse(skill_id).key
    return "", SkillId("local", skill_id.strip()).key[1]


def _same_skill(first: str, second: str) -> bool:
    (source, name), (other_source, other_name) = _key(first), _key(second)
    return name == other_name and (source == other_source or not source or not other_source)


def compose(agent: Agent, build: BuildSkill) -> Behaviour:
    """The agent's tree as its `build_tree` makes it, checked, and with names that every py_trees tool can take.

    Args:
        agent: whose tree.
        build: makes a fresh subtree of a skill by its id.

    Raises:
        AgentTreeError: `build_tree` raised or gave no sound tree; the error names the agent.
        BtruntimeError: what `build` raises for a skill that cannot be built.
    """
    skills = SkillSet(listed_skills(agent), build)
    try:
        root = agent.build_tree(skills)
    except BtruntimeError:
        raise
    except Exception as error:
        file = Path(type(agent).build_tree.__code__.co_filename)
        raise AgentTreeError(f"agent {agent.id}: build_tree failed: {located(error, file)}.") from error
    _check_tree(agent.id, root)
    name_uniquely(root)
    return root


def listed_skills(agent: Agent) -> list[str]:
    """What the agent's `get_skills` gives.

    Raises:
        AgentTreeError: that is not a list of skill ids.
    """
    listed: object = agent.get_skills()
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) and each for each in listed):
        raise AgentTreeError(f"agent {agent.id}: get_skills() gave {listed!r:.200}, expected a list of skill ids.")
    return list(listed)


def drawing_builder(skills_dir: Path | None = None) -> BuildSkill:
    """Builds skills for looking at: no robot, no policy is loaded.

    Args:
        skills_dir: where the skills are; the default directory if None.
    """
    from skills.kinds import build_for_drawing
    from skills.store import SkillStore

    store = SkillStore(skills_dir)
    return lambda skill_id: build_for_drawing(store, skill_id)


def name_uniquely(root: Behaviour) -> None:
    """Rename nodes so that each name is unique and without ":", which DOT takes for a port.

    The first node of a name keeps it; later ones become "name (2)" and so on, in pre-order.
    """
    taken: Counter[str] = Counter()
    nodes = list(_preorder(root))
    for node in nodes:
        node.name = node.name.replace(":", "-")
    names = {node.name for node in nodes}
    for node in nodes:
        taken[node.name] += 1
        if taken[node.name] > 1:
            node.name = _free_name(node.name, taken[node.name], names)
            names.add(node.name)


def _free_name(name: str, count: int, names: set[str]) -> str:
    while f"{name} ({count})" in names:
        count += 1
    return f"{name} ({count})"


def _check_tree(agent_id: str, root: object) -> None:
    from py_trees.behaviour import Behaviour

    if not isinstance(root, Behaviour):
        raise AgentTreeError(
            f"agent {agent_id}: build_tree gave {type(root).__name__}, expected a py_trees Behaviour: return the root."
        )
    if root.parent is not None:
        raise AgentTreeError(
            f"agent {agent_id}: build_tree gave {root.name!r}, a child of {root.parent.name!r}: return the root."
        )
    seen: set[int] = set()
    for node in _preorder(root):
        if id(node) in seen:
            raise AgentTreeError(
                f"agent {agent_id}: node {node.name!r} is in the tree twice. A node has one place: "
                'ask for skills["..."] once for each, and make other nodes anew.'
            )
        seen.add(id(node))


def _preorder(node: Behaviour) -> Iterator[Behaviour]:
    yield node
    for child in node.children:
        yield from _preorder(child)
