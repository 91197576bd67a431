from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from rich.console import Console

from btruntime.events import NodeSnapshot, NodeStatus, NodeType, TickRecord, TreeSnapshot
from btruntime.view.live import LiveTree, window
from btruntime.view.rows import Row, rows


def tree(*statuses: NodeStatus, feedback: str = "") -> TreeSnapshot:
    children = tuple(f"0.{index}" for index in range(len(statuses)))
    root = NodeSnapshot("0", "root", NodeType.SEQUENCE, "Sequence", True, NodeStatus.RUNNING, "", children)
    leaves = [
        NodeSnapshot(id_, f"leaf {id_}", NodeType.LEAF, "Leaf", None, status, feedback, ())
        for id_, status in zip(children, statuses, strict=True)
    ]
    return TreeSnapshot((root, *leaves), 1, 0.04, True)


def record(tick: int, snapshot: TreeSnapshot, **changes: object) -> TickRecord:
    whole = TickRecord(tick, 100 + tick * 0.04, snapshot, {"joints": 0.004}, None, None, 0.0002, 0.001)
    return replace(whole, **changes)  # type: ignore[arg-type]


def shown(records: list[TickRecord], console: Console, **options: object) -> str:
    with LiveTree(console=console, **options) as live:  # type: ignore[arg-type]
        for each in records:
            live.show(each)
    assert live.problem is None
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(autouse=True)
def _no_colour_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def terminal(height: int = 24) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80, height=height)


def plain_file() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


R, S, F, I = NodeStatus.RUNNING, NodeStatus.SUCCESS, NodeStatus.FAILURE, NodeStatus.INVALID  # noqa: E741


def test_a_file_gets_one_line_per_change_of_status() -> None:
    records = [
        record(0, tree(R, I)),
        record(1, tree(R, I, feedback="half way")),
        record(2, tree(S, R, feedback="there")),
        record(3, replace(tree(S, R), changed=False)),
        record(4, tree(S, F, feedback="no cup")),
    ]
    assert shown(records, plain_file()).splitlines() == [
        "    0.00 s  ▸ root",
        "    0.00 s  ▸ leaf 0.0",
        "    0.08 s  ✓ leaf 0.0 — there",
        "    0.08 s  ▸ leaf 0.1 — there",
        "    0.16 s  ✗ leaf 0.1 — no cup",
    ]


def test_no_color_asks_for_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown([record(0, tree(R))], terminal())


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown([record(0, tree(R))], terminal())


def test_a_terminal_gets_the_newest_tree_and_a_status_line() -> None:
    records = [record(tick, tree(R, I), lateness_s=0.006 if tick == 3 else 0.0002) for tick in range(5)]
    ages = {"joints": 0.004, "wrist": math.inf}
    records.append(record(5, tree(S, R, feedback="0.2 s of 3 s"), ages=ages, holding="stopped"))
    out = shown(records, terminal(), counts=lambda: {"clipped": 3, "rejected": 0})
    assert "0.2 s of 3 s" in out
    for part in ("0.2 s", "period 40.00 ms", "p99 6.00 ms, 1 late", "clipped 3", "joints 4 ms", "never", "holding"):
        assert part in out
    assert "rejected" not in out
    assert out.endswith("\x1b[?25h")  # the cursor is back


def test_markup_and_escape_sequences_are_shown_as_text() -> None:
    nasty = "[bold]x[/] [/nothing] \x1b[2J\x07"
    for console in (terminal(), plain_file()):
        out = shown([record(0, tree(R, feedback=nasty))], console)
        assert "[bold]x[/] [/nothing] \ufffd[2J\ufffd" in out
        assert "\x1b[2J" not in out


def test_a_terminal_without_unicode_gets_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with LiveTree(console=Console(file=file, width=80)) as live:
        live.show(record(0, tree(R, feedback="é")))
    file.flush()
    assert live.problem is None
    assert file.buffer.getvalue().decode("ascii").splitlines()[1] == "    0.00 s  > leaf 0.0 -- ?"  # type: ignore[attr-defined]


def test_a_tall_tree_is_shown_around_what_runs() -> None:
    lines = list(rows(tree(*[S] * 30, R, *[I] * 30)))
    assert [row.name for row in window(lines, 3)] == ["leaf 0.29", "leaf 0.30", "leaf 0.31"]
    assert window(lines, 100) == lines
    assert [row.name for row in window(list(rows(tree(*[S] * 30, R))), 3)] == ["leaf 0.28", "leaf 0.29", "leaf 0.30"]
    done = [Row(S, "", "", "", str(index), "") for index in range(9)]
    assert [row.name for row in window(done, 2)] == ["0", "1"]
    assert len(window(done, -5)) == 1
    out = shown([record(0, tree(*[S] * 60, R))], terminal(height=12))
    assert "leaf 0.60" in out
    assert "leaf 0.10" not in out


class StuckFile(io.StringIO):
    """A terminal that was stopped with ctrl-s."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.go_on.wait(30)
        return super().write(text)


def test_a_stuck_terminal_holds_up_nobody() -> None:
    file = StuckFile()
    live = LiveTree(console=Console(file=file, width=80), rate_hz=5)
    with live:
        live.show(record(0, tree(R)))
        assert file.reached.wait(10)
        for tick in range(1, 3000):
            live.show(record(tick, tree(R if tick % 2 else S)))
        file.go_on.set()
    live._thread.join(10)
    assert "changes came faster than they could be printed" in file.getvalue()


class LostFile(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_lost_terminal_is_said_and_nothing_else_happens() -> None:
    with LiveTree(console=Console(file=LostFile(), width=80)) as live:
        live.show(record(0, tree(R)))
    live._thread.join(10)
    assert live.problem is not None
    assert "Input/output error" in live.problem


ON_A_PTY = """
from btruntime.events import *
from btruntime.view.live import LiveTree
node = NodeSnapshot("0", "pick up", NodeType.LEAF, "Leaf", None, NodeStatus.RUNNING, "", ())
with LiveTree() as live:
    live.show(TickRecord(1, 0.04, TreeSnapshot((node,), 1, 0.04, True), {}, None, None, 0.0, 0.0))
print("problem:", live.problem)
"""


def test_on_a_real_terminal() -> None:
    try:
        ours, theirs = os.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal can be opened here: {error}")
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen([sys.executable, "-c", ON_A_PTY], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        out = b""
        try:
            while block := os.read(ours, 65536):
                out += block
        except OSError:
            pass  # the other end was closed
        finally:
            os.close(ours)
    assert process.returncode == 0
    assert "pick up" in out.decode()
    assert b"\x1b[?25h" in out
    assert b"problem: None" in out
