"""Ctrl-C, SIGTERM and SIGHUP at any moment: no traceback, a robot at rest, nothing half written, and the next works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import SKILL, TINY_TRAINING, Ended, Place, children, end, said, status_of, under_way, until

from btruntime.cli.interrupts import Interruption, interruptible
from btruntime.events import Outcome
from btruntime.flight import read_flight
from btruntime.session import stopping_on_signals
from skills.episodes import Episode, list_episodes, recover
from skills.metadata import load_metadata, update_metadata
from skills.store import SkillStore

RUN = ("run", SKILL, "--quiet", "--robot", "sim:demo")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Says "in" on standard output once the program can take signals; before, Python itself ends by them as it does.
_ANNOUNCED = """
import os, sys
import btruntime.cli.main
module = sys.modules["btruntime.cli.main"]
run = module._run
module._run = lambda arguments: os.write(1, b"in\\n") and run(arguments)
sys.exit(module.main())
"""


def assert_sound(place: Place) -> None:
    """Every file under its final name is whole, and the skill runs or trains as before."""
    entry = SkillStore(place.skills).get(SKILL)
    assert entry.problem is None
    assert load_metadata(place.skill / "metadata.json").name == SKILL
    for episode in list_episodes(place.data):
        assert episode.problem is None
        with Episode(place.data / episode.file_name) as found:
            assert len(found) == episode.length
    for path in place.root.rglob("*.json"):
        json.loads(path.read_text())


def interrupted(
    place: Place,
    number: signal.Signals,
    *arguments: str,
    when: Callable[[subprocess.Popen[str]], object],
) -> Ended:
    """The command, sent a signal once `when` returns; it ends by it, calmly."""
    with under_way(place, *arguments, program=_ANNOUNCED) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        when(process)
        process.send_signal(number)
        ended = end(process)
    ended.assert_calm()
    assert ended.status in status_of(number), ended
    assert_sound(place)
    return ended


def after(seconds: float) -> Callable[[object], None]:
    return lambda _: time.sleep(seconds)


# While the program loads what it needs. Where it is by then depends on the machine; that it is calm does not.


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.3])
def test_during_start_up(place: Place, number: signal.Signals, delay_s: float) -> None:
    update_metadata(place.skill / "metadata.json", execution={"duration": 60.0})
    ended = interrupted(place, number, *RUN, when=after(delay_s))
    assert "btruntime: " in ended.err
    assert ended.status > 0
    for record in place.flights.glob("*.jsonl"):
        assert read_flight(record).damage is None


@pytest.mark.parametrize(
    ("number", "marker"),
    [(signal.SIGINT, '"LoadPolicy"'), (signal.SIGTERM, '"waiting for '), (signal.SIGHUP, '"base_linear":')],
    ids=["loading", "sensors or first action", "policy loop"],
)
def test_during_a_run(place: Place, number: signal.Signals, marker: str) -> None:
    update_metadata(
        place.skill / "metadata.json", execution={"duration": 60.0, "end_pose": [0.5, -0.5, 1.4, -0.8, 0, 0]}
    )
    ended = interrupted(place, number, *RUN, when=lambda process: until(lambda: said(place.flights, marker), process))
    assert f"cancelled: stopped by {number.name}." in ended.err
    flight = read_flight(place.flight())
    assert flight.result is not None
    assert (flight.result.outcome, flight.result.reason) == (Outcome.CANCELLED, f"stopped by {number.name}.")
    # The end pose is not gone to after a stop.
    assert all(record.sent is None or abs(record.sent[0]) < 0.1 for record in flight.ticks)


def test_no_process_is_left_behind(place: Place) -> None:
    update_metadata(place.skill / "metadata.json", execution={"duration": 60.0})
    found: list[int] = []

    def driving(process: subprocess.Popen[str]) -> None:
        until(lambda: said(place.flights, '"base_linear":'), process)
        found.extend(children(process.pid))

    interrupted(place, signal.SIGINT, *RUN, when=driving)
    assert found
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_during_recording(place: Place, number: signal.Signals) -> None:
    def recording(process: subprocess.Popen[str]) -> None:
        until(lambda: (place.data / "episode_2.h5").exists(), process)

    ended = interrupted(place, number, "record", SKILL, "--episodes", "50", when=recording)
    assert "those before it are saved" in ended.err
    assert len(list_episodes(place.data)) >= 3
    assert not recover(place.data)  # nothing was left unfinished
    assert not list(place.data.glob(".recording-*"))


@pytest.mark.slow
def test_during_training(place: Place) -> None:
    def training(process: subprocess.Popen[str]) -> None:
        until(lambda: list((place.skill / "2").glob("*.pth")), process)

    settings = (*TINY_TRAINING, "--set", "max_steps=100000", "--set", "checkpoints=1000")
    before = (place.skill / "metadata.json").read_bytes()
    ended = interrupted(place, signal.SIGTERM, "train", "run", SKILL, "--run-id", "2", *settings, when=training)
    assert "the state is saved. To go on: btruntime train run press --resume 2" in ended.err
    assert (place.skill / "2" / "resume.pt").is_file()
    assert (place.skill / "metadata.json").read_bytes() == before
    assert not list((place.skill / "2").glob(".*.tmp"))


def test_during_the_start_of_training(place: Place) -> None:
    ended = interrupted(
        place,
        signal.SIGINT,
        "train", "run", SKILL, "--run-id", "2", *TINY_TRAINING,
        when=lambda process: until(lambda: children(process.pid), process),
    )  # fmt: skip
    assert "btruntime: " in ended.err
    assert "/2/" not in (place.skill / "metadata.json").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_during_an_evaluation(place: Place, number: signal.Signals) -> None:
    found: list[int] = []

    def evaluating(process: subprocess.Popen[str]) -> None:
        until(lambda: len(children(process.pid)) > 1, process)  # a worker, and what multiprocessing cleans up with
        found.extend(children(process.pid))

    interrupted(place, number, "evaluate", SKILL, "--scenes", "100", "--workers", "1", when=evaluating)
    assert not any(_lives(pid) for pid in found)


def _lives(pid: int) -> bool:
    """For a moment after their parent, processes are still on their way out."""
    deadline_s = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline_s:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", SIGNALS)
def test_during_a_check_of_the_episodes(place: Place, number: signal.Signals) -> None:
    (place.data / "dataset_metadata.json").unlink()
    pipe = place.data / "episode_7.json"
    os.mkfifo(pipe)  # whoever reads the labels waits here
    (place.data / "episode_7.h5").write_bytes((place.data / "episode_1.h5").read_bytes())
    with under_way(place, "dataset", "check", SKILL) as process:
        # Opens for writing only once somebody reads.
        handle = os.open(pipe, os.O_WRONLY)
        process.send_signal(number)
        ended = end(process)
        os.close(handle)
    ended.assert_calm()
    assert ended.status in status_of(number)
    pipe.unlink()
    assert not (place.data / "dataset_metadata.json").exists()
    assert_sound(place)


# In this process


def test_a_signal_in_a_command_is_an_exception_with_its_number() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interruptible(last=False):
        with pytest.raises(Interruption, match=r"ended by SIGTERM\.") as ended:
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        said: list[str] = []
        with interruptible(last=False), stopping_on_signals(said.append) as stopped:
            signal.raise_signal(signal.SIGHUP)
        assert (said, stopped.number) == ([], None)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
