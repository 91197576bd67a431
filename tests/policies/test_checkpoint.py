from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from act_parts import CONFIG, SPEC, batch, network, statistics

from foundation.files import PathEscapesError
from policies.act.loading import load_act_policy
from policies.act.policy import DeviceError, choose_device
from policies.checkpoint import CheckpointError, RunNotes, load, load_weights, read_state_dict, save
from policies.manifest import CheckpointFile, ManifestError, read_run, step_of
from policies.normalize import MeanStd, Statistics, StatisticsError, save_statistics
from policies.runner import PolicyError
from policies.spec import PolicyInput, PolicyInputError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path, 100, network().state_dict(), statistics(), SPEC, CONFIG, RunNotes(metrics={"l1": 0.5}))


def test_a_checkpoint_loads_as_it_was_saved(saved: Path) -> None:
    loaded = load(saved)
    state, images, _, _ = batch()
    assert torch.equal(loaded.network.predict(state, images), network().predict(state, images))
    assert (loaded.spec, loaded.config) == (SPEC, CONFIG)
    assert loaded.manifest.metrics == {"l1": 0.5}
    assert not loaded.network.training
    assert {path.name for path in saved.parent.iterdir()} == {
        "act_policy_step_100.pth",
        "dataset_stats.pt",
        "run.json",
    }


def test_the_file_is_a_plain_state_dict_under_the_reference_names(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    assert type(content) is dict
    assert {"model.action_head.weight", "normalize_inputs.buffer_observation_image_top.mean"} <= set(content)


def test_statistics_outside_the_model_apply_as_well(tmp_path: Path) -> None:
    net = network(normalise_in_model=False)
    config = CONFIG.model_copy(update={"normalise_in_model": False})
    path = save(tmp_path, 1, net.state_dict(), statistics(), SPEC, config)
    state, images, _, _ = batch()
    assert torch.equal(load(path).network.predict(state, images), net.predict(state, images))


def test_a_run_lists_its_checkpoints_as_long_as_they_exist(saved: Path) -> None:
    for step in (200, 1000):
        save(saved.parent, step, network().state_dict(), statistics(), SPEC, CONFIG)
    assert list(read_run(saved.parent).checkpoints()) == [100, 200, 1000]
    saved.unlink()
    save(saved.parent, 1100, network().state_dict(), statistics(), SPEC, CONFIG)
    assert list(read_run(saved.parent).checkpoints()) == [200, 1000, 1100]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "model_state_dict", "state_dict"])
def test_wrapped_checkpoints_are_unwrapped(tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    state = network().state_dict()
    content: Any = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({wrapper: content, "step": 3} if wrapper else content, tmp_path / "wrapped.pth")
    read = read_state_dict(tmp_path / "wrapped.pth")
    assert set(read) == set(state)
    load_weights(network(), read, where="wrapped.pth")


def test_tensors_that_do_not_fit_are_named() -> None:
    state = network().state_dict()
    del state["model.action_head.bias"]
    state["model.extra.weight"] = torch.zeros(1)
    state["model.decoder_pos_embed.weight"] = torch.zeros(9, 16)
    with pytest.raises(CheckpointError) as caught:
        load_weights(network(), state, where="x.pth")
    for part in (
        "x.pth",
        "missing model.action_head.bias",
        "unexpected model.extra.weight",
        "model.decoder_pos_embed.weight is (9, 16), expected (4, 16)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved: Path, keep: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"act_policy_step_100\.pth has \d+ bytes, expected"):
        load(saved)
    with pytest.raises(CheckpointError, match=r"empty|damaged"):
        read_state_dict(saved)


def test_a_changed_byte_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(saved)


class _Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("malicious"),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"w": _Malicious()}))
    torch.save({"w": _Malicious()}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "malicious").exists()


@pytest.mark.parametrize(
    ("content", "says"), [([1], "holds a list"), ({}, "expected a dict"), ({"epoch": 3}, "'epoch' is a int")]
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, says: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=says):
        read_state_dict(tmp_path / "x.pth")


def test_weights_that_are_not_finite_are_neither_saved_nor_read(tmp_path: Path) -> None:
    state = network().state_dict()
    state["model.action_head.bias"][0] = torch.nan
    with pytest.raises(CheckpointError, match=r"not finite: model\.action_head\.bias"):
        save(tmp_path, 1, state, statistics(), SPEC, CONFIG)
    assert not list(tmp_path.iterdir())
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"not finite: model\.action_head\.bias"):
        read_state_dict(tmp_path / "x.pth")


def test_a_spec_of_another_network_is_not_saved(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"chunk_size": 9})
    with pytest.raises(CheckpointError, match="chunk_size: the model has 4, input_spec 9"):
        save(tmp_path, 1, network().state_dict(), statistics(), spec, CONFIG)


def test_missing_files_are_named(saved: Path) -> None:
    with pytest.raises(ManifestError, match=r"does not list act_policy_step_7\.pth"):
        load(saved.with_name("act_policy_step_7.pth"))
    (saved.parent / "dataset_stats.pt").unlink()
    with pytest.raises(CheckpointError, match=r"dataset_stats\.pt does not exist"):
        load(saved)
    (saved.parent / "run.json").unlink()
    with pytest.raises(ManifestError, match=r"run\.json is missing"):
        load(saved)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_state_dict(saved.parent / "nothing.pth")


