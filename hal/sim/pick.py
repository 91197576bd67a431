"""The pick task: a cube somewhere in front of the arm is to be lifted off the table."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hal.sim import arm
from hal.sim.robot import SimRobot
from hal.sim.scene import Box, Look, SceneSpec
from hal.teleop.scripted import Waypoint, WaypointLeader
from hal.types import Array

CUBE = "cube"
_DOWN_RAD = np.pi / 2
_HOVER_M, _GRASP_M = 0.085, 0.014
_OPEN_RAD, _SQUEEZE_RAD = 0.6, 0.15


@dataclass(frozen=True, slots=True)
class PickTask:
    """Scenes, the scripted leader and the judge of one task. All lengths in metres.

    Attributes:
        edge_m: the cube's edge.
        radius_m: nearest and furthest distance of the cube from the arm's vertical axis.
        bearing_rad: greatest angle to either side.
        lifted_m: how far above the table its centre must have come, still held, at the end.
        sloppiness_m: how far beside the cube the leader aims at first, before it corrects itself, as people do.
            Without it the arm's own pose would tell where the cube is, and a policy need not look.
    """

    edge_m: float = 0.03
    radius_m: tuple[float, float] = (0.12, 0.225)
    bearing_rad: float = float(np.radians(49.0))
    lifted_m: float = 0.05
    sloppiness_m: float = 0.04

    def scene(self, seed: int) -> SceneSpec:
        """The scene of that seed: where the cube is, its colour, the table's, and the light."""
        rng = np.random.default_rng([seed, 7])
        bearing = rng.uniform(-self.bearing_rad, self.bearing_rad)
        place = self._place(rng.uniform(*self.radius_m), bearing)
        colour = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.75, 1.0), rng.uniform(0.6, 0.95))
        table = np.array([0.72, 0.68, 0.62]) * rng.uniform(0.75, 1.1) + rng.uniform(-0.03, 0.03, size=3)
        light = (rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7), 1.0)
        cube = Box(
            CUBE,
            (self.edge_m,) * 3,
            (float(place[0]), float(place[1]), self.edge_m / 2),
            float(bearing + rng.uniform(-0.15, 0.15)),
            colour,
        )
        look = Look(
            table=(float(table[0]), float(table[1]), float(table[2])),
            light_direction=light,
            ambient=float(rng.uniform(0.45, 0.65)),
            diffuse=float(rng.uniform(0.35, 0.55)),
        )
        return SceneSpec((cube,), look)

    def start_pose(self) -> Array:
        """(6,) where each demonstration begins: hand open, above the middle of the workspace."""
        return self._pose(self._place(0.15, 0.0), 0.10, _OPEN_RAD)

    def perturbed_start(self, seed: int) -> Array:
        """(6,) where the demonstration of that seed begins: anywhere above the workspace, as people begin."""
        rng = np.random.default_rng([seed, 11])
        place = self._place(rng.uniform(0.12, 0.19), rng.uniform(-0.7, 0.7) * self.bearing_rad)
        pose = self._pose(place, rng.uniform(0.075, 0.115), _OPEN_RAD + rng.uniform(-0.15, 0.15))
        pose[4] += rng.uniform(-0.1, 0.1)
        return pose

    def leader(self, robot: SimRobot, *, seed: int = 0, blind: bool = False) -> WaypointLeader:
        """The scripted leader: it looks the cube's place up in the simulator.

        Args:
            robot: where the cube is looked up when the leader starts.
            seed: of its first, sloppy approach.
            blind: do not look; go where the cube is on average. The yardstick that must fail.
        """
        rng = np.random.default_rng([seed, 13])

        def plan(_: Array) -> Sequence[Waypoint]:
            middle = self._place(sum(self.radius_m) / 2, 0.0)
            place = middle if blind else np.array(robot.scene.box(CUBE).centre[:2])
            hover, grasp = self._pose(place, _HOVER_M, _OPEN_RAD), self._pose(place, _GRASP_M, _OPEN_RAD)
            closed = np.append(grasp[:5], _SQUEEZE_RAD)
            lifted = np.append(hover[:5], _SQUEEZE_RAD)
            return [
                Waypoint(self._near(place, rng), 1.0),
                Waypoint(hover, 0.6),
                Waypoint(grasp, 0.8),
                Waypoint(closed, 0.5),
                Waypoint(lifted, 0.8),
                Waypoint(lifted, 0.4),
            ]

        return WaypointLeader(plan, with_base=True)

    def succeeded(self, robot: SimRobot) -> bool:
        """The cube is held, well above the table, now."""
        scene = robot.scene
        return scene.held == CUBE and scene.box(CUBE).centre[2] >= self.lifted_m

    def _near(self, place: Array, rng: np.random.Generator) -> Array:
        """(6,) a pose above somewhere near `place`, within reach."""
        away, angle = self.sloppiness_m * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        from_axis = place + away * np.array([np.cos(angle), np.sin(angle)]) - arm.SHOULDER_YAW[:2]
        radius = float(np.clip(np.hypot(*from_axis), 0.10, 0.235))
        above = self._place(radius, float(np.arctan2(from_axis[1], from_axis[0])))
        return self._pose(above, _HOVER_M - rng.uniform(0.0, 0.02), _OPEN_RAD)

    def _place(self, radius: float, bearing: float) -> Array:
        return np.array(arm.SHOULDER_YAW[:2] + radius * np.array([np.cos(bearing), np.sin(bearing)]))

    def _pose(self, place: Array, height: float, gripper: float) -> Array:
        return np.append(arm.inverse(np.append(place, height), pitch_rad=_DOWN_RAD), gripper)
