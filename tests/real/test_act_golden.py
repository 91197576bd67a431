"""Parity with public ACT implementations, on outputs recorded from them."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from policies.act.config import ACTConfig
from policies.act.model import ACT, ACTNetwork
from policies.act.transformer import positions_1d
from policies.importers import Description, ImportedPolicy, ImportOptions, recognise

_GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "act_golden"
_TOLERANCE = 1e-4

pytestmark = pytest.mark.skipif(not _GOLDEN.is_dir(), reason=f"recorded outputs are not at {_GOLDEN}")


def test_reference_checkpoint_gives_the_recorded_chunk() -> None:
    network, golden = _reference()
    images = [_input("camera_1", (1, 3, 224, 224), 0, 1), _input("camera_2", (1, 3, 224, 224), 0, 1)]
    with torch.inference_mode():
        chunk = network.predict(_input("state", (1, 6), -1, 1), images)
    assert np.abs(chunk.numpy() - golden["chunk"]).max() < _TOLERANCE


def test_an_imported_reference_checkpoint_gives_the_recorded_chunk(tmp_path: Path) -> None:
    network, golden = _reference()
    file = tmp_path / "act_policy_step_1.pth"
    torch.save(dict(network.state_dict()), file)
    network = _restored(recognise(file).read(file, ImportOptions()))
    file.unlink()
    images = [_input("camera_1", (1, 3, 224, 224), 0, 1), _input("camera_2", (1, 3, 224, 224), 0, 1)]
    with torch.inference_mode():
        chunk = network.predict(_input("state", (1, 6), -1, 1), images)
    assert network.config.cameras == ("main_camera", "arm_camera")
    assert np.abs(chunk.numpy() - golden["chunk"]).max() < _TOLERANCE


def test_reference_vae_encoder_gives_the_recorded_posterior() -> None:
    network, golden = _reference()
    is_pad = torch.zeros(1, 30, dtype=torch.bool)
    is_pad[:, -5:] = True
    state = network.normalize_inputs.normalised("observation.state", _input("state", (1, 6), -1, 1))
    actions = network.normalised_actions(_input("actions", (1, 30, 10), -1, 1))
    with torch.inference_mode():
        mean, log_variance = network.model.posterior(state, actions, is_pad)
    assert np.abs(mean.numpy() - golden["vae_mu"]).max() < _TOLERANCE
    assert np.abs(log_variance.numpy() - golden["vae_log_sigma_x2"]).max() < _TOLERANCE


def test_lerobot_checkpoint_gives_the_recorded_chunk() -> None:
    shapes, golden = _recorded("lerobot_act")
    config = ACTConfig(chunk_size=100, state_dim=6, action_dim=6, cameras=("top", "wrist"), decoder_layers=1)
    network = _filled(ACTNetwork(config.model_copy(update={"normalise_in_model": False})), shapes["state_dict"])
    images = [_input("top", (1, 3, 480, 640), 0, 1), _input("wrist", (1, 3, 480, 640), 0, 1)]
    model = network.model
    assert isinstance(model, ACT)
    with torch.inference_mode():
        chunk, _ = model(_input("state", (1, 6), -1, 1), images)
    assert np.abs(chunk.numpy() - golden["normalised_chunk"]).max() < _TOLERANCE


def test_original_checkpoint_gives_the_recorded_chunk(original: Path) -> None:
    network, golden = _imported(original), np.load(_GOLDEN / "aloha_act.npz")
    images = [_input(name, (1, 3, 480, 640), 0, 1) for name in ("cam_high", "cam_wrist")]
    model = network.model
    assert isinstance(model, ACT)
    with torch.inference_mode():
        chunk, _ = model(_input("qpos", (1, 14), -1, 1), images)
    assert np.abs(chunk.numpy() - golden["normalised_chunk"]).max() < _TOLERANCE


def test_original_vae_encoder_gives_what_its_equations_give(original: Path) -> None:
    """Nothing of it was recorded: it is computed here a second time, from the original's names."""
    state = torch.load(original / "policy_best.ckpt", weights_only=True)
    is_pad = torch.zeros(1, 100, dtype=torch.bool)
    is_pad[:, -7:] = True
    qpos, actions = _input("qpos", (1, 14), -1, 1), _input("actions", (1, 100, 14), -1, 1)
    model = _imported(original).model
    assert isinstance(model, ACT)
    with torch.inference_mode():
        mean, log_variance = model.posterior(qpos, actions, is_pad)
        expected = _original_posterior(state, qpos, actions, is_pad)
    assert torch.cat((mean, log_variance), dim=1).sub(expected).abs().max() < _TOLERANCE


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a training of the original ACT, its weights by the rule of the recordings."""
    directory = tmp_path_factory.mktemp("original")
    shapes, _ = _recorded("aloha_act")
    state = {
        name: positions_1d(shape[1], shape[2])
        if name.endswith("pos_table")
        else torch.from_numpy(_weight(name.removeprefix("model."), tuple(shape)))
        for name, shape in shapes["state_dict"].items()
    }
    torch.save(state, directory / "policy_best.ckpt")
    names = ("qpos_mean", "qpos_std", "action_mean", "action_std")
    (directory / "dataset_stats.pkl").write_bytes(pickle.dumps({name: np.ones(14, np.float32) for name in names}))
    yield directory
    shutil.rmtree(directory)


def _imported(directory: Path) -> ACTNetwork:
    size = {"height": 480, "width": 640}
    said = Description.model_validate(
        {
            "robot": "aloha",
            "joints": [f"joint_{number}" for number in range(14)],
            "action": "joints",
            "cameras": [{"name": "cam_high", **size}, {"name": "cam_wrist", **size}],
            "data_frequency_hz": 50,
        }
    )
    return _restored(recognise(directory).read(directory, ImportOptions(said)))


def _restored(found: ImportedPolicy) -> ACTNetwork:
    network = ACTNetwork(found.config)
    network.load_state_dict(dict(found.state_dict))
    return network.eval()


def _original_posterior(
    state: dict[str, torch.Tensor], qpos: torch.Tensor, actions: torch.Tensor, is_pad: torch.Tensor
) -> torch.Tensor:
    """Mean and log variance (1, 64): the encoder of Zhao et al. 2023, figure 4 left, written out."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, state[f"model.{name}.weight"], state[f"model.{name}.bias"])

    x = torch.cat(
        (
            state["model.cls_embed.weight"][None],
            linear("encoder_joint_proj", qpos)[:, None],
            linear("encoder_action_proj", actions),
        ),
        dim=1,
    )
    hidden = torch.cat((torch.zeros(1, 2, dtype=torch.bool), is_pad), dim=1)
    for number in range(4):
        layer = f"encoder.layers.{number}"
        weights = state[f"model.{layer}.self_attn.in_proj_weight"].chunk(3)
        biases = state[f"model.{layer}.self_attn.in_proj_bias"].chunk(3)
        placed = x + state["model.pos_table"]
        q, k, v = (
            functional.linear(tokens, weight, bias).unflatten(2, (8, 64)).transpose(1, 2)
            for tokens, weight, bias in zip((placed, placed, x), weights, biases, strict=True)
        )  # (1, 8, 102, 64)
        scores = (q @ k.transpose(2, 3) / 8).masked_fill(hidden[:, None, None], -math.inf)
        seen = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        norms = [(state[f"model.{layer}.norm{n}.weight"], state[f"model.{layer}.norm{n}.bias"]) for n in (1, 2)]
        x = functional.layer_norm(x + linear(f"{layer}.self_attn.out_proj", seen), (512,), *norms[0])
        inner = linear(f"{layer}.linear2", linear(f"{layer}.linear1", x).relu())
        x = functional.layer_norm(x + inner, (512,), *norms[1])
    return linear("latent_proj", x[:, 0])


