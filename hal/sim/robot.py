"""The simulated robot: lagging joints, a differential base, a table scene, rendered cameras, faults on demand."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hal.clock import Clock, Periodic
from hal.robot import RobotError
from hal.sim import arm
from hal.sim.faults import Fault, Faults
from hal.sim.render import Solid, Viewpoint, looking, render
from hal.sim.scene import (
    FINGER_HALF_HEIGHT,
    FINGER_THICKNESS,
    FINGER_TIP_X,
    Scene,
    SceneSpec,
    grip_angle_rad,
    lowest_point_m,
)
from hal.types import CameraSpec, Frame, Observation, RobotSpec, Setpoint

Array = NDArray[np.float64]

JOINT_LAG_S = 0.05
BASE_LAG_S = 0.08
REST_POSE = (0.0, -0.5, 1.4772235, -0.83784476, 0.0, 0.0)
_HEAD_PITCH_RAD = 0.62
_HEAD_FOV_RAD = 1.25
_WRIST_FOV_RAD = 1.35
_LINK_COLOUR = np.array([0.20, 0.21, 0.24])
_JAW_COLOUR = np.array([0.86, 0.46, 0.16])
_ARM_JOINTS = 6
_T = TypeVar("_T")


class SimRobot:
    """The reference arm and base in simulation, deterministic from its seed.

    Physics steps at the spec's control rate and cameras at their own, as periodic work of the clock. `read` and
    `write` may be called from any thread.
    """

    def __init__(
        self,
        spec: RobotSpec,
        clock: Clock,
        *,
        scene: SceneSpec | None = None,
        seed: int = 0,
        camera_delay_s: float = 0.01,
    ):
        if len(spec.joints) != _ARM_JOINTS or spec.base is None:
            raise RobotError(
                f"the simulated robot has {_ARM_JOINTS} joints and a base; spec {spec.name} has "
                f"{len(spec.joints)} joints and {'a' if spec.base else 'no'} base."
            )
        self.spec = spec
        self.faults = Faults()
        self._clock = clock
        self._camera_delay_s = camera_delay_s
        self._lock = threading.Lock()
        self._tasks: list[Periodic] = []
        self._pending: list[Fault] = []
        self._seed, self._noise_level = seed, 0.0
        self._noise: Mapping[str, NDArray[np.int8]] = {}
        self._rng = np.random.default_rng(seed)
        self.reset(scene or SceneSpec())

    def reset(self, scene: SceneSpec, qpos: Array | None = None) -> None:
        """Put the scene as given, and the arm at `qpos` (6,) (its rest pose if None), both at once and at rest."""
        low, high = self.spec.position_limits
        with self._lock:
            self.scene = Scene(scene)
            self._qpos = np.clip(np.array(REST_POSE if qpos is None else qpos, dtype=np.float64), low, high)
            self._qvel = np.zeros(_ARM_JOINTS)
            self._target = self._qpos.copy()
            self._base_pose, self._base_velocity, self._base_target = np.zeros(3), np.zeros(2), np.zeros(2)
            now_s = self._clock.now()
            self._frames: dict[str, _Line[Frame]] = {c.name: _Line() for c in self.spec.cameras}
            self._states: _Line[_State] = _Line()
            self._states.add(now_s, now_s, _State(now_s, self._qpos.copy(), self._qvel.copy()))
            self._base_s = now_s

    def inject(self, fault: Fault) -> None:
        """Let a fault begin, `fault.at_s` from now; before `start`, from the start on.

        Raises:
            SpecError: it names a camera that the robot does not have.
        """
        if fault.camera is not None:
            self.spec.camera(fault.camera)
        if self._tasks:
            self.faults.inject(fault, self._clock.now())
        else:
            self._pending.append(fault)

    def start(self) -> None:
        """Let physics and cameras run."""
        if self._tasks:
            return
        while self._pending:
            self.faults.inject(self._pending.pop(), self._clock.now())
        period_s = 1.0 / self.spec.control_rate_hz
        self._tasks.append(self._clock.every(period_s, lambda: self._step(period_s), name="sim physics"))
        for camera in self.spec.cameras:
            work = _Shutter(self, camera)
            self._tasks.append(self._clock.every(1.0 / camera.rate_hz, work, name=f"sim {camera.name}"))

    def close(self) -> None:
        """Stop physics and cameras."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def write(self, setpoint: Setpoint) -> None:
        """Take a setpoint; the joints follow with their lag."""
        self._check_answers()
        with self._lock:
            self._target = setpoint.qpos.copy()
            if setpoint.base_velocity is not None:
                self._base_target = setpoint.base_velocity.copy()

    def read(self) -> Observation:
        """The newest of every sensor that has arrived."""
        self._check_answers()
        with self._lock:
            # In here: while this thread waits for the lock, physics may drop what was newest before.
            now_s = self._clock.now()
            state = self._states.newest(now_s)
            assert state is not None  # the one of the reset came at once
            arrived = {name: line.newest(now_s) for name, line in self._frames.items()}
            base, base_s = self._base_velocity.copy(), self._base_s
            odometry = np.concatenate([self._base_pose, base])
        broken = self.faults.find("nan_joints", now_s) is not None
        return Observation(
            stamp_s=now_s,
            qpos=np.full_like(state.qpos, np.nan) if broken else state.qpos,
            qvel=np.full_like(state.qvel, np.nan) if broken else state.qvel,
            joints_s=state.measured_s,
            images=MappingProxyType({name: frame for name, frame in arrived.items() if frame is not None}),
            base_velocity=base,
            odometry=odometry,
            base_s=base_s,
        )

    def capture(self, camera: CameraSpec) -> Frame:
        """A frame of that camera as it would be now."""
        with self._lock:
            pose, base, boxes = arm.forward(self._qpos), self._base_pose.copy(), tuple(self.scene.boxes)
            look, shift = self.scene.spec.look, self._rng.integers(0, 64, size=2)
        rotation, origin = arm.rotation_z(base[2]), np.array([base[0], base[1], 0.0])
        view = self._viewpoint(camera, pose, rotation, origin)
        noise = np.roll(self._noise_of(look.noise)[camera.name], shift, axis=(0, 1)) if look.noise else None
        solids = _robot_solids(pose, rotation, origin) + [
            Solid(arm.rotation_z(b.yaw_rad), np.array(b.centre), np.array(b.size) / 2, np.array(b.colour), shadow=True)
            for b in boxes
        ]
        rgb = render(view, solids, look, noise)
        rgb.setflags(write=False)
        return Frame(rgb, self._clock.now())

    def _noise_of(self, level: float) -> Mapping[str, NDArray[np.int8]]:
        """Noise by camera, drawn when the first picture needs it: a robot that is only asked for its spec has none."""
        if level != self._noise_level:
            self._noise = _noise_bank(self._seed, self.spec.cameras, level)
            self._noise_level = level
        return self._noise

    def _viewpoint(self, camera: CameraSpec, pose: arm.ArmPose, rotation: Array, origin: Array) -> Viewpoint:
        """The first camera of the spec is on the head; every other one is on the wrist."""
        if camera == self.spec.cameras[0]:
            tilt = arm.rotation_y(_HEAD_PITCH_RAD)
            axes = rotation @ looking(tilt[:, 0], tilt[:, 2])
            return Viewpoint(axes, origin + rotation @ arm.HEAD, camera.width, camera.height, _HEAD_FOV_RAD)
        link_rotation, link_origin = pose.links[-1]
        tilt = link_rotation @ arm.rotation_y(arm.WRIST_CAMERA_PITCH_RAD)
        axes = rotation @ looking(tilt[:, 0], tilt[:, 2])
        eye = origin + rotation @ (link_origin + link_rotation @ arm.WRIST_CAMERA)
        return Viewpoint(axes, eye, camera.width, camera.height, _WRIST_FOV_RAD)

    def _check_answers(self) -> None:
        if self.faults.find("gone", self._clock.now()):
            raise RobotError(f"robot {self.spec.name} does not answer. Check its power and its connection.")
        for task in self._tasks:
            if task.error is not None:
                raise RobotError(f"the simulation of robot {self.spec.name} failed: {task.error!r}") from task.error

    def _expose(self, camera: CameraSpec) -> None:
        now_s = self._clock.now()
        if self.faults.find("freeze", now_s, camera.name) or self.faults.find("gone", now_s):
            return
        frame = self.capture(camera)
        late = self.faults.find("late", now_s, camera.name)
        with self._lock:
            arrives_s = now_s + self._camera_delay_s + (late.seconds if late else 0.0)
            self._frames[camera.name].add(now_s, arrives_s, frame)

    def _step(self, dt_s: float) -> None:
        with self._lock:
            self._move_base(dt_s)
            self._move_arm(dt_s)
            now_s = self._base_s = self._clock.now()
            if not self.faults.find("drop_joints", now_s):
                slow = self.faults.find("slow", now_s)
                state = _State(now_s, self._qpos.copy(), self._qvel.copy())
                self._states.add(now_s, now_s + (slow.seconds if slow else 0.0), state)

    def _move_base(self, dt_s: float) -> None:
        self._base_velocity += (self._base_target - self._base_velocity) * min(dt_s / BASE_LAG_S, 1.0)
        linear, angular = self._base_velocity
        heading = self._base_pose[2] + angular * dt_s / 2
        self._base_pose += np.array([linear * np.cos(heading), linear * np.sin(heading), angular]) * dt_s

    def _move_arm(self, dt_s: float) -> None:
        before = self._qpos
        speed = np.clip((self._target - before) / JOINT_LAG_S, -self.spec.speed_limits, self.spec.speed_limits)
        after = np.clip(before + speed * dt_s, *self.spec.position_limits)
        rotation = arm.rotation_z(self._base_pose[2])
        origin = np.array([self._base_pose[0], self._base_pose[1], 0.0])
        pose = arm.forward(after)
        gripper = rotation @ pose.links[-1][0], origin + rotation @ pose.links[-1][1]
        if lowest_point_m(pose, *gripper) < 0.0:
            lowest_m = lowest_point_m(arm.forward(before), *self._gripper_at(before, rotation, origin))
            # The table is in the way: joints that pitch the tool stall, the others go on; where they lower a
            # fingertip as well (the roll, an opening hand that lies on its side), they stall, too.
            for stalled in (slice(1, 4), slice(4, 6)):
                if lowest_point_m(pose, *gripper) < min(lowest_m, 0.0):
                    after[stalled] = before[stalled]
                    pose = arm.forward(after)
                    gripper = rotation @ pose.links[-1][0], origin + rotation @ pose.links[-1][1]
        gap = self.scene.step(gripper, pose.half_gap_m, dt_s)
        if gap > pose.half_gap_m:
            after[5] = max(after[5], grip_angle_rad(2 * gap))
        self._qvel = (after - before) / dt_s
        self._qpos = after

    @staticmethod
    def _gripper_at(qpos: Array, rotation: Array, origin: Array) -> tuple[Array, Array]:
        link_rotation, link_origin = arm.forward(qpos).links[-1]
        return rotation @ link_rotation, origin + rotation @ link_origin


