"""`btruntime train run`: what a resumed run takes from the run itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from btruntime.cli.main import main
from btruntime.training.local import TrainingStoppedError
from skills.store import SkillStore


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--resume", "3"), (None, [], True)),
        (("--resume", "3", "--set", "threads=2"), (None, ["threads=2"], True)),
        (("--preset", "demo"), ("demo", [], False)),
        ((), (None, [], False)),
    ],
)
def test_a_resumed_run_needs_no_preset(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    expected: tuple[str | None, list[str], bool],
) -> None:
    asked: list[Any] = []

    def stopped(skill_dir: Path, run_id: str, *, preset: str | None, assignments: Any, resume: bool, **_: Any) -> Path:
        asked.append((preset, assignments, resume))
        raise TrainingStoppedError(f"To go on: btruntime train run x --resume {run_id}", 15)

    monkeypatch.setattr("btruntime.training.local.train_locally", stopped)
    SkillStore(tmp_path).create("x")
    assert main(["train", "run", "x", "--skills-dir", str(tmp_path), *options]) == 128 + 15
    assert asked == [expected]
    assert "btruntime train run x --resume" in capsys.readouterr().err
