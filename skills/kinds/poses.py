"""A poses skill: a list of joint poses, one after the other."""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np
from py_trees.behaviour import Behaviour
from py_trees.composites import Sequence

from skills.behaviours import MoveTo, SensorsReady
from skills.context import SkillContext
from skills.metadata import Execution, PosesExecution
from skills.store import SkillEntry


def build(entry: SkillEntry, ctx: SkillContext) -> Behaviour:
    """A fresh subtree for a poses skill."""
    assert entry.metadata is not None
    assert isinstance(entry.metadata.execution, PosesExecution)
    execution = entry.metadata.execution
    root = Sequence(name=entry.id.name, memory=True)
    root.add_child(SensorsReady(ctx, ()))
    for number, pose in enumerate(execution.poses, start=1):
        root.add_child(move_to(ctx, execution, pose, execution.pose_duration_s, f"pose {number}"))
    return root


def move_to(ctx: SkillContext, execution: Execution, pose: Items[float], duration_s: float, name: str) -> MoveTo:
    """A move with the skill's own speed and tolerance."""
    return MoveTo(
        ctx,
        np.asarray(pose, dtype=np.float64),
        duration_s=duration_s / execution.speed,
        tolerance_rad=execution.settle_tolerance_rad,
        name=name,
    )
