"""The ACT network (Zhao et al. 2023, arXiv:2304.13705, figure 4), under the tensor names of public checkpoints.

`ACT` sees normalised numbers. `ACTNetwork` is `ACT` with the statistics around it: this is what is trained, saved
and run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from policies.act.config import ACTConfig, buffer_name
from policies.act.resnet import ResNet18
from policies.act.transformer import Decoder, Encoder, positions_1d, positions_2d
from policies.normalize import MeanStd, Statistics, normalise, unnormalise

Latent = tuple[Tensor, Tensor]
"""Mean and log variance of the latent, (B, L) each."""


class ACT(nn.Module):
    """Normalised state and images to a normalised chunk of actions."""

    vae_encoder_pos_enc: Tensor

    def __init__(self, config: ACTConfig):
        super().__init__()
        self.config = config
        dim = config.dim_model
        sizes = (dim, config.heads, config.dim_feedforward, config.dropout)
        if config.use_vae:
            self.register_buffer("vae_encoder_pos_enc", positions_1d(config.chunk_size + 2, dim))
            self.vae_encoder = Encoder(config.vae_encoder_layers, *sizes)
            self.vae_encoder_cls_embed = nn.Embedding(1, dim)
            self.vae_encoder_robot_state_input_proj = nn.Linear(config.state_dim, dim)
            self.vae_encoder_action_input_proj = nn.Linear(config.action_dim, dim)
            self.vae_encoder_latent_output_proj = nn.Linear(dim, config.latent_dim * 2)
        if config.cameras:
            self.backbone = ResNet18(width=config.backbone_width, norm=config.backbone_norm)
            self.encoder_img_feat_input_proj = nn.Conv2d(self.backbone.channels, dim, 1)
        self.encoder = Encoder(config.encoder_layers, *sizes)
        self.decoder = Decoder(config.decoder_layers, *sizes)
        self.encoder_robot_state_input_proj = nn.Linear(config.state_dim, dim)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, dim)
        self.encoder_1d_feature_pos_embed = nn.Embedding(2, dim)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, dim)
        self.action_head = nn.Linear(dim, config.action_dim)
        self._grids: dict[tuple[int, int, torch.device, torch.dtype], Tensor] = {}
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        state: Tensor,
        images: Sequence[Tensor] | Tensor,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
    ) -> tuple[Tensor, Latent | None]:
        """Predict a chunk.

        Args:
            state: (B, S).
            images: one (B, 3, H, W) per camera in the order of the config, or (B, N, 3, H, W).
            actions: (B, C, A) of the demonstration; the latent is then drawn from their posterior, else it is 0.
            is_pad: (B, C) true where `actions` lie past the end of the episode.

        Returns:
            The chunk (B, C, A), and the posterior of the latent where actions were given and the config has a VAE.
        """
        posterior = None
        latent = state.new_zeros(state.shape[0], self.config.latent_dim)
        if actions is not None and self.config.use_vae:
            posterior = self.posterior(state, actions, is_pad)
            latent = _sampled(*posterior)
        tokens = [self.encoder_latent_input_proj(latent)[:, None], self.encoder_robot_state_input_proj(state)[:, None]]
        positions = [self.encoder_1d_feature_pos_embed.weight[None]]
        for features in self._features(images):
            tokens.append(features.flatten(2).transpose(1, 2))  # (B, h * w, D)
            positions.append(self._grid(features))
        place = torch.cat(positions, dim=1)
        encoded = self.encoder(torch.cat(tokens, dim=1), place)
        decoded = self.decoder(self.decoder_pos_embed.weight[None], encoded, place)
        return self.action_head(decoded), posterior

    def posterior(self, state: Tensor, actions: Tensor, is_pad: Tensor | None = None) -> Latent:
        """Mean and log variance (B, L) of the latent, given a demonstration: state (B, S), actions (B, C, A)."""
        batch = state.shape[0]
        tokens = torch.cat(
            (
                self.vae_encoder_cls_embed.weight[None].expand(batch, -1, -1),
                self.vae_encoder_robot_state_input_proj(state)[:, None],
                self.vae_encoder_action_input_proj(actions),
            ),
            dim=1,
        )  # (B, 2 + C, D)
        padding = None
        if is_pad is not None:
            padding = torch.cat((is_pad.new_zeros(batch, 2), is_pad), dim=1)
        summary = self.vae_encoder(tokens, self.vae_encoder_pos_enc, padding)[:, 0]
        mean, log_variance = self.vae_encoder_latent_output_proj(summary).chunk(2, dim=-1)
        return mean, log_variance

    def _features(self, images: Sequence[Tensor] | Tensor) -> list[Tensor]:
        """Per camera (B, D, h, w). Cameras of one size share a pass through the backbone."""
        frames = list(images.unbind(1)) if isinstance(images, Tensor) else list(images)
        if len(frames) != len(self.config.cameras):
            raise ValueError(f"{len(frames)} images for {len(self.config.cameras)} cameras")
        if not frames:
            return []
        if len({frame.shape for frame in frames}) == 1:
            together = self._projected(torch.cat(frames))
            return list(together.chunk(len(frames)))
        return [self._projected(frame) for frame in frames]

    def _projected(self, images: Tensor) -> Tensor:
        projected: Tensor = self.encoder_img_feat_input_proj(self.backbone(images))
        return projected

    def _grid(self, features: Tensor) -> Tensor:
        """(1, h * w, D) position embedding of a feature map, made once per size."""
        key = (features.shape[2], features.shape[3], features.device, features.dtype)
        if key not in self._grids:
            grid = positions_2d(key[0], key[1], self.config.dim_model)
            self._grids[key] = grid.to(features.device, features.dtype)
        return self._grids[key]


class ACTNetwork(nn.Module):
    """`ACT` with its statistics: physical units and pictures in 0..1 in, and physical units out.

    The three groups of buffers repeat each other because checkpoints of the reference robot do.
    """

    def __init__(self, config: ACTConfig, statistics: Statistics | None = None):
        super().__init__()
        self.config = config
        keep = config.normalise_in_model
        cameras = {f"observation.image_{name}": (3, 1, 1) for name in config.cameras}
        inputs = {**cameras, "observation.state": (config.state_dim,)}
        self.normalize_inputs = _Buffers(inputs, persistent=keep)
        self.normalize_targets = _Buffers({"action": (config.action_dim,)}, persistent=keep)
        self.unnormalize_outputs = _Buffers({"action": (config.action_dim,)}, persistent=keep)
        self.model = ACT(config)
        if statistics is not None:
            self.set_statistics(statistics)

    def set_statistics(self, statistics: Statistics) -> None:
        """Take over means and standard deviations.

        Raises:
            StatisticsError: one is missing or has another size.
        """
        for group in (self.normalize_inputs, self.normalize_targets, self.unnormalize_outputs):
            group.fill(statistics)

    def forward(
        self,
        state: Tensor,
        images: Sequence[Tensor] | Tensor,
        actions: Tensor | None = None,
        is_pad: Tensor | None = None,
    ) -> tuple[Tensor, Latent | None]:
        """As `ACT.forward`, with state and actions in physical units and images in 0..1; the chunk is normalised."""
        normal_state = self.normalize_inputs.normalised("observation.state", state)
        frames = images.unbind(1) if isinstance(images, Tensor) else images
        normal_images = [
            self.normalize_inputs.normalised(f"observation.image_{name}", frame)
            for name, frame in zip(self.config.cameras, frames, strict=True)
        ]
        normal_actions = None if actions is None else self.normalised_actions(actions)
        result: tuple[Tensor, Latent | None] = self.model(normal_state, normal_images, normal_actions, is_pad)
        return result

    @classmethod
    def buffers_of(cls, statistics: Statistics, config: ACTConfig) -> dict[str, Tensor]:
        """The tensors that these statistics are in a state dict, by name."""
        groups = {
            "normalize_inputs": ["observation.state", *(f"observation.image_{name}" for name in config.cameras)],
            "normalize_targets": ["action"],
            "unnormalize_outputs": ["action"],
        }
        buffers = {}
        for group, features in groups.items():
            for feature in features:
                values, name = statistics.feature(feature), f"{group}.{_module_name(feature)}"
                buffers[f"{name}.mean"] = torch.from_numpy(values.mean)
                buffers[f"{name}.std"] = torch.from_numpy(values.std)
        return buffers

    def normalised_actions(self, actions: Tensor) -> Tensor:
        """Actions (..., A) in the units that the chunk of `forward` has: what a loss compares it with."""
        return self.normalize_targets.normalised("action", actions)

    def physical_actions(self, normal: Tensor) -> Tensor:
        """The inverse of `normalised_actions`."""
        return self.unnormalize_outputs.physical("action", normal)

    def predict(self, state: Tensor, images: Sequence[Tensor] | Tensor) -> Tensor:
        """The chunk (B, C, A) in physical units, latent 0."""
        return self.physical_actions(self(state, images)[0])


class _Buffers(nn.Module):
    """Mean and standard deviation of some features, as `buffer_<feature>.mean` and `.std`."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], *, persistent: bool):
        super().__init__()
        for feature, shape in shapes.items():
            self.add_module(_module_name(feature), _Pair(shape, persistent=persistent))
        self._features = tuple(shapes)

    def fill(self, statistics: Statistics) -> None:
        for feature in self._features:
            self._pair(feature).fill(statistics.feature(feature), feature)

    def normalised(self, feature: str, x: Tensor) -> Tensor:
        pair = self._pair(feature)
        return normalise(x, pair.mean, pair.std)

    def physical(self, feature: str, x: Tensor) -> Tensor:
        pair = self._pair(feature)
        return unnormalise(x, pair.mean, pair.std)

    def _pair(self, feature: str) -> _Pair:
        pair = self._modules[_module_name(feature)]
        assert isinstance(pair, _Pair)
        return pair


class _Pair(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...], *, persistent: bool):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape), persistent=persistent)
        self.register_buffer("std", torch.ones(shape), persistent=persistent)

    def fill(self, values: MeanStd, feature: str) -> None:
        values.check_shape(tuple(self.mean.shape), feature)
        self.mean.copy_(torch.from_numpy(values.mean))
        self.std.copy_(torch.from_numpy(values.std))


def _module_name(feature: str) -> str:
    return "buffer_" + buffer_name(feature)


def _sampled(mean: Tensor, log_variance: Tensor) -> Tensor:
    return mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
