"""`btruntime evaluate` on recordings, as a person types it, and how it chooses between recordings and scenes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from open_loop_bench import HELD_OUT, HYPERPARAMETERS, add_run, make_skill

from btruntime.cli.main import main
from btruntime.open_loop import open_loop

KEYS = {
    "open_loop_l1", "baseline_mean_l1", "baseline_median_l1", "baseline_hold_l1", "baseline_median_by_frame_l1",
    "horizon", "episodes", "training_episodes", "run_id", "checkpoint", "plot", "by_dim", "notes",
}  # fmt: skip


def ran(capsys: pytest.CaptureFixture[str], skill: Path, *arguments: object) -> tuple[int, str, str]:
    words = ["evaluate", skill.name, "--skills-dir", skill.parent, *arguments]
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def test_the_table_and_the_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skill = make_skill(tmp_path)
    add_run(skill)
    status, out, err = ran(capsys, skill, "--device", "cpu", "--json")
    assert status == 0
    lines = out.splitlines()
    found = json.loads(lines[-1])
    assert set(found) == KEYS
    report = open_loop(skill, device="cpu")
    assert found["open_loop_l1"] == report.policy.l1
    assert found["episodes"] == [HELD_OUT]
    assert found["by_dim"]["lift"]["unit"] == "rad"
    assert found["by_dim"]["lift"]["mean"] == pytest.approx(7.4)
    assert found["by_dim"]["pan"]["policy"] == report.policy.by_dim[0]
    assert found["plot"] == str(skill / "1" / "open_loop.png")
    assert (skill / "1" / "open_loop.png").read_bytes().startswith(b"\x89PNG")
    (policy,) = [line for line in lines if line.startswith("policy ")]
    assert policy.split() == ["policy", f"{report.policy.l1:.3f}", "1.00"]
    (mean,) = [line for line in lines if line.startswith("mean ")]
    assert mean.split()[2] == f"{report.policy.l1 / found['baseline_mean_l1']:.2f}"
    assert "not allowed" not in err


def test_without_either_the_episodes_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skill = make_skill(tmp_path / "real")
    add_run(skill)
    status, out, err = ran(capsys, skill, "--json")
    assert status == 0
    assert "open-loop, because its episodes were not recorded in simulated scenes" in err
    assert "open_loop_l1" in json.loads(out.splitlines()[-1])

    # The robot of these episodes is none that `sim:demo` is: it is refused before a scene is begun.
    simulated = make_skill(tmp_path / "simulated", seed=7)
    add_run(simulated)
    status, out, err = ran(capsys, simulated, "--workers", "1")
    assert status == 1
    assert "in 20 simulated scenes, because its episodes were recorded in some" in err
    assert "cannot run on robot" in err
    assert ran(capsys, simulated, "--open-loop", "--no-plot")[0] == 0


def test_an_option_about_recordings_means_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skill = make_skill(tmp_path, seed=7)
    add_run(skill)
    status, out, _ = ran(capsys, skill, "--episodes", "2", "--horizon", "1", "--no-plot", "--json")
    found = json.loads(out.splitlines()[-1])
    assert (status, found["horizon"], found["plot"]) == (0, 1, None)
    assert not (skill / "1" / "open_loop.png").exists()
    with pytest.raises(SystemExit) as ended:
        ran(capsys, skill, "--scenes", "3", "--run", "1")
    assert ended.value.code == 2
    assert "--scenes: not allowed with --run" in capsys.readouterr().err


def test_training_episodes_only_when_insisted_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skill = make_skill(tmp_path)
    add_run(skill)
    status, _, err = ran(capsys, skill, "--episodes", "0,2")
    assert status == 1
    assert "was trained on episode_0.h5" in err
    target = tmp_path / "there.png"
    status, _, err = ran(capsys, skill, "--episodes", "0,2", "--training-episodes", "--plot", target)
    assert status == 0
    assert "note: the policy was trained on episode_0.h5" in err
    assert target.exists()


def test_the_numbers_come_before_a_picture_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skill = make_skill(tmp_path)
    add_run(skill)
    status, out, err = ran(capsys, skill, "--plot", tmp_path / "none" / "x.png")
    assert status == 1
    assert "policy " in out
    assert "No such file" in err


def test_episodes_that_chose_the_checkpoint_are_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skill = make_skill(tmp_path)
    add_run(skill, hyperparameters={**HYPERPARAMETERS, "held_out_episodes": [], "validation_episodes": [HELD_OUT]})
    status, _, err = ran(capsys, skill, "--no-plot")
    assert status == 0
    assert f"note: {HELD_OUT} also chose the checkpoint" in err


def test_a_skill_without_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "code.py").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metadata.json").write_text("{")
    for skill, why in (
        ("wave", "a replay skill"),
        ("code", "a code skill"),
        ("broken", "metadata.json: not valid JSON"),
    ):
        for options in ((), ("--open-loop",), ("--scenes", "1")):
            status, out, err = ran(capsys, tmp_path / skill, *options)
            assert (status, out) == (1, "")
            assert f"{skill} cannot be evaluated: " in err
            assert why in err


@pytest.mark.parametrize("text", ["", "3,x", "-1", "1,,2"])
def test_what_is_no_list_of_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "x", f"--episodes={text}"])
    assert ended.value.code == 2
    assert "is not a whole number of 0 or more" in capsys.readouterr().err


_PROGRAM = """
import os, signal, sys
import btruntime.training.trainer.validation as validation
from btruntime.cli import main

measure = validation.measure

def stopped(*arguments, **options):
    os.kill(os.getpid(), int(sys.argv.pop()))
    return measure(*arguments, **options)

validation.measure = stopped
sys.exit(main(sys.argv[1:-1]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_asked(tmp_path: Path, number: signal.Signals) -> None:
    skill = make_skill(tmp_path)
    add_run(skill)
    arguments = ["evaluate", skill.name, "--skills-dir", str(tmp_path), "--json", str(int(number))]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 128 + number, done.stderr
    assert f"btruntime: stopped by {number.name}." in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (skill / "1" / "open_loop.png").exists()
