"""One training step: what it changes, what it never may do, and that it depends on nothing hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from btruntime.training.trainer import augment
from btruntime.training.trainer.batches import Examples, Order
from btruntime.training.trainer.cache import Cache, open_cache
from btruntime.training.trainer.config import ConfigError, TrainerConfig
from btruntime.training.trainer.estimate import seconds_per_step
from btruntime.training.trainer.events import silent
from btruntime.training.trainer.learner import Learner, load_backbone
from btruntime.training.trainer.split import Split
from btruntime.training.trainer.train import measure_statistics, milestones
from btruntime.training.trainer.validation import open_loop_error
from policies.act.model import ACTNetwork
from policies.checkpoint import CheckpointError

from .conftest import MakeSkill

CPU = torch.device("cpu")


def prepared(make_skill: MakeSkill, config: TrainerConfig, **options: float) -> tuple[Cache, Learner]:
    cache = open_cache(make_skill(**options), silent, chunk_size=config.chunk_size, height=32, width=32)
    statistics = measure_statistics(cache, Split(cache.names, ()))
    return cache, Learner(config, config.network(cache.content.input_spec), statistics, CPU)


def run_steps(cache: Cache, learner: Learner, steps: range) -> list[float]:
    examples = Examples(cache, cache.names)
    order = Order(examples.lengths, batch_size=learner.config.batch_size, seed=0)
    return [float(learner.step(step, examples.gather(order.batch(step))).total) for step in steps]


def test_it_learns(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    config = tiny.model_copy(update={"max_steps": 40, "batch_size": 8, "learning_rate": 3e-3, "kl_weight": 1.0})
    cache, learner = prepared(make_skill, config)
    losses = run_steps(cache, learner, range(40))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_a_step_depends_on_weights_seed_and_number_alone(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    cache, learner = prepared(make_skill, tiny)
    straight = run_steps(cache, learner, range(6))
    first = Learner(tiny, learner.network.config, measure_statistics(cache, Split(cache.names, ())), CPU)
    begun = run_steps(cache, first, range(3))
    torch.manual_seed(12345)
    second = Learner(tiny, learner.network.config, measure_statistics(cache, Split(cache.names, ())), CPU)
    second.load_state_dict(first.state_dict(), where="resume.pt")
    assert begun + run_steps(cache, second, range(3, 6)) == straight
    for mine, theirs in zip(second.average.parameters(), learner.average.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_channels_that_never_vary_stay_finite(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    """The base and joint `lift` never move, and every second picture of `wrist` is flat."""
    cache, learner = prepared(make_skill, tiny)
    assert all(np.isfinite(run_steps(cache, learner, range(6))))
    statistics = measure_statistics(cache, Split(cache.names, ()))
    assert statistics.action.std[4] == pytest.approx(1e-2)
    assert statistics.state.std[1] == pytest.approx(1e-2)


def test_without_cameras_it_trains_too(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    cache, learner = prepared(make_skill, tiny, cameras=False)
    assert all(np.isfinite(run_steps(cache, learner, range(2))))


def test_backbone_and_the_rest_have_their_own_rates(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    config = tiny.model_copy(update={"learning_rate_backbone": 1e-9, "weight_decay": 0.0})
    cache, learner = prepared(make_skill, config)
    before = {name: parameter.detach().clone() for name, parameter in learner.network.named_parameters()}
    run_steps(cache, learner, range(3))
    for name, parameter in learner.network.named_parameters():
        moved = float((parameter.detach() - before[name]).abs().max())
        assert (moved < 1e-7) == name.startswith("model.backbone."), name


def test_the_average_lags_behind(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    cache, learner = prepared(make_skill, tiny.model_copy(update={"ema_decay": 0.0}))
    run_steps(cache, learner, range(2))
    for name, tensor in learner.network.state_dict().items():
        assert torch.equal(tensor, learner.average.state_dict()[name]), name
    cache, learner = prepared(make_skill, tiny.model_copy(update={"ema_decay": 0.9}))
    run_steps(cache, learner, range(2))
    weight = "model.action_head.weight"
    assert not torch.equal(learner.network.state_dict()[weight], learner.average.state_dict()[weight])


def test_pretrained_weights_load_by_name(make_skill: MakeSkill, tiny: TrainerConfig, tmp_path: Path) -> None:
    _, learner = prepared(make_skill, tiny)
    backbone = {name: torch.rand_like(t) for name, t in learner.network.model.backbone.state_dict().items()}
    extra = {"fc.weight": torch.zeros(10, 16), "fc.bias": torch.zeros(10), "bn1.num_batches_tracked": torch.tensor(3)}
    torch.save(backbone | extra, tmp_path / "resnet18.pth")
    config = tiny.model_copy(update={"backbone_weights": tmp_path / "resnet18.pth"})
    assert config.norm == "frozen"
    network = ACTNetwork(learner.network.config)
    load_backbone(network, tmp_path / "resnet18.pth")
    assert torch.equal(network.model.backbone.conv1.weight, backbone["conv1.weight"])
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        load_backbone(network, tmp_path / "other.pth")
    blind = ACTNetwork(learner.network.config.model_copy(update={"cameras": ()}))
    with pytest.raises(ConfigError, match="no camera"):
        load_backbone(blind, tmp_path / "resnet18.pth")


def test_the_validation_error_is_the_mean_over_valid_steps(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    cache, learner = prepared(make_skill, tiny, episodes=1, length=9)
    examples = Examples(cache, cache.names)
    error = open_loop_error(learner.average, examples, batch_size=4)
    whole = examples.gather(np.arange(len(examples)))
    images = [frames.permute(0, 3, 1, 2).float() / 255 for frames in whole.frames]
    with torch.inference_mode():
        difference = (learner.average.predict(whole.state, images) - whole.actions).abs()[~whole.is_pad]
    np.testing.assert_allclose(error.by_dim, difference.mean(0).numpy(), rtol=1e-4, atol=1e-6)
    assert error == open_loop_error(learner.average, examples, batch_size=4)


def test_augmentation_shifts_and_colours_within_bounds() -> None:
    frames = torch.arange(32 * 32, dtype=torch.uint8).reshape(1, 32, 32, 1).expand(3, 32, 32, 3)
    generator = torch.Generator().manual_seed(0)
    shifted = augment.shift(frames, 0.1, generator)
    assert shifted.shape == frames.shape
    offsets = [
        (row, column)
        for row in range(-3, 4)
        for column in range(-3, 4)
        if torch.equal(shifted[1, 5:-5, 5:-5], frames[1, 5 + row : 27 + row, 5 + column : 27 + column])
    ]
    assert len(offsets) == 1
    assert torch.equal(augment.shift(frames, 0.0, generator), frames)
    varied = augment.vary_colour(torch.rand(4, 3, 8, 8, generator=generator), 0.5, generator)
    assert float(varied.min()) >= 0
    assert float(varied.max()) <= 1


def test_milestones_end_with_the_last_step() -> None:
    assert milestones(TrainerConfig(max_steps=100, checkpoints=3)) == {33, 67, 100}
    assert milestones(TrainerConfig(max_steps=2, checkpoints=10)) == {1, 2}


def test_the_estimate_is_a_time(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    cache, _ = prepared(make_skill, tiny)
    assert 0 < seconds_per_step(tiny, cache.content.input_spec, CPU) < 60