class _Shutter:
    """One camera's periodic work."""

    def __init__(self, robot: SimRobot, camera: CameraSpec):
        self._robot, self._camera = robot, camera

    def __call__(self) -> None:
        self._robot._expose(self._camera)


@dataclass(frozen=True, slots=True)
class _State:
    """Joint positions and velocities (6,), and when they were measured."""

    measured_s: float
    qpos: Array
    qvel: Array


class _Line(Generic[_T]):
    """What a sensor sends, on its way: each item arrives at a time of its own, and the newest that arrived is seen."""

    def __init__(self) -> None:
        self._items: deque[tuple[float, float, _T]] = deque()

    def add(self, now_s: float, arrives_s: float, item: _T) -> None:
        """Send an item; those that a newer one has overtaken are forgotten."""
        self._items.append((now_s, arrives_s, item))
        newest_s = max((sent_s for sent_s, arrived_s, _ in self._items if arrived_s <= now_s + 1e-9), default=-np.inf)
        while self._items[0][0] < newest_s:
            self._items.popleft()

    def newest(self, now_s: float) -> _T | None:
        """The last sent of those that have arrived; None when nothing has."""
        return next((item for _, arrives_s, item in reversed(self._items) if arrives_s <= now_s + 1e-9), None)


def _noise_bank(seed: int, cameras: tuple[CameraSpec, ...], level: float) -> Mapping[str, NDArray[np.int8]]:
    """Sensor noise by camera, drawn once and shifted for each frame: a fresh draw would cost more than the picture."""
    rng = np.random.default_rng([seed, 1])
    shapes = {c.name: (c.height, c.width, 3) for c in cameras}
    return {n: rng.normal(0, level, size=shape).round().clip(-127, 127).astype(np.int8) for n, shape in shapes.items()}


