"""Real statistics and configs of other programs, as an import sees them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.importers import Description, ImportedPolicy, ImportOptions, PolicyImportError, install, recognise
from policies.importers.lerobot import LeRobotConfig
from policies.importers.original import read_statistics
from policies.importers.safetensors_file import read_safetensors
from policies.importers.unpickle import load_arrays
from policies.normalize import StatisticsError

CHECKPOINTS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "checkpoints"
LEROBOT = CHECKPOINTS / "lerobot_act"
NORMALISER = CHECKPOINTS / "lerobot_normalizer_sample.safetensors"

pytestmark = pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason="the real checkpoints are not here")

DESCRIPTION = Description.model_validate(
    {
        "robot": "so101",
        "joints": ["pan", "lift", "elbow", "flex", "roll", "gripper"],
        "grippers": ["gripper"],
        "action": "joints",
        "state_scale": 0.0174533,
        "data_frequency_hz": 30,
    }
)


def imported(path: Path) -> ImportedPolicy:
    return recognise(path).read(path, ImportOptions(DESCRIPTION))


def test_weights_that_are_not_there_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(PolicyImportError, match=r"model\.safetensors is missing: the weights are not here"):
        install(imported(LEROBOT), tmp_path, "1")
    assert list(tmp_path.iterdir()) == []


def test_the_real_config_is_read() -> None:
    config = LeRobotConfig.model_validate_json((LEROBOT / "config.json").read_bytes())
    assert list(config.input_features) == ["observation.state", "observation.images.top", "observation.images.wrist"]
    assert config.input_features["observation.images.wrist"].shape == (3, 1080, 1920)
    assert (config.chunk_size, config.n_decoder_layers, config.output_features["action"].shape) == (100, 1, (6,))


@pytest.fixture
def completed(tmp_path: Path) -> Iterator[Path]:
    """The real config and processors, with weights and statistics made up."""
    directory = tmp_path / "policy"
    directory.mkdir()
    for name in ("config.json", "policy_preprocessor.json", "policy_postprocessor.json"):
        shutil.copyfile(LEROBOT / name, directory / name)
    config = ACTConfig(chunk_size=100, state_dim=6, action_dim=6, cameras=("top", "wrist"), decoder_layers=1)
    torch.manual_seed(0)
    network = ACTNetwork(config)
    weights = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("model.")}
    save_file(weights, directory / "model.safetensors")
    values = {
        "observation.state.mean": torch.arange(6.0),
        "observation.state.std": torch.ones(6) * 20,
        "action.mean": torch.arange(6.0),
        "action.std": torch.ones(6) * 30,
    }
    for camera in ("top", "wrist"):
        values |= {
            f"observation.images.{camera}.{part}": torch.full((3, 1, 1), value)
            for part, value in (("mean", 0.5), ("std", 0.2))
        }
    for which, step in (("preprocessor_step_3_normalizer", 3), ("postprocessor_step_0_unnormalizer", 0)):
        save_file({**values, "index.count": torch.tensor([step])}, directory / f"policy_{which}_processor.safetensors")
    yield directory
    shutil.rmtree(tmp_path)


def test_completed_it_is_imported(completed: Path, tmp_path: Path) -> None:
    found = imported(completed)
    assert [(each.name, each.height, each.width) for each in found.spec.cameras] == [
        ("top", 720, 1280),
        ("wrist", 1080, 1920),
    ]
    assert found.statistics.action.std == pytest.approx(np.full(6, 30 * 0.0174533, np.float32))
    assert found.provenance.statistics == (
        "policy_preprocessor_step_3_normalizer_processor.safetensors, "
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    )
    assert found.execution == {"n_action_steps": 100}
    run = install(found, tmp_path, "1")
    assert json.loads((run / "run.json").read_text())["input_spec"]["robot"] == "so101"
    (completed / "policy_preprocessor_step_3_normalizer_processor.safetensors").unlink()
    with pytest.raises(PolicyImportError, match=r"step_3_normalizer_processor\.safetensors is missing"):
        imported(completed)


def test_statistics_of_another_policy_are_refused(completed: Path) -> None:
    values = read_safetensors(NORMALISER, "the statistics")
    assert set(load_file(NORMALISER)) == set(values)
    assert values["observation.state.mean"].shape == (2,)
    for path in completed.glob("policy_*processor.safetensors"):
        save_file({name: tensor.clone() for name, tensor in values.items()}, path)
    with pytest.raises(StatisticsError, match=r"observation\.state have shape \(2,\), expected \(6,\)"):
        imported(completed)


def test_the_pickle_of_an_original_training_is_read_without_running_it() -> None:
    path = CHECKPOINTS / "act_dataset_stats_14d.pkl"
    arrays = load_arrays(path)
    assert set(arrays) == {"action_mean", "action_std", "qpos_mean", "qpos_std", "example_qpos"}
    assert arrays["example_qpos"].shape[0] == 200
    found = read_statistics(path, ("top",))
    assert found.action.mean.shape == found.state.std.shape == (8,)
    assert found.state.std.min() == pytest.approx(0.01)
