"""The 25 Hz policy loop: newest observation to the policy, the action meant for now to the motion gate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from py_trees.common import Status

from hal.motion.lease import Lease
from hal.types import ActionKind, ActionSpec, Array, Command, Observation
from policies.chunk import ChunkPlayer, Mode
from policies.runner import PolicyRunner
from policies.spec import InputSpec, PolicyInput, PolicyInputError
from skills.actions import action_spec_of, resources_of
from skills.behaviours.leaf import Leaf
from skills.behaviours.load import PolicySlot
from skills.context import SkillContext
from skills.outcome import Outcome


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """When a policy loop ends.

    Attributes:
        duration_s: longest time that the policy may move.
        progress_threshold, progress_hold_ticks: done when progress stays above the threshold for so many ticks.
        starve_s: fault when the policy has no action for now for this long; the robot holds meanwhile.
        first_action_s: the same before the first action.
        stall_s: stalled when progress has not risen by `stall_rise` for this long; None never.
    """

    duration_s: float = 120.0
    progress_threshold: float = 0.95
    progress_hold_ticks: int = 5
    starve_s: float = 1.0
    first_action_s: float = 5.0
    stall_s: float | None = None
    stall_rise: float = 0.02


class PolicyLoop(Leaf):
    """Runs a loaded policy until it is done.

    Succeeds when progress passes the threshold, or, for a policy without a progress output, when `duration` is
    over; with one, running out of time is a timeout, which is a failure. The clock of `duration` starts with the
    first action, which comes from the first observation after the start.

    Args:
        ctx: the running skill's context.
        slot: where `LoadPolicy` left the policy.
        limits: when the loop ends.
        speed: time factor of arm and base together.
        n_action_steps: look again after so many steps of a chunk; None looks at every frame. A policy that looks at
            every frame and follows the newest chunk alone gets stuck where demonstrations paused: each chunk begins
            with the pause.
        chunk_mode: how a new chunk follows the ones before it (`policies.chunk.ChunkPlayer`); None fades it in where
            `n_action_steps` is given, and else averages all chunks that have an action for now.
        name: of the node.
    """

    def __init__(
        self,
        ctx: SkillContext,
        slot: PolicySlot,
        limits: LoopLimits,
        *,
        speed: float = 1.0,
        n_action_steps: int | None = None,
        chunk_mode: Mode | None = None,
        name: str = "PolicyLoop",
    ):
        super().__init__(name, ctx)
        self._slot, self._limits, self._speed = slot, limits, speed
        self._n_action_steps = n_action_steps
        self._mode: Mode = chunk_mode or ("ensemble" if n_action_steps is None else "blend")
        self._player = self._new_player()

    @property
    def entered_chunks(self) -> int:
        """How many chunks have had a part in what was commanded since the loop began."""
        return self._player.entered

    def _new_player(self) -> ChunkPlayer:
        return ChunkPlayer(self._mode, n_action_steps=self._n_action_steps)

    def begin(self) -> None:
        runner = self._slot.runner
        assert runner is not None  # LoadPolicy came before
        self._runner: PolicyRunner = runner
        if runner.spec.joint_names != self.ctx.spec.joint_names:
            seen, has = ", ".join(runner.spec.joint_names), ", ".join(self.ctx.spec.joint_names)
            raise PolicyInputError(f"the policy {self._slot.name} sees the joints {seen}; the robot has {has}.")
        self._action_spec: ActionSpec = action_spec_of(runner.spec)
        self._speeds = self._action_spec.indices(ActionKind.BASE_VELOCITY, ActionKind.JOINT_VELOCITY)
        self._progress = self._action_spec.index(ActionKind.PROGRESS)
        self._policy_lease: Lease = self.take(resources_of(self._action_spec), runner.spec.camera_names)
        self._player = self._new_player()
        self._began_s = self._acted_s = self.ctx.clock.now()
        # What was captured before the start may show a scene that is gone.
        self._look_after_s = self._began_s
        self._stride_s = self._steps_between_looks(runner.spec) / (runner.spec.data_frequency_hz * self._speed)
        self._first_action_s: float | None = None
        self._held_ticks = 0
        self._best_progress, self._rose_s = 0.0, self._began_s
        runner.reset(speed=self._speed)

    def advance(self) -> Status:
        if (error := self._runner.error) is not None:
            return self.fail(Outcome.FAULT, f"{self._slot.name}: {error}")
        if (fault := self.gate_fault()) is not None:
            return self.fail(Outcome.FAULT, fault)
        now_s = self.ctx.clock.now()
        # Before and after: what is finished says whether these frames are new; an instant policy answers at once.
        self._collect(now_s)
        self._offer(self.ctx.observation, now_s)
        self._collect(now_s)
        action = self._player.at(now_s)
        if action is None:
            return self._starve(now_s)
        return self._act(np.asarray(action, dtype=np.float64), now_s)

    def _steps_between_looks(self, spec: InputSpec) -> float:
        """Half a step less than asked for, so that frames on the grid of the steps are not missed by rounding."""
        if self._n_action_steps is None:
            return 0.0
        # The next chunk must be there before this one ends, also when the forward pass takes its time.
        return max(min(self._n_action_steps, 0.75 * spec.chunk_size) - 0.5, 0.0)

    def _collect(self, now_s: float) -> None:
        while (chunk := self._runner.poll(now_s)) is not None:
            self._player.add(chunk)
            self._look_after_s = chunk.start_s + self._stride_s

    def _offer(self, observation: Observation, now_s: float) -> None:
        """Hand the observation to the policy when its frames are new enough."""
        inputs = policy_input(self._runner.spec, observation)
        if inputs is not None and inputs.oldest_capture_s > self._look_after_s:
            self._runner.offer(inputs, now_s)

    def _starve(self, now_s: float) -> Status:
        """No action is meant for now: hold, and fail after a while."""
        self.ctx.gate.hold(self._policy_lease)
        limit_s = self._limits.first_action_s if self._first_action_s is None else self._limits.starve_s
        if now_s - self._acted_s > limit_s:
            return self.fail(
                Outcome.FAULT,
                f"the policy {self._slot.name} gave no action for {limit_s:g} s: it hangs, or this machine is too slow "
                "for it. Stop other programs and run the skill again.",
            )
        which = "the first" if self._first_action_s is None else "an"
        self.feedback_message = f"waiting for {which} action"
        return Status.RUNNING

    def _act(self, action: Array, now_s: float) -> Status:
        self._acted_s = now_s
        if self._first_action_s is None:
            self._first_action_s = self._rose_s = now_s
        action[self._speeds] *= self._speed
        self.ctx.submit(self._policy_lease, Command(self._action_spec, action, now_s))
        elapsed_s = now_s - self._first_action_s
        if self._progress is not None:
            return self._judge_progress(float(action[self._progress]), elapsed_s, now_s)
        if elapsed_s >= self._limits.duration_s:
            self.feedback_message = f"ran for {elapsed_s:.1f} s"
            return Status.SUCCESS
        self.feedback_message = f"of {self._limits.duration_s:g} s"
        return Status.RUNNING

    def _judge_progress(self, progress: float, elapsed_s: float, now_s: float) -> Status:
        limits = self._limits
        self._held_ticks = self._held_ticks + 1 if progress > limits.progress_threshold else 0
        if self._held_ticks >= limits.progress_hold_ticks:
            self.feedback_message = f"progress {progress:.2f} after {elapsed_s:.1f} s"
            return Status.SUCCESS
        if progress > self._best_progress + limits.stall_rise:
            self._best_progress, self._rose_s = progress, now_s
        if elapsed_s >= limits.duration_s:
            return self.fail(
                Outcome.TIMEOUT, f"progress was {progress:.2f} when the {limits.duration_s:g} s of the skill were over."
            )
        if limits.stall_s is not None and now_s - self._rose_s > limits.stall_s:
            return self.fail(Outcome.STALLED, f"progress stayed at {self._best_progress:.2f} for {limits.stall_s:g} s.")
        # In tenths: a message that changes each tick would be a tree that changes each tick.
        self.feedback_message = f"progress {np.floor(progress * 10) / 10:.1f}"
        return Status.RUNNING


def policy_input(spec: InputSpec, observation: Observation) -> PolicyInput | None:
    """What the policy sees of an observation; None while a camera it needs, or a joint, has not delivered.

    How long that may last is for the motion gate to say, which knows the limits of each sensor.
    """
    if not np.isfinite(observation.qpos).all():
        return None
    frames = [observation.images.get(name) for name in spec.camera_names]
    if any(frame is None for frame in frames):
        return None
    seen = {name: frame for name, frame in zip(spec.camera_names, frames, strict=True) if frame is not None}
    oldest_s = min((frame.captured_s for frame in seen.values()), default=observation.joints_s)
    return PolicyInput(
        state=observation.qpos.astype(np.float32),
        images={name: frame.rgb for name, frame in seen.items()},
        oldest_capture_s=oldest_s,
    )
