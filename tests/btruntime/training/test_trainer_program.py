"""The trainer as a program: lines on stdout, signals, exit status, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from btruntime.training.trainer.config import TrainerConfig
from btruntime.training.trainer.program import main
from policies.manifest import read_run

from .conftest import MakeSkill

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def written(config: TrainerConfig, directory: Path, **changes: object) -> Path:
    path = directory / "config.json"
    path.write_text(config.model_copy(update=changes).model_dump_json())
    return path


def test_it_reports_in_lines(
    make_skill: MakeSkill, tiny: TrainerConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skill, config = make_skill(), written(tiny, tmp_path)
    assert main(["--skill-dir", str(skill), "--config", str(config), "--set", "max_steps=50", "--progress-lines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert [line for line in lines if line.startswith("@@")] == [
        "@@INNATE_PROGRESS step=25 total=50",
        "@@INNATE_PROGRESS step=50 total=50",
    ]
    progress = next(event for event in events if event["event"] == "progress")
    assert set(progress) == {"event", "step", "total", "loss", "l1", "kl", "lr", "steps_per_s", "eta_s"}
    assert events[-1]["event"] == "finished"
    assert read_run(skill / "1").metrics["finished"]


def test_a_mistake_is_one_sentence(make_skill: MakeSkill, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--skill-dir", str(tmp_path / "none")]) == 1
    assert "holds no episode" in capsys.readouterr().err
    assert main(["--skill-dir", str(make_skill()), "--set", "max_step=3"]) == 1
    assert "max_step is no hyperparameter" in capsys.readouterr().err
    assert main(["--skill-dir", str(make_skill()), "--resume"]) == 1
    assert "--run-id is missing" in capsys.readouterr().err


def test_sigterm_saves_and_the_run_goes_on(make_skill: MakeSkill, tiny: TrainerConfig, tmp_path: Path) -> None:
    skill, config = make_skill(), written(tiny, tmp_path, max_steps=1_000_000, log_every=1)
    command = [sys.executable, "-m", "btruntime.training.trainer", "--skill-dir", str(skill), "--config", str(config)]
    with subprocess.Popen(
        [*command, "--run-id", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if '"progress"' in line:
                break
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert said.startswith("stopped after step ")
    assert said.rstrip().endswith(f"btruntime train run {skill.name} --resume 1 --skills-dir {skill.resolve().parent}")
    assert len(said.splitlines()) == 1
    assert {path.name for path in (skill / "1").iterdir()} == {"resume.pt"}
    resume = ["--skill-dir", str(skill), "--run-id", "1", "--resume"]
    assert main([*resume, "--set", "batch_size=3"]) == 1
    assert main([*resume, "--set", "max_minutes=1e-9"]) == 0
    assert read_run(skill / "1").metrics["step"] > 1
    assert read_run(skill / "1").hyperparameters["chunk_size"] == tiny.chunk_size
    assert main(resume) == 0


@pytest.mark.slow
def test_torchrun_trains_in_two_processes(make_skill: MakeSkill, tiny: TrainerConfig, tmp_path: Path) -> None:
    skill, config = make_skill(), written(tiny, tmp_path, log_every=1)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    program = ["-m", "btruntime.training.trainer", "--skill-dir", str(skill), "--config", str(config), "--run-id", "7"]
    done = subprocess.run([*command, *program], capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [event["step"] for event in events if event["event"] == "progress"] == [1, 2, 3, 4, 5, 6]
    assert read_run(skill / "7").metrics["finished"]


@pytest.mark.parametrize("write", ["runs.torch.save", "outputs.write_run"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("No space left on device")])
def test_a_full_disk_is_one_sentence(
    make_skill: MakeSkill,
    tiny: TrainerConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    write: str,
    error: Exception,
) -> None:
    if write == "outputs.write_run" and isinstance(error, RuntimeError):
        pytest.skip("it is torch alone that says it so")
    save, skill = torch.save, make_skill()

    def full(content: object, *where: object) -> None:
        if write != "runs.torch.save" or (isinstance(content, dict) and "record" in content):
            raise error
        save(content, *where)

    monkeypatch.setattr(f"btruntime.training.trainer.{write}", full)
    config = written(tiny, tmp_path)
    assert main(["--skill-dir", str(skill), "--run-id", "1", "--config", str(config)]) == 1
    said = capsys.readouterr().err
    assert said.endswith(". Is the disk full? Free some space, and resume the run.\n")
    assert "cannot be written (" in said
    assert "No space left on device" in said
    if write == "runs.torch.save":
        assert str(skill / "1" / "resume.pt") in said
