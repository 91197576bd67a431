"""One run of a skill or an agent from its ID: check, connect, build, run, show, record."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from py_trees.behaviour import Behaviour

from btruntime.events import RunResult
from btruntime.flight import FlightRecorder, new_flight_path
from btruntime.runtime import PolicyPool, Runtime
from btruntime.view.live import LiveTree
from btruntime.view.render import create_root
from foundation.errors import BtruntimeError
from hal.clock import Clock
from hal.robot import Robot
from skills.check import check
from skills.kinds import build
from skills.store import SkillStore

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NotRunnableError(BtruntimeError):
    """A skill does not fit the robot; nothing was moved."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where skills, agents and flight records are; None for the default directory."""

    skills_dir: Path | None = None
    agents_dir: Path | None = None
    flights_dir: Path | None = None

    @property
    def flights(self) -> Path:
        """`flights_dir`, or $BTRUNTIME_FLIGHTS_DIR, or ~/.btruntime/flights."""
        if self.flights_dir is not None:
            return self.flights_dir
        return Path(os.environ.get("BTRUNTIME_FLIGHTS_DIR") or Path.home() / ".btruntime" / "flights")


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished run: how it ended, its flight record, and the signal that ended it, if one did."""

    result: RunResult
    flight: Path
    signal_number: int | None = None


def run_by_id(
    target: str,
    robot: Robot,
    clock: Clock,
    pool: PolicyPool,
    places: Places,
    *,
    show: bool = True,
    header: Mapping[str, object] | None = None,
) -> Ran:
    """Run a skill or an agent to its end.

    Args:
        target: ID of the skill or agent.
        robot: not started; it is closed, at rest, when this returns.
        clock: what the run is paced by.
        pool: where policies come from; stays open.
        places: where things are.
        show: draw the live tree in the terminal.
        header: more for the first line of the flight record.

    Raises:
        NotRunnableError: a skill does not fit the robot.
        BtruntimeError: an ID is unknown, a file is broken, or the flight record cannot be written.
    """
    runtime = Runtime(robot, clock, pool)
    # Everything that can be wrong on disk is found before the robot is touched.
    root = _checked_tree(target, places, runtime)
    path = new_flight_path(places.flights, target)
    with stopping_on_signals(runtime.stop) as stopped:
        flight = FlightRecorder(path, {"target": target, "robot": robot.spec.name, **(header or {})})
        result: RunResult | None = None
        try:
            with ExitStack() as stack:
                stack.enter_context(runtime)
                watchers = [flight.tick]
                if show:
                    watchers.append(stack.enter_context(_live_tree(runtime)).show)
                result = runtime.run(root, watchers)
        finally:
            flight.close(result)
    return Ran(result, flight.path, stopped.number)


@dataclass
class Stopped:
    """The signal that came, if one did."""

    number: int | None = None


@contextmanager
def stopping_on_signals(stop: Callable[[str], None]) -> Iterator[Stopped]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP call `stop` instead of ending the process.

    Outside the main thread, where Python allows no handlers, nothing is changed.
    """
    stopped = Stopped()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def handle(number: int, _: FrameType | None) -> None:
        stopped.number = number
        stop(f"stopped by {signal.Signals(number).name}.")

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checked_tree(target: str, places: Places, runtime: Runtime) -> Behaviour:
    """The tree of a skill or an agent; every skill in it fits the robot."""
    store, robot = SkillStore(places.skills_dir), runtime.robot.spec
    refused: list[NotRunnableError] = []

    def make(skill_id: str) -> Behaviour:
        entry = store.get(skill_id)
        report = check(entry, robot)
        if not report.runnable:
            why = " ".join(report.problems)
            refused.append(NotRunnableError(f"{report.skill} cannot run on robot {report.robot}: {why}"))
            raise refused[0]
        return build(entry, runtime.context)

    try:
        return create_root(target, _text(places.skills_dir), _text(places.agents_dir), make)
    except BtruntimeError:
        # The ID was understood; what else it might have named is of no interest.
        if refused:
            raise refused[0] from None
        raise


def _live_tree(runtime: Runtime) -> LiveTree:
    """On standard error: standard output is for results."""
    from rich.console import Console

    return LiveTree(counts=lambda: runtime.gate.report().counts, console=Console(stderr=True, highlight=False))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
