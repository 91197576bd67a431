from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_parts import DESCRIPTION, actions, restored, write_original

from policies.importers import Description, ImportedPolicy, ImportOptions, PolicyImportError, recognise
from policies.normalize import StatisticsError


def imported(path: Path, said: Description | None = DESCRIPTION) -> ImportedPolicy:
    return recognise(path).read(path, ImportOptions(said))


@pytest.mark.parametrize("at", ["", "policy_best.ckpt"])
def test_it_acts_as_before(tmp_path: Path, at: str) -> None:
    made = write_original(tmp_path)
    found = imported(tmp_path / at)
    assert torch.equal(actions(restored(found)), actions(made))
    assert found.config.decoder_layers == 1
    assert set(found.provenance.files) == {"policy_best.ckpt", "dataset_stats.pkl"}
    assert found.statistics.images["top"].mean.ravel() == pytest.approx([0.485, 0.456, 0.406])


def test_another_suffix_and_no_prefix_are_recognised(tmp_path: Path) -> None:
    made = write_original(tmp_path)
    state = torch.load(tmp_path / "policy_best.ckpt", weights_only=True)
    torch.save({name.removeprefix("model."): tensor for name, tensor in state.items()}, tmp_path / "x.pth")
    found = imported(tmp_path / "x.pth")
    assert found.provenance.format == "original ACT"
    assert torch.equal(actions(restored(found)), actions(made))


def test_heads_and_the_epoch(tmp_path: Path) -> None:
    write_original(tmp_path)
    (tmp_path / "policy_best.ckpt").rename(tmp_path / "policy_epoch_700_seed_0.ckpt")
    found = imported(tmp_path, DESCRIPTION.model_copy(update={"heads": 2}))
    assert (found.step, found.config.heads) == (700, 2)
    assert any("8 heads" in note for note in imported(tmp_path).notes)


def test_what_it_does_not_say_is_asked_for(tmp_path: Path) -> None:
    write_original(tmp_path)
    with pytest.raises(PolicyImportError, match=r"robot .*joints .*action .*cameras .*data_frequency_hz .*--spec"):
        imported(tmp_path, None)
    said = Description.model_validate({**DESCRIPTION.model_dump(), "cameras": [{"name": "top"}]})
    with pytest.raises(PolicyImportError, match="how large the pictures of camera top are"):
        imported(tmp_path, said)


def test_statistics_are_needed(tmp_path: Path) -> None:
    write_original(tmp_path)
    (tmp_path / "dataset_stats.pkl").write_bytes(pickle.dumps({"qpos_mean": np.zeros(3)}))
    with pytest.raises(StatisticsError, match="no qpos_std, no action_mean, no action_std; found qpos_mean"):
        imported(tmp_path)
    arrays = dict.fromkeys(("qpos_mean", "qpos_std", "action_mean", "action_std"), np.ones(4))
    (tmp_path / "dataset_stats.pkl").write_bytes(pickle.dumps(arrays))
    with pytest.raises(StatisticsError, match=r"dataset_stats.pkl.*shape \(4,\), expected \(3,\)"):
        imported(tmp_path)
    (tmp_path / "dataset_stats.pkl").unlink()
    with pytest.raises(StatisticsError, match="belongs beside the checkpoint"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.query_embed.weight": None}, "decoder_pos_embed.weight is missing"),
        ({"model.latent_proj.bias": None}, "missing model.vae_encoder_latent_output_proj.bias"),
        ({"model.backbones.1.0.body.conv1.weight": torch.zeros(1)}, r"model\.backbones\.1\.0\.body"),
        ({"model.transformer.decoder.layers.0.norm1.bias": torch.zeros(2)}, r"norm1.bias is \(2,\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, torch.Tensor | None], said: str) -> None:
    write_original(tmp_path)
    state = torch.load(tmp_path / "policy_best.ckpt", weights_only=True) | changes
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "policy_best.ckpt")
    with pytest.raises(PolicyImportError, match=said):
        imported(tmp_path)
