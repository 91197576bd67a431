"""A simulated robot in a scene, with its motion gate, on a virtual clock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hal.clock import VirtualClock
from hal.motion import MotionGate
from hal.sim.robot import SimRobot
from hal.sim.scene import SceneSpec
from hal.types import Array, RobotSpec


@dataclass(frozen=True, slots=True)
class Stage:
    """What moves, through what, and by which clock."""

    clock: VirtualClock
    robot: SimRobot
    gate: MotionGate


@contextmanager
def staged(spec: RobotSpec, scene: SceneSpec, qpos: Array, *, seed: int) -> Iterator[Stage]:
    """A running robot and gate while the block runs, at rest and closed after it.

    Args:
        spec: of the robot.
        scene: what lies on the table.
        qpos: (J,) where the arm begins.
        seed: of the sensors' noise.
    """
    clock = VirtualClock()
    with ExitStack() as stack:
        robot = SimRobot(spec, clock, seed=seed)
        stack.callback(robot.close)
        robot.reset(scene, qpos)
        gate = MotionGate(robot, clock)
        stack.callback(gate.close)
        robot.start()
        gate.start()
        yield Stage(clock, robot, gate)
