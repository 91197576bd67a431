from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_parts import (
    CAMERAS,
    DESCRIPTION,
    actions,
    inputs,
    lerobot_statistics,
    restored,
    write_lerobot,
    write_processors,
)
from safetensors.torch import load_file, save_file

from policies.importers import Description, ImportedPolicy, ImportOptions, PolicyImportError, recognise
from policies.normalize import StatisticsError


def imported(path: Path, said: Description | None = DESCRIPTION) -> ImportedPolicy:
    return recognise(path).read(path, ImportOptions(said))


def changed_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("is_old", [False, True])
def test_it_acts_as_before(tmp_path: Path, is_old: bool) -> None:
    made = write_lerobot(tmp_path, is_old=is_old)
    found = imported(tmp_path)
    assert torch.equal(actions(restored(found)), actions(made))
    assert found.spec.camera_names == CAMERAS
    assert found.execution == {"n_action_steps": 3}
    assert found.provenance.statistics == ("model.safetensors, which holds them" if is_old else "stats_7.safetensors")
    files = {"config.json", "model.safetensors"}
    now = {"policy_preprocessor.json", "policy_postprocessor.json", "stats_7.safetensors"}
    assert set(found.provenance.files) == (files if is_old else files | now)
    assert [dim["kind"] for dim in found.spec.action] == ["joint_position", "joint_position", "gripper"]


@pytest.mark.parametrize("at", ["", "pretrained_model", "pretrained_model/model.safetensors"])
def test_the_step_is_in_the_path(tmp_path: Path, at: str) -> None:
    write_lerobot(tmp_path / "020000" / "pretrained_model")
    found = imported(tmp_path / "020000" / at)
    assert found.step == 20_000


def test_cameras_are_called_as_the_robot_calls_them(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    said = DESCRIPTION.model_copy(
        update={
            "cameras": Description.model_validate({"cameras": [{"name": "main_camera", "source": "cam_high"}]}).cameras
        }
    )
    found = imported(tmp_path, said)
    assert found.spec.camera_names == ("top", "main_camera")
    assert (found.spec.cameras[1].height, found.spec.cameras[1].width) == (32, 32)
    wrong = Description.model_validate({**DESCRIPTION.model_dump(), "cameras": [{"name": "x", "source": "front"}]})
    with pytest.raises(PolicyImportError, match="source front, the checkpoint has top, cam_high"):
        imported(tmp_path, wrong)


def test_degrees_become_rad_and_the_actions_the_same(tmp_path: Path) -> None:
    made = write_lerobot(tmp_path)
    found = imported(tmp_path, DESCRIPTION.model_copy(update={"state_scale": 0.25}))
    state, images = inputs(made)
    with torch.inference_mode():
        ours, theirs = restored(found).predict(state * 0.25, images), made.predict(state, images)
    assert torch.allclose(ours, theirs * 0.25, atol=1e-6)


def test_lowest_and_highest_serve_too(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    values = lerobot_statistics()
    for name in ("observation.state", "action"):
        mean, std = values.pop(f"{name}.mean"), values.pop(f"{name}.std")
        values |= {f"{name}.min": mean - std, f"{name}.max": mean + std}
    write_processors(tmp_path, values)
    changed_config(tmp_path, normalization_mapping={"STATE": "MIN_MAX", "ACTION": "MIN_MAX", "VISUAL": "IDENTITY"})
    found = imported(tmp_path)
    expected = lerobot_statistics()
    assert found.statistics.action.mean == pytest.approx(expected["action.mean"].numpy(), abs=1e-6)
    assert found.statistics.state.std == pytest.approx(expected["observation.state.std"].numpy(), abs=1e-6)
    assert found.statistics.images["top"].std == pytest.approx(1.0)


def test_a_joint_that_never_moved_does_not_explode(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    values = lerobot_statistics()
    values["observation.state.std"][1] = values["action.std"][1] = 0
    write_processors(tmp_path, values)
    found = imported(tmp_path)
    assert found.statistics.state.std[1] == pytest.approx(0.01)
    assert found.statistics.action.std[1] < 1e-7
    assert any(note.startswith("b never moved") for note in found.notes)


def test_missing_weights_are_said_to_be_missing(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(PolicyImportError, match=r"model.safetensors is missing: the weights are not here"):
        imported(tmp_path)


def test_missing_statistics_are_said_to_be_missing(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    (tmp_path / "stats_7.safetensors").unlink()
    with pytest.raises(PolicyImportError, match=r"stats_7.safetensors is missing: its normalisation statistics"):
        imported(tmp_path)
    for name in ("pre", "post"):
        (tmp_path / f"policy_{name}processor.json").unlink()
    with pytest.raises(StatisticsError, match="no mean and std of observation"):
        imported(tmp_path)


@pytest.mark.parametrize("name", ["../stats_7.safetensors", "/etc/hostname", "a/../../x", "", "x\0y"])
def test_a_state_file_does_not_leave_the_directory(tmp_path: Path, name: str) -> None:
    write_lerobot(tmp_path / "policy")
    write_processors(tmp_path / "policy", lerobot_statistics(), state_file=name)
    (tmp_path / "policy" / "stats_7.safetensors").rename(tmp_path / "stats_7.safetensors")
    with pytest.raises(PolicyImportError, match=r"state_file is .* expected the name of a file beside it"):
        imported(tmp_path / "policy")


def test_a_download_that_is_made_of_links_is_read(tmp_path: Path) -> None:
    made = write_lerobot(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(f"../blobs/{file.name}")
    assert torch.equal(actions(restored(imported(tmp_path / "snapshot"))), actions(made))


def test_what_it_does_not_say_is_asked_for(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    with pytest.raises(PolicyImportError) as caught:
        imported(tmp_path, None)
    for part in ("robot (", "joints (", "action (", "data_frequency_hz (", "--spec"):
        assert part in str(caught.value)
    assert "cameras (" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "diffusion"}, "type is 'diffusion', expected 'act'"),
        ({"vision_backbone": "resnet34"}, "vision_backbone is 'resnet34'"),
        ({"pre_norm": True}, "pre_norm is True"),
        ({"n_obs_steps": 2}, "n_obs_steps is 2"),
        ({"normalization_mapping": {"STATE": "QUANTILES"}}, "QUANTILES"),
        ({"chunk_size": 10**9}, "chunk_size is 1000000000"),
        ({"dim_model": "wide"}, "dim_model is 'wide'"),
        ({"dim_model": 20}, "no network can be built"),
        ({"n_decoder_layers": 1}, r"unexpected model\.decoder\.layers\.1"),
        ({"n_encoder_layers": 2}, r"missing model\.encoder\.layers\.1"),
        ({"chunk_size": 5}, r"decoder_pos_embed.weight is \(4, 16\), expected \(5, 16\)"),
        ({"output_features": {}}, "output_features nothing"),
        (
            {
                "input_features": {
                    "observation.state": {"type": "STATE", "shape": [3]},
                    "e": {"type": "ENV", "shape": [2]},
                }
            },
            r"the policy sees e \(ENV",
        ),
    ],
)
def test_another_network_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write_lerobot(tmp_path)
    changed_config(tmp_path, **changes)
    with pytest.raises(PolicyImportError, match=said):
        imported(tmp_path)


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    write_lerobot(tmp_path)
    half = {name: tensor.bfloat16() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(half, tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in imported(tmp_path).state_dict.values()} == {torch.float32}
