"""What happens before anything moves: load the policy or the recording, wait for the sensors."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from py_trees.common import Status

from hal.motion import bind_action
from hal.types import ActionDim, ActionSpec, Array, Observation, RobotSpec, SpecError
from policies.runner import PolicyRunner
from skills.behaviours.leaf import Leaf
from skills.context import SkillContext
from skills.outcome import Outcome


@dataclass
class PolicySlot:
    """Where `LoadPolicy` leaves the policy for `PolicyLoop`. `name` is the checkpoint's, for people."""

    runner: PolicyRunner | None = None
    name: str = ""


class LoadPolicy(Leaf):
    """RUNNING while the checkpoint loads; SUCCESS once the policy has warmed up; instant the second time."""

    def __init__(self, ctx: SkillContext, slot: PolicySlot, checkpoint: Path, *, name: str = "LoadPolicy"):
        super().__init__(name, ctx)
        self._slot, self._checkpoint = slot, checkpoint
        self._starting: Future[PolicyRunner] | None = None

    def begin(self) -> None:
        self._slot.runner, self._slot.name = None, self._checkpoint.name
        self._starting = self.ctx.policy(self._checkpoint)

    def advance(self) -> Status:
        assert self._starting is not None  # begin() succeeded
        self.feedback_message = f"loading {self._checkpoint.name}"
        if not self._starting.done():
            return Status.RUNNING
        runner = self._slot.runner = self._starting.result()
        if runner.error is not None:
            return self.fail(Outcome.FAULT, runner.error)
        if not runner.ready:
            return Status.RUNNING
        self.feedback_message = self._checkpoint.name
        return Status.SUCCESS


@dataclass(frozen=True, slots=True)
class Cut:
    """What a robot's limits cut off a recorded action dimension: in which share of the steps, and by how much."""

    name: str
    unit: str
    share: float
    largest: float

    def __str__(self) -> str:
        return f"{self.name} in {self.share:.0%} of the steps, by up to {self.largest:.2f} {self.unit}"


def _cut(dim: ActionDim, beyond: Array) -> Cut:
    """What (T,) excess of one dimension amounts to."""
    return Cut(dim.name, dim.unit, float((beyond > 0).mean()), float(beyond.max()))


