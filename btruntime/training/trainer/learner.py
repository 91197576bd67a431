"""What one training step does: network, optimizer, learning rate, moving average of the weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from btruntime.training.trainer import augment
from btruntime.training.trainer.batches import Batch
from btruntime.training.trainer.config import ConfigError, TrainerConfig
from btruntime.training.trainer.processes import Processes
from policies.act.config import ACTConfig
from policies.act.loss import ACTLoss, act_loss
from policies.act.model import ACTNetwork
from policies.checkpoint import load_weights, read_state_dict
from policies.normalize import Statistics
from policies.preprocess import to_tensor

_BACKBONE = "model.backbone."


class Learner:
    """Network and optimizer in one place. What step k computes depends on seed, k, its batch and the weights alone."""

    def __init__(
        self,
        config: TrainerConfig,
        network_config: ACTConfig,
        statistics: Statistics,
        device: torch.device,
        processes: Processes = Processes(),  # noqa: B008 - frozen
    ):
        self.config, self.device = config, device
        self._rank = processes.rank
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = ACTNetwork(network_config, statistics)
        if config.backbone_weights is not None:
            load_backbone(network, config.backbone_weights)
        # Half as fast again on a CPU: the convolutions read pictures as they lie in the cache.
        self.network: ACTNetwork = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward: nn.Module = self.network
        if processes.size > 1:
            self._forward = nn.parallel.DistributedDataParallel(self.network)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        # Loading a state fills the same tensors, so these lists stay right.
        self._followed, self._following = _floats(self.network), _floats(self.average)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.network, config), weight_decay=config.weight_decay, fused=True
        )

    def step(self, step: int, batch: Batch) -> ACTLoss:
        """One gradient step; step 0 is the first. Losses are detached and on the device."""
        self._schedule(step)
        seed = _mixed(self.config.seed, step, self._rank)
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        self.network.train()
        loss = self._loss(batch.to(self.device), generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self._follow(step)
        return ACTLoss(loss.total.detach(), loss.l1.detach(), loss.kl.detach())

    def learning_rate(self, step: int) -> float:
        """Of the transformer at that step."""
        return self.config.learning_rate * schedule(step, self.config)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], *, where: str) -> None:
        """The inverse of `state_dict`; `where` names the file in errors.

        Raises:
            CheckpointError: the weights are of another network.
        """
        load_weights(self.network, state["network"], where=where)
        load_weights(self.average, state["average"], where=where)
        self.optimizer.load_state_dict(state["optimizer"])

    def _loss(self, batch: Batch, generator: torch.Generator) -> ACTLoss:
        config, shape = self.config, self.network.config
        images = []
        for frames in batch.frames:
            if config.augment_shift > 0:
                frames = augment.shift(frames, config.augment_shift, generator)
            image = to_tensor(frames)
            images.append(
                augment.vary_colour(image, config.augment_colour, generator) if config.augment_colour else image
            )
        predicted, posterior = self._forward(batch.state, images, batch.actions, batch.is_pad)
        target = self.network.normalised_actions(batch.actions)
        return act_loss(predicted, target, batch.is_pad, posterior, kl_weight=shape.kl_weight, scale=shape.loss_scale)

    def _schedule(self, step: int) -> None:
        factor = schedule(step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average towards the weights; faster in the beginning, when it knows little."""
        decay = min(self.config.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._following, self._followed, 1.0 - decay)


def schedule(step: int, config: TrainerConfig) -> float:
    """Share of the peak learning rate at a step: a linear rise, then half a cosine to the floor."""
    warmup = config.warmup_share * config.max_steps
    if step < warmup:
        return min((step + 1) / warmup, 1.0)
    done = (step - warmup) / max(config.max_steps - warmup, 1)
    return config.cosine_floor + (1 - config.cosine_floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def parameter_groups(network: ACTNetwork, config: TrainerConfig) -> list[dict[str, Any]]:
    """Backbone and the rest, each with its peak learning rate."""
    trained = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    backbone = [parameter for name, parameter in trained if name.startswith(_BACKBONE)]
    others = [parameter for name, parameter in trained if not name.startswith(_BACKBONE)]
    groups = [(others, config.learning_rate), (backbone, config.learning_rate_backbone)]
    return [{"params": members, "lr": peak, "peak": peak} for members, peak in groups if members]


def load_backbone(network: ACTNetwork, path: Path) -> None:
    """Fill the backbone from a ResNet-18 state dict with torchvision's names; its classifier is left out.

    Raises:
        CheckpointError: the file is damaged or of another network.
        ConfigError: the policy has no camera, hence no backbone.
    """
    if not network.config.cameras:
        raise ConfigError("backbone_weights are given, but the episodes have no camera.")
    state = {
        name: tensor
        for name, tensor in read_state_dict(path).items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    load_weights(network.model.backbone, state, where=str(path))


def _floats(network: nn.Module) -> list[Tensor]:
    """Parameters and running statistics, always in the same order."""
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


def _mixed(seed: int, step: int, rank: int) -> int:
    """One seed from three numbers, different for neighbouring ones."""
    return (seed * 1_000_003 + step * 8_191 + rank) % (2**63)
