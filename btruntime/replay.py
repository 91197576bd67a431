"""A robot repeats a recorded episode, and how well it followed is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from py_trees.behaviour import Behaviour

from btruntime.runtime import PolicyPool, Runtime
from btruntime.session import NotRunnableError, Places, Ran, run_tree
from hal.clock import Clock
from hal.robot import Robot
from skills.behaviours import RecordingSlot, ReplayLoop
from skills.behaviours.load import Cut
from skills.behaviours.replay import JointTracking
from skills.check import check_replay
from skills.kinds.replay import replay_tree
from skills.metadata import ReplayExecution


@dataclass(frozen=True, slots=True)
class Replayed:
    """An episode that a robot repeated.

    Attributes:
        ran: how the run ended.
        tracking_error_rad: mean over time and joints, grippers excepted; None where the replay did not begin.
        tracking: for each joint.
        cuts: what the robot's limits cut off first.
    """

    ran: Ran
    tracking_error_rad: float | None
    tracking: tuple[JointTracking, ...]
    cuts: tuple[Cut, ...]


def replay_episode(
    episode: Path,
    robot: Robot,
    clock: Clock,
    pool: PolicyPool,
    places: Places,
    *,
    clip: bool = False,
    speed: float = 1.0,
    show: bool = True,
) -> Replayed:
    """Let a robot repeat an episode by its own timestamps.

    Args:
        episode: the file.
        robot: not started; it is closed, at rest, when this returns or raises.
        clock: what the run is paced by.
        pool: of policies; none is used.
        places: where the flight record goes.
        clip: cut what is beyond the robot's limits before it is commanded.
        speed: time factor, 0.1 to 2.
        show: draw the live tree in the terminal.

    Raises:
        NotRunnableError: the episode does not fit the robot.
        BtruntimeError: the episode cannot be read, or the flight record cannot be begun.
    """
    execution = ReplayExecution(speed=speed)
    slot = RecordingSlot()
    loops: list[ReplayLoop] = []

    def make(runtime: Runtime) -> Behaviour:
        spec = runtime.robot.spec
        if problems := check_replay(episode, spec, clip=clip):
            clippable = not clip and not check_replay(episode, spec, clip=True)
            remedy = " With --clip, what is beyond the limits is cut off." if clippable else ""
            raise NotRunnableError(f"{episode.name} cannot be replayed on {spec.name}: {' '.join(problems)}{remedy}")
        root = replay_tree(runtime.context, episode.stem, episode, execution, slot, clip=clip)
        loops.extend(node for node in root.iterate() if isinstance(node, ReplayLoop))
        return root

    ran = run_tree(episode.stem, make, robot, clock, pool, places, show=show, header={"episode": str(episode)})
    began = bool(loops and loops[0].tracking)
    return Replayed(ran, loops[0].tracking_error_rad if began else None, loops[0].tracking if began else (), slot.cuts)