def _reference() -> tuple[ACTNetwork, Any]:
    shapes, golden = _recorded("mars_reference")
    config = ACTConfig(chunk_size=30, state_dim=6, action_dim=10, cameras=("camera_1", "camera_2"))
    network = _filled(ACTNetwork(config), shapes["state_dict"])
    state = network.state_dict()
    for feature, values in shapes["stats"].items():
        for name, tensor in state.items():
            if f".buffer_{feature.replace('.', '_')}." in name:
                tensor.copy_(torch.tensor(values[name.rsplit(".", 1)[1]]).reshape(tensor.shape))
    return network, golden


def _recorded(name: str) -> tuple[dict[str, Any], Any]:
    return json.loads((_GOLDEN / f"{name}.json").read_text()), np.load(_GOLDEN / f"{name}.npz")


def _filled(network: ACTNetwork, shapes: dict[str, list[int]]) -> ACTNetwork:
    """Weights by the rule of the recordings; names and shapes must be exactly those recorded."""
    state = network.state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == shapes
    for name, tensor in state.items():
        if not name.endswith("vae_encoder_pos_enc") and ".buffer_" not in name:
            tensor.copy_(torch.from_numpy(_weight(name, tuple(tensor.shape))))
    return network.eval()


def _weight(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(x)
    if "embed" in name and name.endswith("weight"):
        return x
    if name.endswith("weight") and len(shape) >= 2:
        return x / np.float32(math.sqrt(math.prod(shape[1:])))
    if name.endswith("weight"):
        return 1 + np.float32(0.1) * x
    return np.float32(0.1) * x


def _input(name: str, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
    values = np.random.default_rng(zlib.crc32(name.encode())).uniform(low, high, shape)
    return torch.from_numpy(values.astype(np.float32))
