"""A learned skill: load the policy, wait for sensors, move to the start pose, run the loop, move to the end pose."""

from __future__ import annotations

from py_trees.behaviour import Behaviour
from py_trees.composites import Sequence

from foundation.files import confined
from policies.manifest import read_run
from skills.behaviours import LoadPolicy, PolicyLoop, PolicySlot, SensorsReady
from skills.behaviours.policy import LoopLimits
from skills.context import SkillContext
from skills.kinds.poses import move_to
from skills.metadata import LearnedExecution
from skills.store import SkillEntry


def build(entry: SkillEntry, ctx: SkillContext) -> Behaviour:
    """A fresh subtree for a learned skill."""
    assert entry.metadata is not None
    assert isinstance(entry.metadata.execution, LearnedExecution)
    execution = entry.metadata.execution
    root = Sequence(name=entry.id.name, memory=True)
    slot = PolicySlot()
    checkpoint = confined(
        entry.path, execution.checkpoint or "checkpoint", what=f"{entry.path.name}/metadata.json: execution.checkpoint"
    )
    cameras = () if entry.in_training else read_run(checkpoint.parent).input_spec.camera_names
    root.add_child(LoadPolicy(ctx, slot, checkpoint))
    root.add_child(SensorsReady(ctx, cameras))
    if execution.start_pose:
        root.add_child(move_to(ctx, execution, execution.start_pose, execution.start_pose_time, "start_pose"))
    limits = LoopLimits(
        duration_s=execution.duration,
        progress_threshold=execution.progress_threshold,
        progress_hold_ticks=execution.progress_hold_ticks,
        stall_s=execution.stall_s,
    )
    root.add_child(
        PolicyLoop(
            ctx,
            slot,
            limits,
            speed=execution.speed,
            n_action_steps=execution.n_action_steps,
            chunk_mode=execution.chunk_mode,
        )
    )
    if execution.end_pose:
        root.add_child(move_to(ctx, execution, execution.end_pose, execution.end_pose_time, "end_pose"))
    return root
