from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_parts import actions, network, restored, statistics, write_reference

from policies.importers import Description, ImportedPolicy, ImportOptions, PolicyImportError, recognise
from policies.normalize import MeanStd, Statistics, StatisticsError, save_statistics

FILE = "act_policy_step_100.pth"


def imported(path: Path, **options: Any) -> ImportedPolicy:
    return recognise(path).read(path, ImportOptions(**options))


def rewritten(directory: Path, **changes: torch.Tensor | None) -> None:
    state = torch.load(directory / FILE, weights_only=True)
    state |= changes
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, directory / FILE)


@pytest.mark.parametrize("at", ["", FILE])
def test_it_acts_as_before(tmp_path: Path, at: str) -> None:
    made = write_reference(tmp_path)
    found = imported(tmp_path / at)
    assert torch.equal(actions(restored(found)), actions(made))
    assert (found.step, found.provenance.format, found.spec.robot) == (100, "reference robot", "reference")
    assert set(found.provenance.files) == {FILE, "dataset_stats.pt"}
    assert "agrees" in found.provenance.statistics


def test_cameras_are_mapped_by_name_and_sizes_are_read(tmp_path: Path) -> None:
    write_reference(tmp_path)
    found = imported(tmp_path)
    assert found.spec.camera_names == ("main_camera", "arm_camera")
    assert {(camera.height, camera.width) for camera in found.spec.cameras} == {(224, 224)}
    stats = statistics(("camera_1", "camera_2"), 6, 10)
    assert np.array_equal(found.statistics.images["arm_camera"].mean, stats.images["camera_2"].mean)
    assert (found.spec.chunk_size, found.config.decoder_layers, found.config.dim_feedforward) == (4, 2, 32)
    assert [dim["kind"] for dim in found.spec.action] == [
        *["joint_position"] * 5,
        "gripper",
        *["base_velocity"] * 2,
        "progress",
        "termination",
    ]


def test_statistics_in_another_order_keep_their_cameras(tmp_path: Path) -> None:
    made = write_reference(tmp_path)
    state = made.state_dict()
    torch.save({name: state[name] for name in reversed(state)}, tmp_path / FILE)
    found = imported(tmp_path)
    assert found.spec.camera_names == ("main_camera", "arm_camera")
    assert torch.equal(actions(restored(found)), actions(made))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapper", [None, "model_state_dict", "state_dict"])
