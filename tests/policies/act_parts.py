"""A tiny ACT network with what belongs to it, for tests."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch

from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.normalize import MeanStd, Statistics
from policies.spec import CameraInput, InputSpec

SPEC = InputSpec(
    cameras=(CameraInput(name="top", height=32, width=32), CameraInput(name="side", height=32, width=32)),
    joint_names=("a", "b"),
    action=({"name": "a"}, {"name": "b"}, {"name": "progress"}),
    data_frequency_hz=10.0,
    chunk_size=4,
    robot="tiny",
)
CONFIG = ACTConfig(
    chunk_size=4,
    state_dim=2,
    action_dim=3,
    cameras=("top", "side"),
    dim_model=16,
    heads=2,
    dim_feedforward=32,
    encoder_layers=1,
    decoder_layers=1,
    vae_encoder_layers=1,
    latent_dim=4,
    backbone_width=2,
    backbone_norm="batch",
)


def statistics() -> Statistics:
    image = MeanStd(np.full((3, 1, 1), 0.4, np.float32), np.full((3, 1, 1), 0.2, np.float32))
    return Statistics(
        state=MeanStd(np.array([0.1, 0.2], np.float32), np.array([0.5, 0.6], np.float32)),
        action=MeanStd(np.array([1, 2, 3], np.float32), np.array([0.1, 0.2, 0.3], np.float32)),
        images=MappingProxyType({"top": image, "side": image}),
    )


def network(**changes: object) -> ACTNetwork:
    torch.manual_seed(0)
    return ACTNetwork(CONFIG.model_copy(update=changes), statistics()).eval()


def batch(size: int = 2) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """State, images, actions and padding mask of which the last step is padding."""
    random = torch.Generator().manual_seed(1)
    is_pad = torch.zeros(size, 4, dtype=torch.bool)
    is_pad[:, -1] = True
    return (
        torch.randn(size, 2, generator=random),
        [torch.rand(size, 3, 32, 32, generator=random) for _ in range(2)],
        torch.randn(size, 4, 3, generator=random),
        is_pad,
    )
