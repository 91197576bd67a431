from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btruntime.events import NodeSnapshot, NodeStatus, NodeType, Outcome, RunResult, TickRecord, TreeSnapshot
from btruntime.flight import FlightError, FlightRecorder, new_flight_path, read_flight
from btruntime.flight.lines import encode, plain_json
from hal.clock import Timing

LETTERS = {each.value[0]: each for each in NodeStatus}
TIMING = Timing(3, 40.0, 0.1, 0.2, 0.3, 0, 0.0)


def tree(states: str, tick: int = 0, feedback: str = "", names: tuple[str, ...] = ("root", "a", "b")) -> TreeSnapshot:
    children = tuple(f"0.{index}" for index in range(len(names) - 1))
    nodes = [NodeSnapshot("0", names[0], NodeType.SEQUENCE, "Sequence", True, LETTERS[states[0]], "", children)]
    nodes += [
        NodeSnapshot(id_, name, NodeType.LEAF, "Leaf", None, LETTERS[state], feedback, ())
        for id_, name, state in zip(children, names[1:], states[1:], strict=True)
    ]
    return TreeSnapshot(tuple(nodes), tick, tick * 0.04, True)


def record(tick: int, snapshot: TreeSnapshot, **changes: object) -> TickRecord:
    whole = TickRecord(
        tick=tick,
        time_s=tick * 0.04,
        tree=replace(snapshot, tick=tick, time_s=tick * 0.04),
        ages=MappingProxyType({"joints": 0.004, "main": 0.02}),
        asked={"a": 0.1, "b": 0.2},
        sent=(0.1, 0.15),
        lateness_s=0.0001,
        work_s=0.002,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def result(outcome: Outcome = Outcome.DONE) -> RunResult:
    return RunResult(outcome, "progress passed 0.95", 0.0, 0.16, 3, TIMING, MappingProxyType({"clipped": 2}))


def recorded(path: Path, records: list[TickRecord]) -> Path:
    recorder = FlightRecorder(path, {"skill": "local/pick"})
    for each in records:
        recorder.tick(each)
    recorder.close(result())
    return path


def kinds(path: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in path.read_bytes().splitlines()]


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    records = [
        record(1, tree("RRI"), ages=MappingProxyType({"joints": 0.004, "main": math.inf})),
        record(2, tree("RRI", feedback="half"), asked=None, sent=None, holding="stopped"),
        record(3, tree("SSS"), asked={"a": math.nan, "b": -math.inf}),
    ]
    flight = read_flight(recorded(tmp_path / "f.jsonl", records))
    assert flight.run == {"skill": "local/pick"}
    assert flight.damage is None
    assert flight.result == result()
    assert flight.dropped == 0
    for found, expected in zip(flight.ticks, records, strict=True):
        assert found.tree == expected.tree
        assert repr(replace(found, ages={})) == repr(replace(expected, ages={}))
        assert found.ages == expected.ages


def test_states_are_written_only_when_they_change_and_the_structure_once(tmp_path: Path) -> None:
    same = tree("RRI")
    path = recorded(tmp_path / "f.jsonl", [record(1, same), record(2, same), record(3, tree("RSR"))])
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert kinds(path) == ["header", "tree", "tick", "tick", "tick", "result"]
    assert [[state[0] for state in line.get("states", [])] for line in lines[2:5]] == [["0", "0.0"], [], ["0.0", "0.1"]]
    assert [each.tree.changed for each in read_flight(path).ticks] == [True, False, True]


def test_another_tree_in_the_same_run_is_followed(tmp_path: Path) -> None:
    other = tree("RRI", names=("root", "x", "y"))
    path = recorded(tmp_path / "f.jsonl", [record(1, tree("RSR")), record(2, other)])
    flight = read_flight(path)
    assert kinds(path).count("tree") == 2
    assert flight.ticks[1].tree.nodes == other.nodes


def test_summary(tmp_path: Path) -> None:
    records = [record(1, tree("RRI")), record(2, tree("RSR")), record(4, tree("SSS"))]
    summary = read_flight(recorded(tmp_path / "f.jsonl", records)).summary()
    assert (summary.outcome, summary.reason, summary.timing) == (Outcome.DONE, "progress passed 0.95", TIMING)
    assert [(c.tick, c.name, c.before[0] + c.after[0]) for c in summary.changes] == [
        (1, "root", "IR"),
        (1, "a", "IR"),
        (2, "a", "RS"),
        (2, "b", "IR"),
        (4, "root", "RS"),
        (4, "b", "RS"),
    ]
    assert {n.name: (round(n.running_s, 6), n.running_ticks) for n in summary.nodes} == {
        "root": (0.12, 2),
        "a": (0.04, 1),
        "b": (0.08, 1),
    }


def test_a_full_queue_drops_counts_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = FlightRecorder(tmp_path / "f.jsonl", {}, capacity=3)
    sizes = iter([0, 3, 3, 0])  # the disk is slow in between
    monkeypatch.setattr(recorder, "_queue", _Sized(recorder._queue, sizes))
    for tick in range(1, 5):
        recorder.tick(record(tick, tree("RRI" if tick < 3 else "RSR")))
    recorder.close()
    flight = read_flight(recorder.path)
    assert recorder.dropped == flight.dropped == 2
    assert [each.tick for each in flight.ticks] == [1, 4]
    assert flight.ticks[1].tree.nodes == tree("RSR").nodes


class _Sized:
    def __init__(self, queue: object, sizes: object):
        self._queue, self._sizes = queue, sizes

    def qsize(self) -> int:
        return next(self._sizes)  # type: ignore[call-overload,no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self._queue, name)


def test_events_stand_between_ticks(tmp_path: Path) -> None:
    recorder = FlightRecorder(tmp_path / "f.jsonl", {})
    recorder.event("loaded", file=Path("a.pth"), loss=math.nan, spec={"joints": np.arange(2)})
    recorder.tick(record(1, tree("RRI")))
    recorder.event("stop", by="operator")
    recorder.close(result(Outcome.CANCELLED))
    first, second = read_flight(recorder.path).events
    assert (first.name, first.time_s, first.data["file"], first.data["spec"]) == (
        "loaded",
        None,
        "a.pth",
        {"joints": [0, 1]},
    )
    assert math.isnan(first.data["loss"])
    assert (second.name, second.time_s, second.data) == ("stop", 0.04, {"by": "operator"})


def test_close_twice_and_late_records(tmp_path: Path) -> None:
    recorder = FlightRecorder(tmp_path / "f.jsonl", {})
    recorder.close(result())
    recorder.tick(record(1, tree("RRI")))
    recorder.close()
    assert recorder.dropped == 1
    assert kinds(recorder.path) == ["header", "result"]


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text("mine")
    with pytest.raises(FlightError, match="never overwritten"):
        FlightRecorder(path, {})
    assert path.read_text() == "mine"


def test_a_directory_that_is_not_there_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(FlightError, match=r"missing/f\.jsonl"):
        FlightRecorder(tmp_path / "missing" / "f.jsonl", {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path: Path) -> None:
    recorder = FlightRecorder(tmp_path / "f.jsonl", {})
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, recorder._file)
    os.close(full)
    for tick in range(1, 50):
        recorder.tick(record(tick, tree("RRI")))
    with pytest.raises(FlightError, match="No space left"):
        recorder.close(result())
    assert recorder.problem is not None
    assert "f.jsonl" in recorder.problem


def test_a_record_that_cannot_be_encoded_is_reported(tmp_path: Path) -> None:
    recorder = FlightRecorder(tmp_path / "f.jsonl", {})
    recorder.tick(record(1, tree("RRI"), ages={"joints": "soon"}))
    with pytest.raises(FlightError, match="TypeError"):
        recorder.close(result())


@pytest.mark.parametrize(
    "name", ["local/pick-up cup", "../../etc/passwd", "a\0b\n", "", "日本", "x" * 500, "..", "-rf"]
)
def test_paths_are_safe_and_unique(tmp_path: Path, name: str) -> None:
    first = new_flight_path(tmp_path / "flights", name)
    first.touch()
    second = new_flight_path(tmp_path / "flights", name)
    assert first != second
    assert first.parent == second.parent == tmp_path / "flights"
    assert first.name.isascii()
    assert len(first.name) < 128


KILLED = """
import os, signal, sys, time
from pathlib import Path
from btruntime.flight import FlightRecorder
from btruntime.events import *
def tree(tick):
    node = NodeSnapshot("0", "n", NodeType.LEAF, "Leaf", None, NodeStatus.RUNNING, f"step {tick}", ())
    return TreeSnapshot((node,), tick, tick * 0.04, True)
recorder = FlightRecorder(Path(sys.argv[1]), {"skill": "x"})
for tick in range(1, 100_000):
    recorder.tick(TickRecord(tick, tick * 0.04, tree(tick), {}, None, None, 0.0, 0.0))
    if tick == 200:
        print("going", flush=True)
    time.sleep(0.0005)
"""


def test_a_killed_run_is_readable_up_to_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"going\n"
        process.send_signal(signal.SIGKILL)
    flight = read_flight(path)
    assert flight.result is None
    assert len(flight.ticks) > 100
    for each in flight.ticks:
        assert each.tree.root.feedback == f"step {each.tick}"
    summary = flight.summary()
    assert summary.outcome is None
    assert "without a result" in summary.reason or "cut off" in summary.reason
    assert summary.ticks == len(flight.ticks)


@settings(deadline=None)
@given(cut=st.integers(0, 10_000))
def test_a_recording_cut_anywhere_gives_a_prefix(whole_recording: Path, cut: int) -> None:
    content = whole_recording.read_bytes()
    header, cut = content.index(b"\n"), cut % len(content)
    cut_path = whole_recording.with_name("cut.jsonl")
    cut_path.write_bytes(content[:cut])
    if cut < header:
        with pytest.raises(FlightError, match="no flight recording"):
            read_flight(cut_path)
        return
    flight = read_flight(cut_path)
    assert flight.ticks == read_flight(whole_recording).ticks[: len(flight.ticks)]
    assert (flight.damage is None) == (cut == header or content[cut - 1 : cut] == b"\n")


@settings(deadline=None)
@given(number=st.integers(1, 5), line=st.binary(max_size=60))
def test_a_damaged_line_ends_the_reading_there(whole_recording: Path, number: int, line: bytes) -> None:
    lines = whole_recording.read_bytes().split(b"\n")
    lines[number] = line.replace(b"\n", b"") + b"}"
    damaged = whole_recording.with_name("damaged.jsonl")
    damaged.write_bytes(b"\n".join(lines))
    flight = read_flight(damaged)
    assert flight.damage is not None
    assert f"line {number + 1} is damaged" in flight.damage
    assert flight.result is None


@pytest.fixture(scope="module")
def whole_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flight") / "whole.jsonl"
    return recorded(path, [record(1, tree("RRI")), record(2, tree("RSR", feedback="é\x1b")), record(3, tree("SSS"))])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no flight recording"),
        (b"{}\n", "no flight recording"),
        (b"[" * 100_000 + b"\n", "no flight recording"),
        (b'{"nonfinite":3}\n', "no flight recording"),
        (b'{"format":"btruntime-flight","version":9}\n', "version 9"),
    ],
)
def test_what_is_not_a_recording_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    with pytest.raises(FlightError, match=message):
        read_flight(path)
    with pytest.raises(FlightError, match="cannot be read"):
        read_flight(tmp_path)


