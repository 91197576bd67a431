"""`btruntime dataset check`, and the seeds that `record` and `evaluate` take from the episodes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from btruntime.cli.main import main
from btruntime.record.config import RecorderConfig
from btruntime.record.simulated import record_demonstrations
from hal.sim.pick import PickTask
from hal.sim.specs import reference_spec
from skills.episodes import list_episodes, recorded_seeds
from skills.episodes.index import INDEX_NAME
from skills.store import SkillStore


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Two small episodes of skill `x`, of the scenes 4 and 5."""
    entry = SkillStore(tmp_path).create("x")
    spec = reference_spec(width=12, height=10, main_hz=10.0, wrist_hz=10.0)
    record_demonstrations(
        PickTask(), spec, entry.data_dir, (4, 5), RecorderConfig(data_frequency=10.0), software="test 1"
    )
    return entry.data_dir


def check(data_dir: Path, *options: str) -> int:
    return main(["dataset", "check", "x", "--skills-dir", str(data_dir.parent.parent), *options])


def test_sound_episodes_pass_and_the_index_is_rebuilt(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data_dir / INDEX_NAME).unlink()
    assert check(data_dir, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"skill": "local/x", "episodes": 2, "problems": {}}
    assert (data_dir / INDEX_NAME).is_file()


def test_a_flipped_byte_and_a_cut_file_are_reported(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flipped, cut = data_dir / "episode_0.h5", data_dir / "episode_1.h5"
    before = flipped.stat()
    with flipped.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(flipped, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.truncate(cut, 5000)
    assert check(data_dir, "--json") == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert "SHA-256" in problems["episode_0.h5"]
    assert "cut short" in problems["episode_1.h5"]
    assert check(data_dir) == 1
    assert "2 episodes in" in capsys.readouterr().out


def test_a_skill_without_episodes_has_nothing_wrong(tmp_path: Path) -> None:
    SkillStore(tmp_path).create("x")
    assert check(tmp_path / "x" / "data") == 0


def test_the_scene_of_each_episode_is_known(data_dir: Path) -> None:
    assert [each.scene_seed for each in list_episodes(data_dir)] == [4, 5]
    (data_dir / INDEX_NAME).unlink()
    assert recorded_seeds(data_dir) == {4, 5}
    assert recorded_seeds(data_dir / "none") == frozenset()


@pytest.mark.parametrize(("options", "expected"), [((), 6), (("--seed", "3"), 3)])
def test_recording_goes_on_after_the_last_scene(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], expected: int
) -> None:
    asked: list[list[int]] = []

    def noted(task: object, spec: object, directory: object, seeds: range, *_: object, **__: object) -> list[object]:
        asked.append(list(seeds))
        return []

    monkeypatch.setattr("btruntime.record.simulated.record_demonstrations", noted)
    assert main(["record", "x", "--skills-dir", str(data_dir.parent.parent), "--episodes", "2", *options]) == 0
    assert asked == [[expected, expected + 1]]
