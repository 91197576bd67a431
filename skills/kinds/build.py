"""From a skill on disk to a subtree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from py_trees.behaviour import Behaviour

from foundation.errors import BtruntimeError
from skills.context import DrawingContext, SkillContext
from skills.kinds import learned, poses, replay
from skills.store import SkillEntry, SkillStore

Builder = Callable[[SkillEntry, SkillContext], Behaviour]
BUILDERS: Mapping[str, Builder] = MappingProxyType(
    {"learned": learned.build, "replay": replay.build, "poses": poses.build}
)


class SkillNotRunnableError(BtruntimeError):
    """The skill is there and cannot be run: broken, in training, or of a kind without a builder."""


def build(entry: SkillEntry, ctx: SkillContext) -> Behaviour:
    """A fresh subtree for a skill.

    Raises:
        SkillNotRunnableError: it cannot be run; the reason says what to do.
    """
    if entry.problem is not None:
        raise SkillNotRunnableError(f"{entry.id} is broken: {entry.problem}")
    if entry.in_training:
        raise SkillNotRunnableError(
            f'{entry.id} has no usable checkpoint yet. Train it with "btruntime train run {entry.id.name}".'
        )
    return _builder(entry)(entry, ctx)


def build_for_drawing(store: SkillStore, query: str) -> Behaviour:
    """A subtree that can be drawn and not ticked, also of a skill that is still in training.

    Raises:
        UnknownSkillError, AmbiguousSkillError: the ID does not name one skill.
        SkillNotRunnableError: its files are broken.
    """
    entry = store.get(query)
    if entry.problem is not None:
        raise SkillNotRunnableError(f"{entry.id} is broken: {entry.problem}")
    return _builder(entry)(entry, DrawingContext())


def _builder(entry: SkillEntry) -> Builder:
    builder = BUILDERS.get(entry.kind or "")
    if builder is None:
        raise SkillNotRunnableError(f"{entry.id} is a {entry.kind} skill; those that run are {', '.join(BUILDERS)}.")
    return builder