def test_lines_of_a_later_btruntime_are_passed_over(whole_recording: Path, tmp_path: Path) -> None:
    lines = whole_recording.read_bytes().split(b"\n")
    lines.insert(3, b'{"kind":"hologram","of":[1]}')
    later = tmp_path / "later.jsonl"
    later.write_bytes(b"\n".join(lines))
    assert read_flight(later).ticks == read_flight(whole_recording).ticks


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(data=st.dictionaries(st.text(), JSON, max_size=4))
def test_any_data_survives_as_ascii_json(tmp_path_factory: pytest.TempPathFactory, data: dict[str, object]) -> None:
    line = encode({"kind": "event", "name": "x", "at_utc": "", "data": data})
    line.decode("ascii")
    assert line.count(b"\n") == 1
    path = tmp_path_factory.mktemp("any") / "f.jsonl"
    path.write_bytes(encode({"kind": "header", "format": "btruntime-flight", "version": 1}) + line)
    flight = read_flight(path)
    assert repr(flight.events[0].data) == repr(data)


def test_what_json_cannot_say_becomes_its_type() -> None:
    class Colour(Enum):
        RED = "red"

    loop: list[object] = []
    loop.append(loop)
    assert plain_json({"o": object(), "c": Colour.RED, "z": np.array([1j]), "e": ValueError("why"), 3: {4}}) == {
        "o": "<object>",
        "c": "red",
        "z": ["<complex>"],
        "e": "why",
        "3": [4],
    }
    assert "<list>" in json.dumps(plain_json(loop))
