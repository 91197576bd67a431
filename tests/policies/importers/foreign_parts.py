"""Tiny checkpoints as other programs write them, each with the network that it came from."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from act_parts import CONFIG
from safetensors.torch import save_file

from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.importers import Description, ImportedPolicy
from policies.importers.original import _NAMES
from policies.normalize import MeanStd, Statistics, save_statistics

SIDE = 32
DESCRIPTION = Description.model_validate(
    {
        "robot": "tiny",
        "joints": ["a", "b", "c"],
        "action": "joints",
        "grippers": ["c"],
        "cameras": [
            {"name": "top", "height": SIDE, "width": SIDE},
            {"name": "cam_high", "height": SIDE, "width": SIDE},
        ],
        "data_frequency_hz": 20,
    }
)


def network(cameras: tuple[str, ...], state: int = 3, action: int = 3) -> ACTNetwork:
    config = CONFIG.model_copy(
        update={"cameras": cameras, "state_dim": state, "action_dim": action, "heads": 8, "decoder_layers": 2}
    )
    torch.manual_seed(0)
    return ACTNetwork(config, statistics(cameras, state, action)).eval()


def statistics(cameras: tuple[str, ...], state: int, action: int) -> Statistics:
    """Different for every feature and number, so that a mix-up shows."""
    random = np.random.default_rng(0)

    def of(*shape: int) -> MeanStd:
        return MeanStd(random.normal(size=shape), random.uniform(0.2, 0.9, shape))

    return Statistics(of(state), of(action), MappingProxyType({camera: of(3, 1, 1) for camera in cameras}))


def inputs(network: ACTNetwork) -> tuple[torch.Tensor, list[torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    images = [torch.rand(1, 3, SIDE, SIDE, generator=random) for _ in network.config.cameras]
    return torch.randn(1, network.config.state_dim, generator=random), images


def restored(imported: ImportedPolicy) -> ACTNetwork:
    made = ACTNetwork(imported.config).eval()
    made.load_state_dict(dict(imported.state_dict))
    return made


def actions(network: ACTNetwork) -> torch.Tensor:
    with torch.inference_mode():
        return network.predict(*inputs(network))


def write_reference(directory: Path, step: int = 100) -> ACTNetwork:
    made = network(("camera_1", "camera_2"), state=6, action=10)
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(dict(made.state_dict()), directory / f"act_policy_step_{step}.pth")
    save_statistics(directory / "dataset_stats.pt", statistics(("camera_1", "camera_2"), 6, 10))
    return made


CAMERAS = ("top", "cam_high")
FEATURES = {"top": "observation.images.top", "cam_high": "observation.images.cam_high"}


def lerobot_config(config: ACTConfig, **changes: Any) -> dict[str, Any]:
    features: dict[str, Any] = {"observation.state": {"type": "STATE", "shape": [config.state_dim]}}
    features |= {FEATURES[name]: {"type": "VISUAL", "shape": [3, SIDE, SIDE]} for name in config.cameras}
    return {
        "type": "act",
        "a_field_of_next_year": [1, {"x": None}],
        "input_features": features,
        "output_features": {"action": {"type": "ACTION", "shape": [config.action_dim]}},
        "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
        "chunk_size": config.chunk_size,
        "n_action_steps": 3,
        "dim_model": config.dim_model,
        "n_heads": config.heads,
        "dim_feedforward": config.dim_feedforward,
        "n_encoder_layers": config.encoder_layers,
        "n_decoder_layers": config.decoder_layers,
        "n_vae_encoder_layers": config.vae_encoder_layers,
        "latent_dim": config.latent_dim,
        **changes,
    }


def write_lerobot(directory: Path, *, is_old: bool = False, **changes: Any) -> ACTNetwork:
    """The present form, or that from before processors, with the statistics in the weights."""
    made = network(CAMERAS)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(lerobot_config(made.config, **changes)))
    weights = {name: tensor for name, tensor in made.state_dict().items() if name.startswith("model.")}
    values = lerobot_statistics()
    if is_old:
        for name, tensor in values.items():
            feature, _, statistic = name.rpartition(".")
            group = "unnormalize_outputs" if feature == "action" else "normalize_inputs"
            weights[f"{group}.buffer_{feature.replace('.', '_')}.{statistic}"] = tensor
    else:
        write_processors(directory, values)
    save_file(weights, directory / "model.safetensors")
    return made


def lerobot_statistics() -> dict[str, torch.Tensor]:
    values = {}
    for feature, pair in statistics(CAMERAS, 3, 3).features().items():
        theirs = FEATURES.get(feature.removeprefix("observation.image_"), feature)
        values |= {f"{theirs}.mean": torch.tensor(pair.mean), f"{theirs}.std": torch.tensor(pair.std)}
    return values


def write_processors(
    directory: Path, values: Mapping[str, torch.Tensor], state_file: str = "stats_7.safetensors"
) -> None:
    for which, step in (("pre", "normalizer_processor"), ("post", "unnormalizer_processor")):
        content = {"steps": [{"registry_name": "device_processor"}, {"registry_name": step, "state_file": state_file}]}
        (directory / f"policy_{which}processor.json").write_text(json.dumps(content))
    save_file({**values, "timestamp.mean": torch.zeros(1)}, directory / "stats_7.safetensors")


def write_original(directory: Path) -> ACTNetwork:
    made = network(CAMERAS)
    image = MeanStd(np.reshape((0.485, 0.456, 0.406), (3, 1, 1)), np.reshape((0.229, 0.224, 0.225), (3, 1, 1)))
    stats = statistics(CAMERAS, 3, 3)
    made.set_statistics(Statistics(stats.state, stats.action, MappingProxyType(dict.fromkeys(CAMERAS, image))))
    # The original has more decoder layers, and none of them but the first does anything.
    made.model.decoder.layers = made.model.decoder.layers[:1]  # type: ignore[union-attr, index, assignment]
    made.config = made.model.config = made.config.model_copy(update={"decoder_layers": 1})  # type: ignore[assignment]
    state = {original_name(name): tensor for name, tensor in made.state_dict().items() if name.startswith("model.")}
    for layer in range(1, 7):
        for name, tensor in list(state.items()):
            if ".decoder.layers.0." in name:
                state[name.replace(".layers.0.", f".layers.{layer}.")] = torch.randn_like(tensor)
    state |= {"model.is_pad_head.weight": torch.zeros(1, 16), "model.is_pad_head.bias": torch.zeros(1)}
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(state, directory / "policy_best.ckpt")
    arrays = {
        "action_mean": stats.action.mean,
        "action_std": stats.action.std,
        "qpos_mean": stats.state.mean,
        "qpos_std": stats.state.std,
        "example_qpos": np.zeros((5, 3)),
    }
    (directory / "dataset_stats.pkl").write_bytes(pickle.dumps(arrays))
    return made


def original_name(ours: str) -> str:
    plain = ours.removeprefix("model.")
    for old, new in sorted(_NAMES, key=lambda pair: -len(pair[1])):
        if plain.startswith(new):
            return "model." + re.sub(re.escape(new), old, plain, count=1)
    raise KeyError(ours)