def test_wrappers_are_taken_off(tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    made = write_reference(tmp_path)
    content: Any = {prefix + name: tensor for name, tensor in made.state_dict().items()}
    torch.save({wrapper: content, "step": 7} if wrapper else content, tmp_path / FILE)
    assert torch.equal(actions(restored(imported(tmp_path))), actions(made))


def test_colour_is_rgb_unless_said(tmp_path: Path) -> None:
    write_reference(tmp_path)
    found = imported(tmp_path)
    assert found.spec.colour == "rgb"
    assert any("--colour bgr" in note for note in found.notes)
    assert imported(tmp_path, colour="bgr").spec.colour == "bgr"


def test_the_newest_checkpoint_of_a_run_is_taken_wherever_it_lies(tmp_path: Path) -> None:
    write_reference(tmp_path / "run" / "deep", step=90)
    write_reference(tmp_path / "run" / "deep", step=1000)
    found = imported(tmp_path / "run")
    assert found.step == 1000
    assert any("newest of 2" in note for note in found.notes)


def test_statistics_in_the_checkpoint_win(tmp_path: Path) -> None:
    made = write_reference(tmp_path)
    other = statistics(("camera_2", "camera_1"), 6, 10)
    shifted = MeanStd(other.state.mean + 1, other.state.std)
    save_statistics(tmp_path / "dataset_stats.pt", Statistics(shifted, other.action, other.images))
    found = imported(tmp_path)
    assert torch.equal(actions(restored(found)), actions(made))
    [note] = [note for note in found.notes if "other statistics" in note]
    assert "observation.state" in note
    assert "of action" not in note


def test_statistics_beside_the_checkpoint_serve_where_it_has_none(tmp_path: Path) -> None:
    made = write_reference(tmp_path)
    torch.save({n: t for n, t in made.state_dict().items() if n.startswith("model.")}, tmp_path / FILE)
    found = imported(tmp_path)
    assert torch.equal(actions(restored(found)), actions(made))
    assert found.provenance.statistics == "dataset_stats.pt"
    (tmp_path / "dataset_stats.pt").unlink()
    with pytest.raises(StatisticsError, match="holds no statistics"):
        imported(tmp_path)


def test_statistics_of_two_trainings_are_refused(tmp_path: Path) -> None:
    write_reference(tmp_path)
    rewritten(tmp_path, **{"normalize_targets.buffer_action.mean": torch.ones(10) * 9})
    with pytest.raises(StatisticsError, match="different trainings"):
        imported(tmp_path)


def test_a_joint_that_never_moved_does_not_explode(tmp_path: Path) -> None:
    write_reference(tmp_path)
    name = "normalize_inputs.buffer_observation_state.std"
    still = torch.load(tmp_path / FILE, weights_only=True)[name]
    still[2] = 1e-6
    rewritten(tmp_path, **{name: still})
    found = imported(tmp_path)
    assert found.statistics.state.std[2] == pytest.approx(0.01)
    assert any(note.startswith("joint3 never moved") for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.action_head.bias": None}, "missing model.action_head.bias"),
        ({"model.decoder.layers.1.norm3.bias": None}, "missing model.decoder.layers.1.norm3.bias"),
        ({"model.extra.weight": torch.zeros(1)}, "unexpected model.extra.weight"),
        ({"extra": torch.zeros(1)}, "extra is no tensor of such a checkpoint"),
        ({"normalize_inputs.buffer_other.mean": torch.zeros(1)}, "unexpected normalize_inputs.buffer_other.mean"),
        ({"normalize_inputs.buffer_observation_state.mean": None}, "missing normalize_inputs.buffer_observation_state"),
        ({"model.encoder_latent_input_proj.bias": torch.zeros(3)}, r"_proj.bias is \(3,\), expected \(16,\)"),
        ({"model.action_head.bias": torch.full((10,), torch.nan)}, "not finite: model.action_head.bias"),
        ({"model.decoder_pos_embed.weight": None}, "model.decoder_pos_embed.weight is missing"),
        ({"model.action_head.weight": torch.zeros(10, 65_536)}, "does not fit"),
        ({"model.action_head.weight": torch.zeros(10, 15)}, "no network can be built"),
        ({"normalize_inputs.buffer_observation_state.std": torch.zeros(6)}, "expected only values above 0"),
        ({"normalize_inputs.buffer_observation_state.std": torch.full((6,), torch.nan)}, "not finite"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, torch.Tensor | None], said: str) -> None:
    write_reference(tmp_path)
    rewritten(tmp_path, **changes)
    with pytest.raises((PolicyImportError, StatisticsError), match=said) as caught:
        imported(tmp_path)
    assert FILE in str(caught.value)


def test_another_arm_must_be_described(tmp_path: Path) -> None:
    made = network(("camera_1",), state=5, action=5)
    torch.save(dict(made.state_dict()), tmp_path / FILE)
    with pytest.raises(PolicyImportError, match=r"joints \(the names of its 5 state numbers.*action .*--spec"):
        imported(tmp_path)
    said = Description.model_validate({"joints": list("abcde"), "action": "joints", "robot": "other"})
    found = imported(tmp_path, description=said)
    assert (found.spec.robot, found.spec.joint_names) == ("other", tuple("abcde"))
    with pytest.raises(PolicyImportError, match="joints names 4, expected 5"):
        imported(tmp_path, description=Description.model_validate({"joints": list("abcd"), "action": "joints"}))


def test_the_rate_is_that_of_the_skill_around_it(tmp_path: Path) -> None:
    write_reference(tmp_path / "run")
    assert imported(tmp_path / "run").spec.data_frequency_hz == 30
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_metadata.json").write_text(json.dumps({"data_frequency": 20.0}))
    found = imported(tmp_path / "run")
    assert found.spec.data_frequency_hz == 20
    assert any("is 20, as" in note and "dataset_metadata.json says" in note for note in found.notes)
    said = Description.model_validate({"data_frequency_hz": 12})
    assert imported(tmp_path / "run", description=said).spec.data_frequency_hz == 12
