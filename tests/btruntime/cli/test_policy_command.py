"""`btruntime policy`: import, show, export."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from btruntime.cli.main import main
from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.manifest import read_run
from policies.normalize import MeanStd, Statistics, save_statistics
from skills.metadata import LearnedExecution
from skills.store import SkillStore

FILE = "act_policy_step_40.pth"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint of the reference robot, but small."""

    def of(*shape: int) -> MeanStd:
        return MeanStd(np.zeros(shape), np.ones(shape))

    config = ACTConfig.model_validate(
        {
            **{"chunk_size": 4, "state_dim": 6, "action_dim": 10, "cameras": ("camera_1", "camera_2")},
            **{"dim_model": 16, "dim_feedforward": 16, "encoder_layers": 1, "decoder_layers": 1},
            **{"vae_encoder_layers": 1, "latent_dim": 4, "backbone_width": 2},
        }
    )
    statistics = Statistics(of(6), of(10), MappingProxyType(dict.fromkeys(config.cameras, of(3, 1, 1))))
    directory = tmp_path / "downloaded"
    directory.mkdir()
    torch.save(dict(ACTNetwork(config, statistics).state_dict()), directory / FILE)
    save_statistics(directory / "dataset_stats.pt", statistics)
    return directory


@pytest.fixture
def skills(tmp_path: Path) -> Path:
    return tmp_path / "skills"


def brought(source: Path, skills: Path, *options: str) -> int:
    return main(["policy", "import", str(source), "--skill", "pick", "--skills-dir", str(skills), *options])


def execution(skills: Path) -> LearnedExecution:
    metadata = SkillStore(skills).get("pick").metadata
    assert metadata is not None
    assert isinstance(metadata.execution, LearnedExecution)
    return metadata.execution


def last_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_policy_becomes_a_run_that_the_skill_uses(
    source: Path, skills: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert brought(source, skills, "--json") == 0
    said = last_json(capsys)
    assert (said["skill"], said["run_id"], said["activated"]) == ("local/pick", "1", True)
    assert execution(skills).checkpoint == f"1/{FILE}"
    assert execution(skills).action_dim == 10
    assert brought(source, skills, "--no-activate", "--colour", "bgr", "--run-id", "other") == 0
    assert "--colour bgr" not in capsys.readouterr().err
    assert execution(skills).checkpoint == f"1/{FILE}"
    assert read_run(skills / "pick" / "other").input_spec.colour == "bgr"
    assert main(["train", "list", "pick", "--skills-dir", str(skills)]) == 0
    assert "finished   step 40" in capsys.readouterr().out


def test_guesses_are_told(source: Path, skills: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brought(source, skills) == 0
    told = capsys.readouterr().err
    for part in ("RGB", "--colour bgr", "camera_1 is main_camera", "30"):
        assert part in told


def test_a_refused_policy_leaves_nothing(source: Path, skills: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(source / FILE, weights_only=True)
    del state["model.action_head.bias"]
    torch.save(state, source / FILE)
    assert brought(source, skills) == 1
    assert "missing model.action_head.bias" in capsys.readouterr().err
    assert not skills.exists()


def test_a_description_of_another_kind_is_refused(
    source: Path, skills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dims = [{"name": f"a{number}", "kind": "teleport", "unit": "rad"} for number in range(10)]
    (tmp_path / "spec.json").write_text(json.dumps({"action": dims}))
    assert brought(source, skills, "--spec", str(tmp_path / "spec.json")) == 1
    assert "kind" in capsys.readouterr().err
    assert not skills.exists()


@pytest.mark.parametrize("run_id", ["../x", "data", "a/b", ""])
def test_a_run_has_a_plain_name(source: Path, skills: Path, run_id: str) -> None:
    assert brought(source, skills, "--run-id", run_id) == 1
    assert not skills.exists()


def test_a_skill_made_for_a_policy_that_cannot_be_written_goes_again(
    source: Path, skills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("policies.importers.install", full)
    assert brought(source, skills) == 1
    assert list(skills.iterdir()) == []


def test_only_learned_skills_take_a_policy(source: Path, skills: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SkillStore(skills).create("pick", "replay")
    assert brought(source, skills) == 1
    assert "cannot take a policy" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["pick", "{skills}/pick/1", "{skills}/pick/1/" + FILE, "{source}"])
def test_show(source: Path, skills: Path, capsys: pytest.CaptureFixture[str], where: str) -> None:
    assert brought(source, skills) == 0
    capsys.readouterr()
    command = ["policy", "show", where.format(skills=skills, source=source), "--skills-dir", str(skills)]
    assert main([*command, "--json"]) == 0
    shown = last_json(capsys)
    assert [camera["name"] for camera in shown["cameras"]] == ["main_camera", "arm_camera"]
    assert (shown["colour"], shown["chunk_size"], shown["data_frequency_hz"]) == ("rgb", 4, 30.0)
    assert (shown["format"], len(shown["sha256"]), len(shown["action"])) == ("reference robot", 64, 10)
    assert main(command) == 0
    text = capsys.readouterr().out
    for part in ("main_camera  224x224 RGB", "joint6", "base_linear  base_velocity in m/s", "0.13 s", "agrees"):
        assert part in text


def test_export(source: Path, skills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert brought(source, skills) == 0
    command = ["policy", "export", "pick", "--skills-dir", str(skills), "--form", "reference", "-o"]
    assert main([*command, str(tmp_path / "out")]) == 1
    assert "cannot run on the reference robot: its dim_model is 16" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")
def test_export_to_onnx(source: Path, skills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    assert brought(source, skills) == 0
    command = ["policy", "export", "pick", "--run", "1", "--skills-dir", str(skills), "--form", "onnx", "--json", "-o"]
    assert main([*command, str(tmp_path / "p.onnx")]) == 0
    assert last_json(capsys)["files"] == [str(tmp_path / "p.onnx")]
    assert (tmp_path / "p.onnx").stat().st_size > 10_000