def test_statistics_of_another_run_are_noticed(saved: Path) -> None:
    other = statistics()
    action = MeanStd(other.action.mean + 1, other.action.std)
    save(saved.parent, 200, network().state_dict(), Statistics(other.state, other.action, other.images), SPEC, CONFIG)
    save_statistics(saved.parent / "dataset_stats.pt", Statistics(other.state, action, other.images))
    _edit(saved.parent, lambda run: run["files"].update({"dataset_stats.pt": _entry_of(saved.parent)}))
    with pytest.raises(CheckpointError, match=r"other statistics .* normalize_targets\.buffer_action\.mean"):
        load(saved)


def test_statistics_of_other_cameras_are_noticed(saved: Path) -> None:
    few = statistics()
    save_statistics(saved.parent / "dataset_stats.pt", Statistics(few.state, few.action, {}))
    _edit(saved.parent, lambda run: run["files"].update({"dataset_stats.pt": _entry_of(saved.parent)}))
    with pytest.raises(StatisticsError, match=r"dataset_stats\.pt: there are no statistics of observation\.image_top"):
        load(saved)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda run: run.pop("input_spec"), "input_spec: Field required"),
        (lambda run: run["input_spec"].update(chunk_size=0), r"input_spec\.chunk_size"),
        (lambda run: run["input_spec"].update(chunk_size=9), "chunk_size: the model has 4, input_spec 9"),
        (lambda run: run["config"].update(dim_model="wide"), r"config\.dim_model"),
        (lambda run: run["files"]["dataset_stats.pt"].update(sha256="xyz"), "sha256"),
        (lambda run: run.update(schema=2), "schema"),
        (lambda run: run.update(policy="diffusion"), "policy"),
    ],
)
def test_a_malformed_run_json_is_refused_by_field(saved: Path, edit: Any, says: str) -> None:
    _edit(saved.parent, edit)
    with pytest.raises((ManifestError, CheckpointError), match=says) as caught:
        load(saved)
    assert "run.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"files": 1e999}'])
def test_a_run_json_that_is_no_such_thing_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ManifestError, match=r"run\.json"):
        read_run(tmp_path)


def test_files_of_a_run_lie_inside_it(saved: Path) -> None:
    _edit(saved.parent, lambda run: run["files"].update({"../x.pth": run["files"]["dataset_stats.pt"]}))
    with pytest.raises(PathEscapesError, match=r"\.\./x\.pth"):
        read_run(saved.parent)


def test_the_identity_of_a_file_changes_with_it(saved: Path) -> None:
    before = CheckpointFile.of(saved)
    assert CheckpointFile.of(saved) == before
    save(saved.parent, 100, network().state_dict(), statistics(), SPEC, CONFIG)
    assert CheckpointFile.of(saved) != before


def test_steps_are_read_from_names() -> None:
    assert step_of("act_policy_step_120000.pth") == 120000
    assert step_of("act_policy_final.onnx") is None


def test_a_loaded_policy_predicts_what_its_network_does(saved: Path) -> None:
    policy = load_act_policy(saved, "cpu")
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    inputs = PolicyInput(np.array([0.1, 0.2], np.float32), {"side": frames[1], "top": frames[0]}, 0.0)
    policy.reset()
    images = [torch.from_numpy(frame).permute(2, 0, 1)[None] / 255.0 for frame in frames]
    expected = network().predict(torch.tensor([[0.1, 0.2]]), images)[0]
    assert policy.predict(inputs) == pytest.approx(expected.detach().numpy(), abs=1e-6)
    with pytest.raises(PolicyInputError, match="'side'"):
        policy.predict(PolicyInput(inputs.state, {"top": frames[0]}, 0.0))


def test_a_network_that_overflows_gives_no_actions(tmp_path: Path) -> None:
    state = network().state_dict()
    state["model.action_head.bias"][:] = 3e38
    state["unnormalize_outputs.buffer_action.std"][:] = 1e10
    stats = statistics()
    huge = MeanStd(stats.action.mean, np.full(3, 1e10, np.float32))
    state["normalize_targets.buffer_action.std"][:] = 1e10
    policy_path = save(tmp_path, 1, state, Statistics(stats.state, huge, stats.images), SPEC, CONFIG)
    policy = load_act_policy(policy_path, "cpu")
    frame = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(PolicyError, match="inf as action 0 of step 0"):
        policy.predict(PolicyInput(np.zeros(2, np.float32), {"top": frame, "side": frame}, 0.0))


def test_devices_are_checked() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match="'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(DeviceError, match="no usable GPU"):
            choose_device("cuda")


def _edit(directory: Path, edit: Any) -> None:
    run = json.loads((directory / "run.json").read_text())
    edit(run)
    (directory / "run.json").write_text(json.dumps(run))


def _entry_of(directory: Path) -> dict[str, Any]:
    from policies.checkpoint import _entry

    return _entry(directory / "dataset_stats.pt").model_dump()
