from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from foreign_parts import actions, write_reference

from foundation.files import sha256_of
from policies.checkpoint import CheckpointError, load
from policies.importers import ImportedPolicy, ImportOptions, PolicyImportError, install, recognise
from policies.manifest import read_run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_reference(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def skill(tmp_path: Path) -> Path:
    (tmp_path / "skill").mkdir()
    return tmp_path / "skill"


def imported(source: Path) -> ImportedPolicy:
    return recognise(source).read(source, ImportOptions())


def test_it_loads_as_a_run_of_our_own(source: Path, skill: Path) -> None:
    made = write_reference(source)
    directory = install(imported(source), skill, "7", software="x 1")
    loaded = load(directory / "act_policy_step_100.pth")
    assert torch.equal(actions(loaded.network), actions(made))
    assert {path.name for path in directory.iterdir()} == {"act_policy_step_100.pth", "dataset_stats.pt", "run.json"}
    assert list(skill.iterdir()) == [directory]


def test_it_says_where_it_came_from(source: Path, skill: Path) -> None:
    manifest = read_run(install(imported(source), skill, "7", software="x 1"))
    origin = manifest.origin
    assert (origin["format"], origin["source"], manifest.software) == ("reference robot", str(source), "x 1")
    assert origin["files"]["act_policy_step_100.pth"] == sha256_of(source / "act_policy_step_100.pth")
    assert "dataset_stats.pt agrees" in origin["statistics"]
    assert any("RGB" in note for note in origin["notes"])
    assert (manifest.metrics["checkpoint"], manifest.metrics["step"]) == ("act_policy_step_100.pth", 100)


def test_what_is_there_stays(source: Path, skill: Path) -> None:
    (skill / "7").mkdir()
    with pytest.raises(PolicyImportError, match="exists already"):
        install(imported(source), skill, "7")
    assert [path.name for path in skill.iterdir()] == ["7"]


def test_it_is_there_whole_or_not_at_all(source: Path, skill: Path) -> None:
    good = imported(source)
    bad = dataclasses.replace(good, state_dict={**good.state_dict, "w": torch.tensor([torch.inf])})
    with pytest.raises(CheckpointError, match="not finite"):
        install(bad, skill, "7")
    with pytest.raises(PolicyImportError, match="cannot be written"):
        install(good, skill / "absent", "7")
    assert list(skill.iterdir()) == []


def test_a_run_of_our_own_is_not_imported(source: Path, skill: Path) -> None:
    directory = install(imported(source), skill, "7")
    for path in (directory, directory / "act_policy_step_100.pth"):
        with pytest.raises(PolicyImportError, match="run of btruntime already"):
            recognise(path)
