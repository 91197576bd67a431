"""Runs from their ID in a process of their own, in real time, as a person starts them; no assertion on time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from skill_bench import FakePolicy, SpiedRobot, holding, input_spec, small_spec, write_learned

from btruntime.events import Outcome
from btruntime.flight import FlightError, FlightRecorder, read_flight
from btruntime.runtime import PolicyPool
from btruntime.session import NotRunnableError, Places, run_by_id, stopping_on_signals
from foundation.errors import BtruntimeError
from hal.clock import VirtualClock
from hal.robot import RobotError
from policies.runner import InlineRunner

_PROGRAM = "import sys; from btruntime.cli import main; sys.exit(main(sys.argv[1:]))"


def places(tmp_path: Path) -> Places:
    for name in ("skills", "agents"):
        (tmp_path / name).mkdir(exist_ok=True)
    return Places(tmp_path / "skills", tmp_path / "agents", tmp_path / "flights")


@contextmanager
def running(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    where = places(tmp_path)
    command = [sys.executable, "-c", _PROGRAM, "run", "wave", "--quiet", *arguments, "--robot", "sim:demo"]
    for option, path in (("skills", where.skills_dir), ("agents", where.agents_dir), ("flights", where.flights_dir)):
        command += [f"--{option}-dir", str(path)]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_ticks(flights: Path, count: int, process: subprocess.Popen[str]) -> Path:
    """The flight record, once so many lines are in it."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        found = list(flights.glob("*.jsonl"))
        if found and found[0].read_bytes().count(b"\n") > count:
            return found[0]
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.02)
    raise AssertionError("no tick within a minute")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_the_run_and_the_record_says_which(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with running(tmp_path, "--json") as process:
        flight = wait_for_ticks(tmp_path / "flights", 10, process)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    result = json.loads(output.splitlines()[-1])
    assert (result["outcome"], result["reason"]) == ("cancelled", f"stopped by {number.name}.")
    summary = read_flight(flight).summary()
    assert (summary.outcome, summary.reason) == (Outcome.CANCELLED, f"stopped by {number.name}.")


# In this process, on the virtual clock


class Rig:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.robot = SpiedRobot(small_spec(), self.clock)
        spec = input_spec(self.robot.spec)
        policy = FakePolicy(spec, lambda inputs, t_s: holding(inputs, base=(0.1, 0.0)))
        self.pool = PolicyPool(lambda checkpoint: InlineRunner(policy))


def test_a_skill_that_fits_runs_to_its_end_and_is_recorded(tmp_path: Path) -> None:
    rig, where = Rig(), places(tmp_path)
    write_learned(where.skills_dir, "pick", input_spec(rig.robot.spec), duration=1.0)
    ran = run_by_id("pick", rig.robot, rig.clock, rig.pool, where, show=False, header={"operator": "nobody"})
    assert (ran.result.outcome, ran.signal_number) == (Outcome.DONE, None)
    flight = read_flight(ran.flight)
    assert (flight.run["target"], flight.run["operator"]) == ("pick", "nobody")
    assert flight.summary().ticks == ran.result.ticks
    assert rig.robot.closed >= 1
    assert not rig.robot.written[-1].base_velocity.any()


@pytest.mark.parametrize("target", ["pick", "local/pick", "agent/tidy", "tidy"])
def test_a_skill_that_does_not_fit_is_refused_before_anything_moves(tmp_path: Path, target: str) -> None:
    rig, where = Rig(), places(tmp_path)
    write_learned(where.skills_dir, "pick", input_spec(rig.robot.spec), start_pose=[0.0, 0.0], action_dim=3)
    (where.agents_dir / "tidy.py").write_text(
        "from btruntime import Agent\n\n\n"
        "class Tidy(Agent):\n"
        "    id = 'tidy'\n"
        "    display_name = 'Tidy'\n\n"
        "    def get_skills(self):\n"
        "        return ['local/pick']\n\n"
        "    def get_prompt(self):\n"
        "        return ''\n\n"
        "    def build_tree(self, skills):\n"
        "        return skills['local/pick']\n"
    )
    with pytest.raises(NotRunnableError) as refused:
        run_by_id(target, rig.robot, rig.clock, rig.pool, where, show=False)
    assert str(refused.value) == (
        "local/pick cannot run on robot bench: metadata.json: execution.start_pose has 2 numbers, robot bench has "
        "6 joints. Give one number per joint, or remove it. metadata.json: execution.action_dim is 3, the checkpoint "
        "gives 8. Remove it, or activate another run."
    )
    assert not rig.robot.written
    assert rig.clock.now() == 0
    assert not where.flights.exists()


def test_an_unknown_id_names_itself_and_moves_nothing(tmp_path: Path) -> None:
    rig = Rig()
    with pytest.raises(BtruntimeError, match="no-such-thing"):
        run_by_id("no-such-thing", rig.robot, rig.clock, rig.pool, places(tmp_path), show=False)
    assert not rig.robot.written


def test_a_robot_that_does_not_start_leaves_a_closed_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, where = Rig(), places(tmp_path)

    def refuse() -> None:
        raise RobotError("no power.")

    monkeypatch.setattr(rig.robot, "start", refuse)
    with pytest.raises(RobotError, match="no power"):
        run_by_id("builtin/wave", rig.robot, rig.clock, rig.pool, where, show=False)
    (path,) = where.flights.glob("*.jsonl")
    assert read_flight(path).summary().outcome is None
    assert rig.robot.closed == 1


def test_the_handlers_of_before_are_back_after_the_run(tmp_path: Path) -> None:
    rig, before = Rig(), signal.getsignal(signal.SIGTERM)
    run_by_id("builtin/rest", rig.robot, rig.clock, rig.pool, places(tmp_path), show=False)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_signal_gets_through() -> None:
    before, said = signal.getsignal(signal.SIGINT), list[str]()
    with stopping_on_signals(said.append) as stopped:
        signal.raise_signal(signal.SIGTERM)
        assert said == ["stopped by SIGTERM."]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before
    assert said == ["stopped by SIGTERM.", "stopped by SIGINT."]
    assert stopped.number == signal.SIGTERM


def test_a_run_whose_record_cannot_be_ended_has_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(recorder: FlightRecorder, result: object = None) -> None:
        raise FlightError("the disk is full.")

    monkeypatch.setattr(FlightRecorder, "close", refuse)
    rig = Rig()
    ran = run_by_id("builtin/rest", rig.robot, rig.clock, rig.pool, places(tmp_path), show=False)
    assert (ran.result.outcome, ran.flight_problem) == (Outcome.DONE, "the disk is full.")


def test_a_run_that_does_not_begin_lets_go_of_the_robot(tmp_path: Path) -> None:
    rig, where = Rig(), places(tmp_path)
    with pytest.raises(BtruntimeError, match="no-such-thing"):
        run_by_id("no-such-thing", rig.robot, rig.clock, rig.pool, where, show=False)
    assert rig.robot.closed == 1
    rig = Rig()
    where.flights.write_text("a file is in the way")
    with pytest.raises(FileExistsError):
        run_by_id("builtin/wave", rig.robot, rig.clock, rig.pool, where, show=False)
    assert rig.robot.closed == 1
    assert not rig.robot.written
