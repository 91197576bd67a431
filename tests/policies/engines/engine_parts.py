"""Small checkpoints of many shapes, for tests of engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.act.resnet import BatchNorm
from policies.checkpoint import Checkpoint
from policies.manifest import CheckpointFile, RunManifest
from policies.normalize import MeanStd, Statistics
from policies.spec import CameraInput, InputSpec


def checkpoint(
    sizes: tuple[tuple[int, int], ...] = ((32, 40), (32, 40)),
    *,
    colour: str = "rgb",
    seed: int = 0,
    same_pictures: bool = False,
    **changes: object,
) -> Checkpoint:
    """One that was never on disk, whose every constant is another one."""
    random = np.random.default_rng(seed)
    names = tuple(f"cam{index}" for index in range(len(sizes)))
    config = ACTConfig(
        **{
            "chunk_size": 5,
            "state_dim": 3,
            "action_dim": 4,
            "cameras": names,
            "dim_model": 16,
            "heads": 2,
            "dim_feedforward": 24,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "vae_encoder_layers": 1,
            "latent_dim": 4,
            "backbone_width": 4,
            **changes,
        }
    )
    spec = InputSpec(
        cameras=tuple(
            CameraInput(name=name, height=height, width=width)
            for name, (height, width) in zip(names, sizes, strict=True)
        ),
        joint_names=tuple(f"joint{index}" for index in range(config.state_dim)),
        action=tuple({"name": f"action{index}"} for index in range(config.action_dim)),
        data_frequency_hz=10.0,
        chunk_size=config.chunk_size,
        colour=colour,
        robot="tiny",
    )

    def drawn(*shape: int, low: float, high: float) -> MeanStd:
        mean, std = random.uniform(0.2, 0.8, shape), random.uniform(low, high, shape)
        return MeanStd(mean.astype(np.float32), std.astype(np.float32))

    pictures = [drawn(3, 1, 1, low=0.1, high=0.4) for _ in names]
    statistics = Statistics(
        state=drawn(config.state_dim, low=0.1, high=2.0),
        action=drawn(config.action_dim, low=0.1, high=2.0),
        images={name: pictures[0 if same_pictures else index] for index, name in enumerate(names)},
    )
    torch.manual_seed(seed)
    network = ACTNetwork(config, statistics).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() == 1:  # biases and norms begin as 0 and 1, which would hide one that is left out
                parameter += torch.randn(parameter.shape) * (0.02 if "backbone" in name else 0.2)
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.1)
    manifest = RunManifest(input_spec=spec, config=config.model_dump(mode="json"), files={})
    return Checkpoint(CheckpointFile(Path("none.pth"), 0, 0, 0), network, config, statistics, manifest)