def _robot_solids(pose: arm.ArmPose, rotation: Array, origin: Array) -> list[Solid]:
    """The arm as boxes: two links, hand, two fingers."""
    pieces: list[tuple[int, tuple[float, ...], tuple[float, ...], Array, bool]] = [
        (0, (0.0, 0.0, 0.01), (0.025, 0.025, 0.03), _LINK_COLOUR, False),
        (1, (0.014, 0.0, 0.06), (0.016, 0.016, 0.062), _LINK_COLOUR * 1.6, True),
        (2, (0.069, 0.0, 0.0), (0.068, 0.014, 0.014), _LINK_COLOUR * 1.3, True),
        (4, (0.020, 0.0, 0.0), (0.028, 0.022, 0.016), _LINK_COLOUR, True),
    ]
    middle_x, half_x = (arm.FINGER_X + FINGER_TIP_X) / 2, (FINGER_TIP_X - arm.FINGER_X) / 2
    for side in (-1, 1):
        across = side * (pose.half_gap_m + FINGER_THICKNESS / 2)
        half = (half_x, FINGER_THICKNESS / 2, FINGER_HALF_HEIGHT)
        pieces.append((4, (middle_x, across, 0.0), half, _JAW_COLOUR, True))
    solids = []
    for link, centre, half_edges, colour, shadow in pieces:
        link_rotation, link_origin = pose.links[link]
        place = origin + rotation @ (link_origin + link_rotation @ np.array(centre))
        solids.append(Solid(rotation @ link_rotation, place, np.array(half_edges), colour, shadow))
    return solids
