"""Commands through their entry point, as a person types them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from btruntime.cli.commands.demo import _next_commands
from btruntime.cli.main import main
from btruntime.cli.output import say, say_lines
from btruntime.events import NodeSnapshot, NodeStatus, NodeType, TickRecord, TreeSnapshot
from btruntime.flight import FlightRecorder

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "Traceback" not in out + err
    return status, out, err


@pytest.fixture
def skills(tmp_path: Path) -> Path:
    broken = tmp_path / "skills" / "broken"
    broken.mkdir(parents=True)
    (broken / "metadata.json").write_text("{")
    return tmp_path / "skills"


def test_a_broken_skill_is_listed_as_such(skills: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ran(capsys, "skills", "list", "--skills-dir", skills)
    (line,) = [line for line in out.splitlines() if line.startswith("local/broken")]
    assert status == 0
    assert "broken: " in line


def test_a_broken_skill_is_listed_as_such_in_json(skills: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ran(capsys, "skills", "list", "--skills-dir", skills, "--json")
    (found,) = [each for each in json.loads(out)["skills"] if each["id"] == "local/broken"]
    assert status == 0
    assert (found["type"], found["state"]) == (None, "broken")
    assert "metadata.json" in found["problem"]


def test_what_the_disk_refuses_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    where = ("--skills-dir", tmp_path / "s", "--agents-dir", tmp_path / "a")
    for arguments in (
        ("tree", "wave", "-o", tmp_path / "none" / "x.svg", *where),
        ("run", "rest", "--fast", "--quiet", "--flights-dir", file / "x", *where),
        ("demo", "--dir", file),
    ):
        status, out, err = ran(capsys, *arguments)
        assert (status, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith(f"btruntime: {tmp_path}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--seed", "-1"),
        ("demo", "--scenes", "0"),
        ("demo", "--demonstrations", "many"),
        ("evaluate", "x", "--workers", "0"),
        ("evaluate", "x", "--scenes", "1.5"),
        ("evaluate", "x", "--seed", "-3"),
        ("record", "x", "--episodes", "0"),
    ],
)
def test_a_number_out_of_range_is_wrong_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"{arguments[-1]!r} is not a whole number" in capsys.readouterr().err


# Nothing that a file says steers the terminal; `ran` looks for raw escapes.


def test_a_skill_directory_with_an_escape_sequence(skills: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate((ESCAPE, "two\nlines")):
        skill = skills / f"{name}{number}"
        skill.mkdir()
        (skill / "metadata.json").write_text("[]")
    before = len(ran(capsys, "skills", "list", "--skills-dir", skills / "none")[1].splitlines())
    assert len(ran(capsys, "skills", "list", "--skills-dir", skills)[1].splitlines()) == before + 3
    ran(capsys, "skills", "show", f"{ESCAPE}0", "--skills-dir", skills)
    ran(capsys, "dataset", "list", f"{ESCAPE}0", "--skills-dir", skills)
    ran(capsys, "check", f"{ESCAPE}0", "--skills-dir", skills)
    assert ran(capsys, "check", f"{ESCAPE}-none", "--skills-dir", skills)[0] == 1


def test_an_agent_with_an_escape_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tidy.py").write_text(
        "from btruntime import Agent\n\n\n"
        "class Tidy(Agent):\n"
        "    id = 'tidy'\n"
        f"    display_name = 'Tidy' + {ESCAPE!r}\n\n"
        "    def get_skills(self):\n"
        "        return []\n\n"
        "    def get_prompt(self):\n"
        "        return ''\n"
    )
    (tmp_path / "broken.py").write_text(f"raise ValueError({ESCAPE!r})\n")
    status, out, _ = ran(capsys, "agents", "--agents-dir", tmp_path)
    assert status == 0
    assert "Tidy" in out
    assert "ValueError" in out
    assert ran(capsys, "tree", "tidy", "--agents-dir", tmp_path, "--skills-dir", tmp_path / "s")[0] == 1


def test_a_flight_record_with_an_escape_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flight.jsonl"
    recorder = FlightRecorder(path, {"target": ESCAPE})
    for tick, status in enumerate((NodeStatus.RUNNING, NodeStatus.FAILURE), 1):
        recorder.tick(record(tick, status))
    recorder.close()
    status, out, _ = ran(capsys, "flight", path)
    assert status == 0
    assert "owned" in out


def record(tick: int, status: NodeStatus) -> TickRecord:
    node = NodeSnapshot("0", ESCAPE, NodeType.LEAF, "Leaf", None, status, ESCAPE, ())
    tree = TreeSnapshot((node,), tick, tick * 0.04, changed=True)
    return TickRecord(
        tick=tick,
        time_s=tick * 0.04,
        tree=tree,
        ages={},
        asked=None,
        sent=None,
        lateness_s=0.0,
        work_s=0.0,
        holding=False,
    )


def test_only_line_breaks_that_are_meant_are_line_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb\x1b")
    say_lines("a\nb\x1b")
    assert capsys.readouterr().out == "a b\ufffd\na\nb\ufffd\n"


def test_the_next_commands_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["/opt/my venv/bin/btruntime", "demo"])
    run, _, flight = _next_commands(tmp_path / "a demo", tmp_path / "a demo" / "f.jsonl")
    assert run.startswith("'/opt/my venv/bin/btruntime' run pick-up-cube")
    assert run.endswith(f"--skills-dir '{tmp_path}/a demo/skills'")
    assert flight.endswith(f"flight '{tmp_path}/a demo/f.jsonl'")
