"""The motion gate: everything that moves the robot passes here, and nothing else calls `Robot.write`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from foundation.errors import BtruntimeError
from hal.clock import Clock, Periodic
from hal.motion.config import GateConfig, GateReport, Submitted
from hal.motion.interpolator import Interpolator
from hal.motion.lease import Grant, Lease, Leases, Resource, new_lease
from hal.motion.limits import ActionBinding, ActionBindings
from hal.motion.reading import advised, measured, misread, read
from hal.motion.supervision import check_commands, check_sensors, check_tracking, note_violations
from hal.robot import Robot
from hal.types import ActionSpec, Array, Command, Observation, Setpoint, SpecError


class GateClosedError(BtruntimeError):
    """The gate was closed; no motion passes any more."""


class MotionGate:
    """Filter, interpolator, leases, watchdog and stop latch between everybody and one robot.

    `step` runs once per control period: on the clock's own thread after `start`, or inside `sleep_until` of a
    virtual clock; it reads the robot, too. `acquire`, `release`, `submit`, `hold`, `fault`, `report` may be called
    from any thread; they take a lock that is held for microseconds. `stop` takes none, so that a signal handler may
    call it. Nothing blocks but `close`, which waits until the arm has braked.
    """

    def __init__(self, robot: Robot, clock: Clock, config: GateConfig | None = None):
        self._robot = robot
        self._clock = clock
        self.config = config or GateConfig()
        self._spec = robot.spec
        self._period_s = 1.0 / robot.spec.control_rate_hz
        self._lock = threading.Lock()
        self._interpolator = Interpolator(robot.spec)
        self._bindings = ActionBindings(robot.spec)
        self._leases = Leases()
        self._counts: Counter[str] = Counter()
        self._work: Periodic | None = None
        self._stopped: str | None = None
        self._newest_stop: str | None = None
        self._closed = False
        self._trouble: str | None = "the robot has not been read yet"
        self._joints_s = float("-inf")
        self._steps = 0
        self._asked: Command | None = None
        self._sent: Setpoint | None = None

    # Life

    def start(self) -> None:
        """Step at the robot's control rate from now on.

        Raises:
            GateClosedError: it was closed.
        """
        if self._closed:
            raise GateClosedError(f"the motion gate of {self._spec.name} was closed; make a new one.")
        if self._work is None:
            self._work = self._clock.every(self._period_s, self._step_or_rest, name="motion gate")

    def close(self) -> None:
        """End all leases, brake to rest, stop stepping. Returns after the time that braking takes. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for lease, _ in self._leases.alive():
                self._end(lease)
        if self._work is not None:
            self._work.cancel()
        if self._sent is None:
            return
        braking_s = float(np.max(self._spec.speed_limits / self._spec.acceleration_limits))
        for _ in range(int(braking_s / self._period_s) + 2):
            self.step()
            if self._interpolator.at_rest:
                return
            self._clock.sleep_until(self._clock.now() + self._period_s)

    # Leases

    def acquire(self, owner: str, resources: Iterable[Resource], sensors: Iterable[str] = ("joints",)) -> Lease:
        """Take over arm, base or both, at once and from whoever has them; they rest until the first command.

        The lease of whoever held one of them is dead: its commands and its release do nothing any more.

        Args:
            owner: who, for people.
            resources: what is to be moved.
            sensors: what the motion depends on: camera names, "base"; "joints" always.

        Raises:
            SpecError: the robot lacks a resource or a sensor.
            GateClosedError: the gate was closed.
        """
        lease = new_lease(self._spec, owner, resources, sensors)
        grant = Grant.of(lease, self._spec, self.config, self._clock.now())
        with self._lock:
            if self._closed:
                raise GateClosedError(f"{owner} cannot move {self._spec.name}: its motion gate was closed.")
            for old in self._leases.take_over(lease, grant):
                self._rest(old.resources)
                self._counts["taken_over"] += 1
        return lease

    def release(self, lease: Lease) -> None:
        """Bring to rest what the lease still holds, and end it. Idempotent."""
        with self._lock:
            if self._leases.grant(lease) is not None:
                self._end(lease)
            elif self._leases.was_taken_over(lease):
                self._counts["dead_release"] += 1

    def holds(self, lease: Lease, resource: Resource) -> bool:
        """Whether the lease may move the resource now."""
        with self._lock:
            return self._leases.holder(resource) is lease

    def hold(self, lease: Lease) -> None:
        """Come to rest and keep the lease; the watchdog waits for the next command."""
        with self._lock:
            grant = self._leases.grant(lease)
            if grant is None:
                self._counts["no_lease"] += 1
                return
            grant.rest()
            self._rest(lease.resources)

    def fault(self, lease: Lease) -> str | None:
        """Why the lease may not move any more, as a sentence; None while it may, and once it has ended."""
        with self._lock:
            grant = self._leases.grant(lease)
            if grant is not None and self._work is not None and self._work.error is not None:
                grant.blame(f"The motion gate itself failed: {self._work.error!r}.")
            return grant.fault if grant else None

    # Stop

    def stop(self, reason: str) -> None:
        """Latch: from the next control step on the base stands and the arm brakes and holds. The first reason stays.

        Takes no lock and does nothing but set attributes; any thread and any signal handler may call it.
        """
        self._newest_stop = reason
        if self._stopped is None:
            self._stopped = reason

    def clear_stop(self) -> None:
        """Let commands through again. What was commanded before is forgotten; a stop that comes meanwhile stays."""
        with self._lock:
            self._newest_stop = None
            for _, grant in self._leases.alive():
                grant.rest()
            self._rest(frozenset(Resource))
            self._stopped = None
            # A stop that came since found the old latch in place and left it to us.
            if self._newest_stop is not None:
                self._stopped = self._newest_stop

    @property
    def stopped(self) -> str | None:
        """Why motion is stopped, or None."""
        return self._stopped

    # Commands

    def check(self, spec: ActionSpec) -> None:
        """Refuse an action spec that does not fit the robot, before anything moves.

        Raises:
            SpecError: which dimension, and what the robot has.
        """
        self._bindings.of(spec)

    def submit(self, lease: Lease, command: Command) -> Submitted:
        """Check a command and make it the newest target.

        Raises:
            SpecError: the action does not fit its spec, or the spec not the robot (see `check`).
        """
        binding = self._bindings.of(command.spec)
        asked = np.array(command.action, dtype=np.float64)
        if asked.shape != (command.spec.size,):
            raise SpecError(f"an action of {lease.owner} is {asked.shape}, its spec says ({command.spec.size},).")
        now_s = self._clock.now()
        with self._lock:
            self._asked = Command(command.spec, asked, command.stamp_s)
            grant = self._leases.grant(lease)
            if grant is None:
                return self._refuse("no_lease", binding, asked)
            if refusal := self._refusal(grant, self._asked, now_s):
                return self._refuse(refusal, binding, asked)
            return self._accept(lease, grant, binding, asked, min(now_s, command.stamp_s))

    # Reports

    @property
    def setpoint(self) -> Setpoint | None:
        """The last that was sent to the robot."""
        return self._sent

    def report(self) -> GateReport:
        """A snapshot, cheap enough for each tick."""
        with self._lock:
            return GateReport(
                counts=MappingProxyType(dict(self._counts)),
                stopped=self._stopped,
                holding=self._holding(),
                steps=self._steps,
                setpoint=self._sent,
                asked=self._asked,
            )

    def reset_counts(self) -> None:
        """Count from zero."""
        with self._lock:
            self._counts.clear()

    # The control step

    def step(self) -> None:
        """One control period: read, judge, move the setpoint, write. One thread at a time."""
        observation, trouble = read(self._robot)
        with self._lock:
            now_s = self._clock.now()
            self._steps += 1
            self._judge(now_s, observation, trouble)
            setpoint = self._advance(now_s)
        if setpoint is not None:
            self._write(setpoint)

    def _step_or_rest(self) -> None:
        """A step that fails for a reason nobody thought of must not leave the base rolling."""
        try:
            self.step()
        except BaseException:
            if self._sent is not None:
                base = None if self._sent.base_velocity is None else np.zeros(2)
                self._robot.write(replace(self._sent, base_velocity=base, stamp_s=self._clock.now()))
            raise

    def _judge(self, now_s: float, observation: Observation | None, trouble: str | None) -> None:
        """Decide who may move: robot, sensors, watchdog, tracking."""
        if trouble is not None:
            self._counts["read"] += 1
            self._blame_all(trouble)
        qpos = measured(observation)
        if observation is not None and qpos is not None:
            self._joints_s = observation.joints_s
        if self._interpolator.qpos is None:
            trouble = trouble or self._start(qpos, now_s)
        self._trouble = trouble
        for lease, grant in self._leases.alive():
            if observation is not None:
                self._counts.update(check_sensors(grant, observation, self._joints_s, now_s))
            if qpos is not None and Resource.ARM in lease.resources:
                self._counts.update(self._check_tracking(grant, qpos, now_s))
            if self._stopped is None and (ceased := check_commands(lease, grant, self.config, now_s)):
                self._counts.update(ceased)
                self._rest(lease.resources)

    def _start(self, qpos: Array | None, now_s: float) -> str | None:
        """Take the measured positions as the first setpoint, if they are fresh and possible; else say why not."""
        hold_s, _ = self.config.stale_limits_s(self._spec, "joints")
        if qpos is None or abs(now_s - self._joints_s) > hold_s:
            return "no fresh joint positions yet"
        trouble = misread(self._spec, qpos, self.config.tracking_error_rad)
        if trouble is None:
            self._interpolator.start(qpos)
        else:
            self._blame_all(trouble)
        return trouble

    def _check_tracking(self, grant: Grant, qpos: Array, now_s: float) -> list[str]:
        setpoint = self._interpolator.qpos
        return [] if setpoint is None else check_tracking(grant, self._spec, self.config, setpoint - qpos, now_s)

    def _advance(self, now_s: float) -> Setpoint | None:
        """The setpoint of this period; None before the first observation."""
        stopped = self._stopped is not None
        if stopped:
            self._rest(frozenset(Resource))
        if self._interpolator.qpos is None:
            return None
        if self._sent is not None:  # the first setpoint is what was measured: nothing jumps at the start
            self._interpolator.advance(
                now_s, hold_arm=stopped or self._held(Resource.ARM), hold_base=stopped or self._held(Resource.BASE)
            )
        return self._interpolator.setpoint(now_s)

    def _write(self, setpoint: Setpoint) -> None:
        try:
            self._robot.write(setpoint)
        except Exception as error:  # noqa: BLE001 - a driver's bug must not end the control loop
            with self._lock:
                self._counts["write"] += 1
                self._blame_all(advised(f"The robot {self._spec.name} does not take setpoints", error))
                self._interpolator.resume_at(self._sent)
            return
        self._sent = setpoint

    # With the lock held

    def _accept(self, lease: Lease, grant: Grant, binding: ActionBinding, asked: Array, stamp_s: float) -> Submitted:
        values, violations = binding.clip(binding.values(asked), self.config)
        elapsed_s = None if grant.commanded_s is None else max(stamp_s - grant.commanded_s, self._period_s)
        if elapsed_s is not None:
            limits = self._spec.speed_limits
            violations += binding.too_fast(values, grant.target, elapsed_s, limits, self.config.speed_slack)
        arrival_s = stamp_s + grant.time_command(stamp_s, self.config)
        allowed = binding.may_move(lease.resources)
        self._aim(lease, grant, binding, np.where(allowed, values, np.nan), arrival_s)
        reasons = list(dict.fromkeys(violation.reason for violation in violations))
        note_violations(grant, violations, self.config, stamp_s)
        if not allowed.all():
            reasons.append("no_lease")
        self._counts.update(reasons)
        if grant.held:
            reasons.append("fault" if grant.fault else "stale")
            allowed[:] = False
        held = self._held_values(binding)
        return Submitted(True, tuple(reasons), binding.action(np.where(allowed, values, held), asked))

    def _refusal(self, grant: Grant, command: Command, now_s: float) -> str | None:
        """Why nothing of the command goes through, or None. What is not finite is a fault at once."""
        if self._stopped is not None:
            return "stopped"
        if grant.fault is not None:
            return "fault"
        wrong = np.flatnonzero(~np.isfinite(command.action))
        if len(wrong):
            names = ", ".join(command.spec.names[i] for i in wrong[:4])
            grant.blame(
                f"An action had {len(wrong)} of {command.spec.size} values that are not finite ({names}). "
                "Activate another run, or train it again."
            )
            return "non_finite"
        # Written so that a stamp of NaN is late, too.
        return None if now_s - command.stamp_s < self.config.watchdog_s else "late"

    def _refuse(self, reason: str, binding: ActionBinding, asked: Array) -> Submitted:
        self._counts[reason] += 1
        sent = binding.action(self._held_values(binding), asked)
        return Submitted(accepted=False, reasons=(reason,), sent=sent)

    def _held_values(self, binding: ActionBinding) -> Array:
        return binding.held_values(self._interpolator.qpos, self._interpolator.grippers)

    def _aim(self, lease: Lease, grant: Grant, binding: ActionBinding, values: Array, arrival_s: float) -> None:
        """Make (M,) values the targets; what is not named, or NaN, comes to rest (a gripper stays as it is)."""
        if Resource.ARM in lease.resources:
            target, speed, fractions = binding.arm_targets(values)
            self._interpolator.aim_arm(target, speed, fractions, arrival_s)
            grant.target = target
        if Resource.BASE in lease.resources:
            self._interpolator.aim_base(binding.base_target(values))

    def _end(self, lease: Lease) -> None:
        self._leases.end(lease)
        self._rest(lease.resources)

    def _rest(self, resources: frozenset[Resource]) -> None:
        if Resource.ARM in resources:
            self._interpolator.rest_arm()
        if Resource.BASE in resources:
            self._interpolator.rest_base()

    def _held(self, resource: Resource) -> bool:
        grant = self._leases.grant(self._leases.holder(resource))
        return grant is None or grant.held

    def _blame_all(self, sentence: str) -> None:
        for _, grant in self._leases.alive():
            grant.blame(sentence)

    def _holding(self) -> str | None:
        if self._closed:
            return "the motion gate was closed"
        if self._stopped is not None:
            return f"stopped: {self._stopped}"
        held = (grant.holding for _, grant in self._leases.alive())
        return self._trouble or next(filter(None, held), None)
