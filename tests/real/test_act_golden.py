"""Parity with public ACT implementations, on outputs recorded from them."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policies.act.config import ACTConfig
from policies.act.model import ACT, ACTNetwork

_GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "act_golden"
_TOLERANCE = 1e-4

pytestmark = pytest.mark.skipif(not _GOLDEN.is_dir(), reason=f"recorded outputs are not at {_GOLDEN}")


def test_reference_checkpoint_gives_the_recorded_chunk() -> None:
    network, golden = _reference()
    images = [_input("camera_1", (1, 3, 224, 224), 0, 1), _input("camera_2", (1, 3, 224, 224), 0, 1)]
    with torch.inference_mode():
        chunk = network.predict(_input("state", (1, 6), -1, 1), images)
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
