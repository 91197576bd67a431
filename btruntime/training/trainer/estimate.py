"""How long a run will take: a few steps on random data, with a network that is thrown away."""

from __future__ import annotations

import time

import torch

from btruntime.training.trainer.batches import Batch
from btruntime.training.trainer.config import TrainerConfig
from btruntime.training.trainer.learner import Learner
from policies.act.config import ACTConfig
from policies.normalize import MeanStd, Statistics
from policies.spec import InputSpec

_PROBE_BATCH = 4
_AFFORDABLE_S = 2.0
_REPEATS = 3


def seconds_per_step(config: TrainerConfig, spec: InputSpec, device: torch.device) -> float:
    """Measured on this machine as it is now; blocks for a few seconds.

    Where a step takes long, a small batch is measured instead and scaled up, which overestimates a little.
    """
    learner = Learner(config, config.network(spec), _unit_statistics(config.network(spec)), device)
    probe = min(_PROBE_BATCH, config.batch_size)
    _measured(learner, config, spec, probe)  # the first step allocates, and compiles kernels
    scaled = _measured(learner, config, spec, probe) * config.batch_size / probe
    if scaled > _AFFORDABLE_S and device.type == "cpu":
        return scaled
    _measured(learner, config, spec, config.batch_size)
    return min(_measured(learner, config, spec, config.batch_size) for _ in range(_REPEATS))


def _measured(learner: Learner, config: TrainerConfig, spec: InputSpec, batch_size: int) -> float:
    batch = _random_batch(config, spec, batch_size)
    begin = time.monotonic()
    loss = learner.step(0, batch)
    loss.total.item()  # waits for the device
    return time.monotonic() - begin


def _random_batch(config: TrainerConfig, spec: InputSpec, size: int) -> Batch:
    shape = (size, config.image_height, config.image_width, 3)
    return Batch(
        torch.zeros(size, spec.state_dim),
        tuple(torch.randint(0, 256, shape, dtype=torch.uint8) for _ in spec.cameras),
        torch.zeros(size, config.chunk_size, spec.action_dim),
        torch.zeros(size, config.chunk_size, dtype=torch.bool),
    )


def _unit_statistics(network: ACTConfig) -> Statistics:
    def unit(*shape: int) -> MeanStd:
        return MeanStd(torch.zeros(shape).numpy(), torch.ones(shape).numpy())

    images = {camera: unit(3, 1, 1) for camera in network.cameras}
    return Statistics(unit(network.state_dim), unit(network.action_dim), images)
