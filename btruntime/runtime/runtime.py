"""The 25 Hz loop: read the latest observation, tick the tree, let the gate send, tell whoever watches."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import MappingProxyType

from py_trees.behaviour import Behaviour
from py_trees.common import Status

from btruntime.events import RunResult, TickRecord, TreeSnapshot, setpoint_values, snapshot
from btruntime.runtime.context import RobotContext
from btruntime.runtime.pool import PolicyPool
from btruntime.runtime.stopping import blamed, stop_nodes
from foundation.errors import BtruntimeError
from hal.clock import Clock, Rate, preferred
from hal.motion import GateClosedError, GateConfig, MotionGate, Resource
from hal.robot import Robot
from skills.outcome import Outcome

Watcher = Callable[[TickRecord], None]
Until = Callable[[], str | None]


class Runtime:
    """One robot and one running tree. `run` blocks its thread while the tree runs; `stop` may come from anywhere.

    Use it as a context manager: the robot and its motion gate run inside the block, and are at rest after it. The
    pool of policies belongs to whoever made it.
    """

    def __init__(
        self,
        robot: Robot,
        clock: Clock,
        pool: PolicyPool,
        *,
        rate_hz: float = 25.0,
        gate_config: GateConfig | None = None,
    ):
        self.robot, self.clock = robot, clock
        self.gate = MotionGate(robot, clock, gate_config)
        self._period_s = 1.0 / rate_hz
        self._executor = None if clock.virtual else ThreadPoolExecutor(2, thread_name_prefix="skill background")
        self._resources = [Resource.ARM] if robot.spec.base is None else list(Resource)
        base = () if robot.spec.base is None else ("base",)
        self._sensors = ("joints", *base, *robot.spec.camera_names)
        self.context = RobotContext(robot.spec, clock, self.gate, pool, self._executor)

    def __enter__(self) -> Runtime:
        try:
            self.robot.start()
            self.gate.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Bring the robot to rest and let go of it, whatever goes wrong on the way. Idempotent."""
        try:
            self.gate.close()
        finally:
            try:
                self.robot.close()
            finally:
                if self._executor is not None:
                    self._executor.shutdown(wait=False, cancel_futures=True)

    def stop(self, reason: str) -> None:
        """Stop now: latches in the motion gate, which brings the robot to rest without waiting for a tick.

        May be called from any thread and from a signal handler.
        """
        self.gate.stop(reason)

    def clear_stop(self) -> None:
        """Let a new run move the robot again."""
        self.gate.clear_stop()

    def run(self, root: Behaviour, watchers: Iterable[Watcher] = (), *, until: Until = lambda: None) -> RunResult:
        """Tick a tree until it ends, a stop comes, or the robot is gone.

        Args:
            root: a fresh tree, built with this runtime's `context`.
            watchers: called after each tick with what happened in it; they must not block.
            until: asked after each tick; a sentence from it ends the run as done, with that as its reason.

        Returns:
            How the run ended. The tree's nodes have been stopped, and the robot holds.
        """
        watching = tuple(watchers)
        self.gate.reset_counts()
        started_s = self.clock.now()
        rate = Rate(self.clock, self._period_s)
        ticks, broken, enough = 0, True, None
        try:
            root.setup_with_descendants()
            with _undisturbed(self.clock):
                # What came before took its time: the first deadline is now.
                rate = Rate(self.clock, self._period_s)
                for record in self._ticks(root, rate):
                    ticks = record.tick
                    for watch in watching:
                        watch(record)
                    if enough := until():
                        break
            outcome, reason = self._outcome(root, enough)
            broken = False
        except BtruntimeError as error:
            outcome, reason = Outcome.FAULT, str(error)
        except Exception as error:  # noqa: BLE001 - nodes, drivers and watchers of others must not end more than the run
            outcome, reason = Outcome.FAULT, f"internal error: {blamed(error)}"
        finally:
            # Stopping the loop does not stop the nodes; this releases every lease, and so halts the robot.
            troubles = stop_nodes(root, every=broken)
            if troubles:
                self._take_the_robot()
        if troubles:
            reason = " ".join([reason, *troubles])
        return RunResult(
            outcome=outcome,
            reason=reason,
            started_s=started_s,
            ended_s=self.clock.now(),
            ticks=ticks,
            timing=rate.timing(),
            gate_counts=MappingProxyType(dict(self.gate.report().counts)),
        )

    def _take_the_robot(self) -> None:
        """Bring all to rest, whoever still has a lease: its node could not be stopped."""
        with suppress(GateClosedError):
            self.gate.release(self.gate.acquire("runtime", self._resources))

    def _ticks(self, root: Behaviour, rate: Rate) -> Iterator[TickRecord]:
        """One record per period, until the tree has ended or motion was stopped."""
        tree: TreeSnapshot | None = None
        lateness_s, tick = 0.0, 0
        while self.gate.stopped is None:
            began_s = self.clock.now()
            self.context.begin_tick(self.robot.read())
            root.tick_once()
            tick += 1
            tree = snapshot(root, tick, began_s, tree)
            yield self._record(tree, began_s, lateness_s)
            if root.status != Status.RUNNING:
                return
            lateness_s = rate.wait()

    def _record(self, tree: TreeSnapshot, began_s: float, lateness_s: float) -> TickRecord:
        observation, report = self.context.observation, self.gate.report()
        return TickRecord(
            tick=tree.tick,
            time_s=began_s,
            tree=tree,
            ages=MappingProxyType({sensor: observation.age_s(sensor, began_s) for sensor in self._sensors}),
            asked=MappingProxyType(self.context.asked) if self.context.asked else None,
            sent=None if report.setpoint is None else setpoint_values(report.setpoint),
            lateness_s=lateness_s,
            work_s=self.clock.now() - began_s,
            holding=report.stopped or report.holding,
        )

    def _outcome(self, root: Behaviour, enough: str | None) -> tuple[Outcome, str]:
        """How the tree ended, and why in one sentence; `enough` is why it need not go on."""
        if self.gate.stopped is not None:
            return Outcome.CANCELLED, self.gate.stopped
        if enough is not None and root.status == Status.RUNNING:
            return Outcome.DONE, enough
        tip = root.tip() or root
        if root.status == Status.SUCCESS:
            return Outcome.DONE, tip.feedback_message
        outcome = getattr(tip, "outcome", None)
        reason = tip.feedback_message or f"{tip.name} failed without saying why."
        return outcome if isinstance(outcome, Outcome) else Outcome.FAULT, reason


@contextmanager
def _undisturbed(clock: Clock) -> Iterator[None]:
    """In real time: this thread goes first, and the garbage collector leaves alone what exists now."""
    if clock.virtual:
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        with preferred():
            yield
    finally:
        gc.unfreeze()
