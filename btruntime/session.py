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

from btruntime.agent import target_tree
from btruntime.comparison import Comparison, ComparisonReport
from btruntime.events import RunResult
from btruntime.flight import FlightError, FlightRecorder, new_flight_path
from btruntime.runtime import PolicyPool, Runtime
from btruntime.view.live import LiveTree
from foundation.errors import BtruntimeError
from hal.clock import Clock
from hal.playback import PlaybackRobot
from hal.robot import Robot
from skills.check import check
from skills.kinds import build
from skills.playback import EpisodePlayback
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
    """A finished run.

    Attributes:
        result: how it ended.
        flight: its flight record.
        signal_number: of the signal that ended it, if one did.
        flight_problem: why the flight record is not whole; None when all is well.
        comparison: with what was demonstrated, on a playback robot.
    """

    result: RunResult
    flight: Path
    signal_number: int | None = None
    flight_problem: str | None = None
    comparison: ComparisonReport | None = None


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
        robot: not started; it is closed, at rest, when this returns or raises.
        clock: what the run is paced by.
        pool: where policies come from; stays open.
        places: where things are.
        show: draw the live tree in the terminal.
        header: more for the first line of the flight record.

    Raises:
        NotRunnableError: a skill does not fit the robot.
        BtruntimeError: an ID is unknown, a file is broken, or the flight record cannot be begun.
    """
    return run_tree(
        target,
        lambda runtime: _checked_tree(target, places, runtime),
        robot,
        clock,
        pool,
        places,
        show=show,
        header=header,
    )


def run_tree(
    target: str,
    make_root: Callable[[Runtime], Behaviour],
    robot: Robot,
    clock: Clock,
    pool: PolicyPool,
    places: Places,
    *,
    show: bool = True,
    header: Mapping[str, object] | None = None,
) -> Ran:
    """Run any tree to its end, shown and recorded; on a playback robot, compared with what was demonstrated.

    Args:
        target: what it is called, in the flight record's name too.
        make_root: makes the tree for the runtime; called before the robot is touched.
        robot: not started; it is closed, at rest, when this returns or raises.
        clock: what the run is paced by.
        pool: where policies come from; stays open.
        places: where things are.
        show: draw the live tree in the terminal.
        header: more for the first line of the flight record.

    Raises:
        BtruntimeError: the tree cannot be made, or the flight record cannot be begun.
    """
    played = Comparison(robot) if isinstance(robot, EpisodePlayback) else None
    runtime = Runtime(robot, clock, pool, gate_config=robot.gate_config if isinstance(robot, PlaybackRobot) else None)
    try:
        # Everything that can be wrong on disk is found before the robot is touched.
        root = make_root(runtime)
        path = new_flight_path(places.flights, target)
        flight = FlightRecorder(path, {"target": target, "robot": robot.spec.name, **(header or {})})
    except BaseException:
        runtime.close()
        raise
    with stopping_on_signals(runtime.stop) as stopped:
        result, flight_problem = _recorded_run(runtime, root, flight, show, played)
    comparison = played.report() if played is not None else None
    return Ran(result, flight.path, stopped.number, flight_problem, comparison)


def _recorded_run(
    runtime: Runtime, root: Behaviour, flight: FlightRecorder, show: bool, played: Comparison | None
) -> tuple[RunResult, str | None]:
    """How the run ended, and what is wrong with its record."""
    result: RunResult | None = None
    try:
        with ExitStack() as stack:
            stack.enter_context(runtime)
            watchers = [flight.tick]
            if played is not None:
                watchers.append(played.watch)
            if show:
                watchers.append(stack.enter_context(_live_tree(runtime)).show)
            result = runtime.run(root, watchers, until=played.until if played is not None else lambda: None)
    except BaseException as error:
        problem = _closed(flight, result)
        if problem is not None:
            error.add_note(problem)
        raise
    return result, _closed(flight, result)


def _closed(flight: FlightRecorder, result: RunResult | None) -> str | None:
    """Why the record is not whole; the run it tells of has happened all the same."""
    try:
        flight.close(result)
    except FlightError as error:
        return str(error)
    return None


@dataclass
class Stopped:
    """The signal that came, if one did."""

    number: int | None = None


@contextmanager
def stopping_on_signals(stop: Callable[[str], None]) -> Iterator[Stopped]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP call `stop` instead of ending the process.

    The second one gets through, for a block that does not heed `stop`: it calls `stop` once more, puts the handlers of
    before back, and raises KeyboardInterrupt.

    Outside the main thread, where Python allows no handlers, nothing is changed. A signal that is ignored stays so:
    that is how `nohup` lets a program outlive its terminal.
    """
    stopped = Stopped()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _: FrameType | None) -> None:
        again = stopped.number is not None
        stopped.number = stopped.number or number
        if again:
            restore()
        stop(f"stopped by {signal.Signals(number).name}.")
        if again:
            raise KeyboardInterrupt

    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield stopped
    finally:
        restore()


def _checked_tree(target: str, places: Places, runtime: Runtime) -> Behaviour:
    """The tree of a skill or an agent; every skill in it fits the robot."""
    store, robot = SkillStore(places.skills_dir), runtime.robot.spec

    def make(skill_id: str) -> Behaviour:
        entry = store.get(skill_id)
        report = check(entry, robot)
        if not report.runnable:
            why = " ".join(report.problems)
            raise NotRunnableError(f"{report.skill} cannot run on robot {report.robot}: {why}")
        return build(entry, runtime.context)

    return target_tree(target, [entry.id for entry in store.scan()], places.agents_dir, make)


def _live_tree(runtime: Runtime) -> LiveTree:
    """On standard error: standard output is for results."""
    from rich.console import Console

    return LiveTree(counts=lambda: runtime.gate.report().counts, console=Console(stderr=True, highlight=False))