@dataclass(frozen=True)
class Recording:
    """What replay needs of an episode: (T, A) actions, (T,) seconds since its start, (T, J) measured joints."""

    action: Array
    times_s: Array
    qpos: Array
    spec: ActionSpec
    joint_names: tuple[str, ...]
    robot: str

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Read an episode's numbers (not its pictures).

        Raises:
            EpisodeError: the file is missing, damaged, empty, or no episode.
        """
        from skills.episodes import Episode, EpisodeError

        with Episode(path) as episode:
            times_s = np.asarray(episode.step_s, dtype=np.float64)
            if not len(times_s):
                raise EpisodeError(f"{path}: has no steps, so there is nothing to replay. Record another episode.")
            return cls(
                np.asarray(episode.action, dtype=np.float64),
                times_s - times_s[0],
                np.asarray(episode.qpos, dtype=np.float64),
                episode.header.action,
                episode.header.joint_names,
                episode.header.robot,
            )

    def within(self, robot: RobotSpec, *, speed: float = 1.0) -> tuple[Recording, tuple[Cut, ...]]:
        """The recording cut to the limits of a robot, and what was cut of each moving dimension.

        Args:
            robot: whose limits.
            speed: at which it will be replayed: velocities grow with it.

        Raises:
            SpecError: action or joints do not fit the robot.
        """
        binding = bind_action(self.spec, robot)
        order = self.order_of(robot.joint_names)
        asked = binding.offset + binding.scale * self.action[:, binding.dims]  # (T, M)
        faster = np.where(binding.is_velocity | binding.is_base, speed, 1.0)  # (M,)
        allowed = np.clip(asked, binding.low / faster, binding.high / faster)
        action, qpos = self.action.copy(), self.qpos.copy()
        action[:, binding.dims] = (allowed - binding.offset) / binding.scale
        qpos[:, order] = np.clip(qpos[:, order], *robot.position_limits)
        excess = np.abs(asked - allowed) / binding.scale
        cuts = tuple(
            _cut(self.spec.dims[int(dim)], beyond)
            for dim, beyond in zip(binding.dims, excess.T, strict=True)
            if beyond.max() > 0
        )
        return replace(self, action=action, qpos=qpos), cuts

    def order_of(self, joint_names: tuple[str, ...]) -> list[int]:
        """Columns of `qpos` in the order of `joint_names`.

        Raises:
            SpecError: a joint was not recorded.
        """
        if missing := [name for name in joint_names if name not in self.joint_names]:
            raise SpecError(f"the episode has the joints {', '.join(self.joint_names)}, and not {', '.join(missing)}.")
        return [self.joint_names.index(name) for name in joint_names]


@dataclass
class RecordingSlot:
    """Where `LoadEpisode` leaves the recording for the leaves after it, and what it cut off."""

    recording: Recording | None = None
    cuts: tuple[Cut, ...] = ()

    def first_pose(self, joint_names: tuple[str, ...]) -> Array:
        """(J,) where the recorded robot was at the first step, in the order of `joint_names`."""
        assert self.recording is not None  # LoadEpisode came before
        return self.recording.qpos[0, self.recording.order_of(joint_names)]


class LoadEpisode(Leaf):
    """RUNNING while the episode is read off this thread.

    Args:
        ctx: the running skill's context.
        slot: where to leave it.
        path: of the episode.
        clip_at: cut what is beyond the robot's limits when it is replayed at this speed; None leaves it to the motion
            gate to judge.
        name: of the node.
    """

    def __init__(
        self,
        ctx: SkillContext,
        slot: RecordingSlot,
        path: Path,
        *,
        clip_at: float | None = None,
        name: str = "LoadEpisode",
    ):
        super().__init__(name, ctx)
        self._slot, self._path, self._clip_at = slot, path, clip_at
        self._reading: Future[tuple[Recording, tuple[Cut, ...]]] | None = None

    def begin(self) -> None:
        if self._slot.recording is None:
            self._reading = self.ctx.in_background(self._read)

    def advance(self) -> Status:
        if self._slot.recording is None:
            assert self._reading is not None  # begin() succeeded
            if not self._reading.done():
                self.feedback_message = f"reading {self._path.name}"
                return Status.RUNNING
            self._slot.recording, self._slot.cuts = self._reading.result()
        self.feedback_message = f"{self._path.name}, {len(self._slot.recording.action)} steps"
        return Status.SUCCESS

    def _read(self) -> tuple[Recording, tuple[Cut, ...]]:
        recording = Recording.read(self._path)
        if self._clip_at is None:
            return recording, ()
        return recording.within(self.ctx.spec, speed=self._clip_at)


class SensorsReady(Leaf):
    """Wait until the joints and the named cameras deliver fresh data; fail by name when one does not."""

    def __init__(
        self, ctx: SkillContext, sensors: Iterable[str], *, timeout_s: float = 5.0, name: str = "SensorsReady"
    ):
        super().__init__(name, ctx)
        self._sensors = ("joints", *sensors)
        self._timeout_s = timeout_s
        self._deadline_s = 0.0

    def begin(self) -> None:
        self._deadline_s = self.ctx.clock.now() + self._timeout_s

    def advance(self) -> Status:
        now_s, observation = self.ctx.clock.now(), self.ctx.observation
        troubles = [self._trouble(sensor, observation, now_s) for sensor in self._sensors]
        waiting = ", ".join(trouble for trouble in troubles if trouble is not None)
        if not waiting:
            self.feedback_message = ", ".join(self._sensors)
            return Status.SUCCESS
        if now_s >= self._deadline_s:
            return self.fail(
                Outcome.FAULT, f"no fresh data after {self._timeout_s:g} s from {waiting}. Check its connection."
            )
        self.feedback_message = f"waiting for {waiting}"
        return Status.RUNNING

    def _trouble(self, sensor: str, observation: Observation, now_s: float) -> str | None:
        """The sensor with what is wrong with it; None when it delivers."""
        age_s = observation.age_s(sensor, now_s)
        limit_s, _ = self.ctx.gate.config.stale_limits_s(self.ctx.spec, sensor)
        if np.isinf(age_s):
            return f"{sensor} (never seen)"
        # A stamp from the future is as wrong as an old one.
        if abs(age_s) > limit_s:
            return f"{sensor} (last {age_s:.1f} s ago)"
        if sensor == "joints" and not np.isfinite(observation.qpos).all():
            return f"{sensor} (no numbers)"
        return None
