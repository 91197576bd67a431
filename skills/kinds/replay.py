"""A replay skill: read the episode, move to where it began, replay it by its own timestamps."""

from __future__ import annotations

from pathlib import Path

from py_trees.behaviour import Behaviour
from py_trees.composites import Sequence

from foundation.files import confined
from skills.behaviours import LoadEpisode, MoveTo, RecordingSlot, ReplayLoop, SensorsReady
from skills.context import SkillContext
from skills.kinds.poses import move_to
from skills.metadata import ReplayExecution
from skills.store import SkillEntry


def build(entry: SkillEntry, ctx: SkillContext) -> Behaviour:
    """A fresh subtree for a replay skill. Without a start pose it begins where the recording began."""
    assert entry.metadata is not None
    assert isinstance(entry.metadata.execution, ReplayExecution)
    execution = entry.metadata.execution
    episode = confined(
        entry.path, execution.replay_file, what=f"{entry.path.name}/metadata.json: execution.replay_file"
    )
    return replay_tree(ctx, entry.id.name, episode, execution, RecordingSlot())


def replay_tree(
    ctx: SkillContext,
    name: str,
    episode: Path,
    execution: ReplayExecution,
    slot: RecordingSlot,
    *,
    clip: bool = False,
) -> Sequence:
    """A tree that repeats an episode: read it, move to where it begins, replay it.

    Args:
        ctx: the running skill's context.
        name: of the root.
        episode: the file.
        execution: speed and poses.
        slot: where the recording is left once it was read.
        clip: cut what is beyond the robot's limits before it is commanded.
    """
    root = Sequence(name=name, memory=True)
    root.add_child(LoadEpisode(ctx, slot, episode, clip_at=execution.speed if clip else None))
    root.add_child(SensorsReady(ctx, ()))
    if execution.start_pose:
        root.add_child(move_to(ctx, execution, execution.start_pose, execution.start_pose_time, "start_pose"))
    else:
        root.add_child(
            MoveTo(
                ctx,
                lambda: slot.first_pose(ctx.spec.joint_names),
                duration_s=execution.start_pose_time / execution.speed,
                tolerance_rad=execution.settle_tolerance_rad,
                name="first_pose",
            )
        )
    root.add_child(ReplayLoop(ctx, slot, speed=execution.speed, frequency_hz=execution.replay_frequency))
    if execution.end_pose:
        root.add_child(move_to(ctx, execution, execution.end_pose, execution.end_pose_time, "end_pose"))
    return root
