"""The recorder: one robot, one leader, one episode at a time.

States: idle -> recording (`new`) -> stopped (`stop`, the step limit, the leader's end) -> idle (`save`, `discard`).
`step` is called once per recording period by whoever owns the loop; on the virtual clock it may write to the disk,
in real time the writer belongs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np

from btruntime.record.config import RecorderConfig
from foundation.errors import BtruntimeError
from hal.clock import Clock, Rate
from hal.motion import MotionGate, Resource
from hal.motion.lease import Lease
from hal.robot import Robot
from hal.teleop.leader import Leader, LeaderSample
from hal.types import Array, Command, Image, Observation
from skills.episodes import EpisodeHeader, EpisodeStep, EpisodeWriter
from skills.episodes.header import CameraShape


class RecorderError(BtruntimeError):
    """The recorder cannot do that now, or a stream that it needs is not alive."""


class RecorderState(StrEnum):
    """Where the recorder is in an episode's life."""

    IDLE = "idle"
    RECORDING = "recording"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A saved episode."""

    path: Path
    steps: int
    duration_s: float


class Recorder:
    """Records what the robot sees and what the leader commands, while the leader moves the robot.

    Every command passes the motion gate; the file keeps what was asked (`action`) and what was sent
    (`applied_action`).
    """

    def __init__(
        self,
        robot: Robot,
        clock: Clock,
        gate: MotionGate,
        data_dir: Path,
        config: RecorderConfig,
        *,
        software: str,
        scene_seed: int | None = None,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self.config = config
        self._robot, self._clock, self._gate, self._data_dir = robot, clock, gate, data_dir
        self._software, self._scene_seed, self._utc_now = software, scene_seed, utc_now
        self._cameras = config.cameras if config.cameras is not None else robot.spec.camera_names
        self._action_spec = robot.spec.action_spec(base=config.base, progress=config.base)
        self._writer: EpisodeWriter | None = None
        self._leader: Leader | None = None
        self._lease: Lease | None = None
        self._began_s = 0.0
        self._last_capture_s: dict[str, float] = {}
        self.state = RecorderState.IDLE

    @property
    def steps(self) -> int:
        """Steps of the present episode."""
        return 0 if self._writer is None else len(self._writer)

    def new(self, leader: Leader) -> None:
        """Begin an episode.

        Raises:
            RecorderError: an episode is open, or a stream is not alive: a recording with holes helps nobody.
        """
        self._expect(RecorderState.IDLE, "begin an episode")
        if self._gate.stopped is not None:
            raise RecorderError(f"cannot begin an episode: the robot is stopped: {self._gate.stopped}. Clear the stop.")
        observation, now_s = self._robot.read(), self._clock.now()
        self._refuse_dead_streams(observation, now_s)
        with ExitStack() as undo:
            undo.callback(leader.close)
            leader.start(observation, now_s)
            self._refuse_odd_leader(leader.read(now_s))
            lease = self._gate.acquire("teleoperation", self._resources(), self._sensors())
            undo.callback(self._gate.release, lease)
            self._writer = EpisodeWriter(self._data_dir, self._header(), utc_now=self._utc_now)
            undo.pop_all()
        self._lease, self._leader, self._began_s, self._last_capture_s = lease, leader, now_s, {}
        self.state = RecorderState.RECORDING

    def step(self) -> None:
        """One recording period: see, read the leader, move, write. Stops by itself at the limit.

        After an error the recorder has stopped, and the steps so far can be saved.

        Raises:
            RecorderError: not recording, the motion gate gave up, somebody else took the robot, or the leader went
                silent.
            RobotError: the robot does not answer.
            StepError, EpisodeWriteError: a value that cannot be recorded, or the disk.
        """
        self._expect(RecorderState.RECORDING, "record a step")
        assert self._leader is not None
        try:
            self._record_step(self._clock.now())
        except BaseException:
            self._come_to_rest()
            raise
        if self.steps >= self.config.max_timesteps or self._leader.finished:
            self.stop()

    def stop(self) -> None:
        """End the episode; the robot holds. `save` or `discard` decides what becomes of it.

        Raises:
            EpisodeWriteError: the disk refused the last steps; the recorder has stopped all the same.
        """
        self._expect(RecorderState.RECORDING, "stop")
        assert self._writer is not None
        self._come_to_rest()
        self._writer.flush()

    def save(self) -> Recorded:
        """Finish the file; it becomes the next episode of the skill."""
        self._expect(RecorderState.STOPPED, "save")
        assert self._writer is not None
        steps = len(self._writer)
        recorded = Recorded(self._writer.finalize(), steps, steps / self.config.data_frequency)
        self._forget()
        return recorded

    def discard(self) -> Path:
        """Move the episode to the trash; returns where it is."""
        self._expect(RecorderState.STOPPED, "discard")
        assert self._writer is not None
        trashed = self._writer.discard()
        self._forget()
        return trashed

    def close(self) -> None:
        """Stop, and leave an unsaved episode on disk where `recover` finds it. Idempotent."""
        if self.state is RecorderState.RECORDING:
            self.stop()
        if self._writer is not None:
            self._writer.close()
        self._forget()

    def record(self, leader: Leader, *, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Begin an episode and step until it stops by itself or `cancelled`; the state is stopped afterwards."""
        self.new(leader)
        rate = Rate(self._clock, 1.0 / self.config.data_frequency)
        while self.state is RecorderState.RECORDING:
            self.step()
            if self.state is RecorderState.RECORDING and cancelled():
                self.stop()
            rate.wait()

    def _come_to_rest(self) -> None:
        assert self._lease is not None
        assert self._leader is not None
        self._gate.release(self._lease)
        self._leader.close()
        self.state = RecorderState.STOPPED

    def _record_step(self, now_s: float) -> None:
        assert self._writer is not None
        assert self._leader is not None
        assert self._lease is not None
        if trouble := self._trouble(self._lease):
            raise RecorderError(f"recording stopped after {self.steps} steps: {trouble}")
        observation, sample = self._robot.read(), self._leader.read(now_s)
        if sample is None:
            raise RecorderError(f"recording stopped after {self.steps} steps: the leader went silent.")
        self._refuse_odd_leader(sample)
        action = self._action(sample)
        # Stamped by the leader, so that the gate refuses a command that a dead leader repeats.
        submitted = self._gate.submit(self._lease, Command(self._action_spec, action, sample.stamp_s))
        self._writer.append(self._row(observation, sample, action, submitted.sent, now_s))

    def _trouble(self, lease: Lease) -> str | None:
        """Why the leader does not move the robot any more, as a sentence."""
        if self._gate.stopped is not None:
            return f"the robot was stopped: {self._gate.stopped}"
        if not all(self._gate.holds(lease, resource) for resource in lease.resources):
            return "somebody else took over the robot, or its motion gate was closed."
        return self._gate.fault(lease)

    def _expect(self, state: RecorderState, doing: str) -> None:
        if self.state is not state:
            raise RecorderError(f"cannot {doing}: the recorder is {self.state}, expected {state}.")

    def _forget(self) -> None:
        self._writer = self._leader = self._lease = None
        self.state = RecorderState.IDLE

    def _resources(self) -> list[Resource]:
        return [Resource.ARM, Resource.BASE] if self.config.base else [Resource.ARM]

    def _sensors(self) -> tuple[str, ...]:
        """Every stream that goes into the file."""
        return ("joints", *self._cameras, *(("base",) if self.config.base else ()))

    def _refuse_odd_leader(self, sample: LeaderSample | None) -> None:
        if sample is None:
            raise RecorderError("the leader gives no commands. Connect it, move it once, and begin again.")
        spec = self._robot.spec
        joints, names = len(spec.joints), ", ".join(spec.gripper_names) or "none"
        if sample.qpos.shape != (joints,):
            raise RecorderError(
                f"the leader gives positions {sample.qpos.shape}, robot {spec.name} has {joints} joints. "
                f"Is it the leader of another robot?"
            )
        given = (0,) if sample.grippers is None else sample.grippers.shape
        if given != (len(spec.grippers),):
            raise RecorderError(
                f"the leader gives gripper fractions {given}, expected ({len(spec.grippers)},): grippers of robot "
                f"{spec.name} that are not joints: {names}. Is it the leader of another robot?"
            )

    def _refuse_dead_streams(self, observation: Observation, now_s: float) -> None:
        limits = self._gate.config
        if not np.isfinite([observation.qpos, observation.qvel]).all():
            raise RecorderError(
                "cannot begin an episode: joints read values that are not finite. Check the arm's bus and begin again."
            )
        for sensor in self._sensors():
            age_s = observation.age_s(sensor, now_s)
            if age_s > limits.stale_limits_s(self._robot.spec, sensor)[0]:
                seen = "has never delivered" if np.isinf(age_s) else f"last delivered {age_s:.1f} s ago"
                raise RecorderError(f"cannot begin an episode: {sensor} {seen}. Check its connection and begin again.")

    def _header(self) -> EpisodeHeader:
        spec = self._robot.spec
        cameras = [spec.camera(name) for name in self._cameras]
        return EpisodeHeader(
            robot=spec.name,
            data_frequency_hz=self.config.data_frequency,
            joint_names=spec.joint_names,
            action=self._action_spec,
            cameras=tuple(
                CameraShape(c.name, self.config.image_height or c.height, self.config.image_width or c.width)
                for c in cameras
            ),
            has_base=self.config.base,
            source="teleop",
            software=self._software,
            start_utc=self._utc_now(),
            scene_seed=self._scene_seed,
        )

    def _action(self, sample: LeaderSample) -> Array:
        """The leader's command in the episode's action layout; progress is written when the episode ends."""
        action = np.zeros(self._action_spec.size)
        arm = sample.qpos if sample.grippers is None else np.concatenate([sample.qpos, sample.grippers])
        action[: len(arm)] = arm
        if self.config.base and sample.base_velocity is not None:
            action[len(arm) : len(arm) + 2] = sample.base_velocity
        return action

    def _row(
        self, observation: Observation, sample: LeaderSample, action: Array, sent: Array, now_s: float
    ) -> EpisodeStep:
        stale = {n: observation.images[n].captured_s == self._last_capture_s.get(n) for n in self._cameras}
        self._last_capture_s = {name: observation.images[name].captured_s for name in self._cameras}
        velocity = np.zeros(2) if sample.base_velocity is None else sample.base_velocity
        return EpisodeStep(
            action=action,
            applied_action=sent,
            qpos=observation.qpos,
            qvel=observation.qvel,
            images={name: self._sized(observation.images[name].rgb) for name in self._cameras},
            stale=stale,
            step_s=now_s - self._began_s,
            arm_s=observation.joints_s - self._began_s,
            image_s={name: captured_s - self._began_s for name, captured_s in self._last_capture_s.items()},
            cmd_vel=velocity if self.config.base else None,
            odom=observation.odometry if self.config.base else None,
        )

    def _sized(self, rgb: Image) -> Image:
        height, width = self.config.image_height or rgb.shape[0], self.config.image_width or rgb.shape[1]
        if rgb.shape[:2] == (height, width):
            return rgb
        return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
