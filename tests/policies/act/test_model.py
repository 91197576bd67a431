from __future__ import annotations

import pytest
import torch
from act_parts import CONFIG, SPEC, batch, network, statistics
from pydantic import ValidationError

from policies.act.config import ACTConfig
from policies.act.loss import act_loss
from policies.act.model import ACTNetwork
from policies.act.resnet import BatchNorm
from policies.normalize import StatisticsError


def test_shapes() -> None:
    state, images, actions, is_pad = batch()
    chunk, posterior = network()(state, images, actions, is_pad)
    assert chunk.shape == (2, 4, 3)
    assert posterior is not None
    assert [part.shape for part in posterior] == [(2, 4), (2, 4)]
    assert network()(state, images)[1] is None
    assert network(use_vae=False)(state, images, actions, is_pad)[1] is None


def test_images_come_as_a_list_or_as_one_tensor() -> None:
    state, images, _, _ = batch()
    assert torch.equal(network()(state, images)[0], network()(state, torch.stack(images, dim=1))[0])


def test_cameras_may_have_different_sizes() -> None:
    state, images, _, _ = batch()
    assert network()(state, [images[0], torch.rand(2, 3, 64, 40)])[0].shape == (2, 4, 3)


def test_cameras_differ_by_their_statistics_alone() -> None:
    # Every camera has the same positions, so the tokens of two cameras are a set: exchanging them changes nothing.
    state, images, _, _ = batch()
    net = network()
    assert torch.allclose(net(state, images)[0], net(state, images[::-1])[0], atol=1e-5)
    net.state_dict()["normalize_inputs.buffer_observation_image_side.mean"] += 1.0
    assert not torch.allclose(net(state, images)[0], net(state, images[::-1])[0], atol=1e-3)


def test_a_policy_without_cameras() -> None:
    blind = ACTNetwork(CONFIG.model_copy(update={"cameras": ()})).eval()
    assert blind(torch.zeros(2, 2), [])[0].shape == (2, 4, 3)
    assert not any("backbone" in name for name in blind.state_dict())


def test_a_missing_image_is_refused() -> None:
    state, images, _, _ = batch()
    with pytest.raises(ValueError, match=r"\b1\b|shorter"):
        network()(state, images[:1])


def test_running_is_deterministic_and_the_demonstration_matters_only_through_the_latent() -> None:
    state, images, actions, is_pad = batch()
    net = network()
    assert torch.equal(net.predict(state, images), net.predict(state, images))
    assert not torch.equal(net(state, images, actions, is_pad)[0], net(state, images)[0])


def test_padding_does_not_reach_the_posterior() -> None:
    state, images, actions, is_pad = batch()
    net = network()
    other = torch.where(is_pad[..., None], 1e3, actions)
    (_, one), (_, two) = net(state, images, actions, is_pad), net(state, images, other, is_pad)
    assert torch.allclose(one[0], two[0], atol=1e-5)
    assert torch.allclose(one[1], two[1], atol=1e-5)


def test_predictions_are_in_physical_units() -> None:
    state, images, _, _ = batch()
    net = network()
    expected = net(state, images)[0] * torch.tensor([0.1, 0.2, 0.3]) + torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(net.predict(state, images), expected)
    assert torch.allclose(net.physical_actions(net.normalised_actions(expected)), expected, atol=1e-5)


def test_statistics_are_in_the_state_dict_only_where_the_config_says_so() -> None:
    inside, outside = network().state_dict(), network(normalise_in_model=False).state_dict()
    assert set(inside) - set(outside) == set(ACTNetwork.buffers_of(statistics(), CONFIG))
    assert all(name.startswith("model.") for name in outside)


def test_statistics_of_another_robot_are_refused() -> None:
    with pytest.raises(StatisticsError, match=r"observation.state have shape \(2,\), expected \(7,\)"):
        ACTNetwork(CONFIG.model_copy(update={"state_dim": 7}), statistics())


def test_a_learned_norm_has_the_names_and_results_of_a_frozen_one() -> None:
    learned, frozen = network(), network(backbone_norm="frozen")
    learned.train()
    state, images, actions, is_pad = batch()
    learned(state, images, actions, is_pad)  # moves the running statistics
    frozen.load_state_dict(learned.state_dict(), strict=True)
    assert torch.equal(learned.eval().predict(state, images), frozen.predict(state, images))
    assert not any("num_batches_tracked" in name for name in learned.state_dict())


def test_a_frozen_norm_does_not_learn() -> None:
    norm = BatchNorm(3, frozen=True)
    norm(torch.rand(4, 3, 2, 2))
    assert norm.running_mean.eq(0).all()
    assert not list(norm.parameters())


def test_training_reduces_the_error() -> None:
    net = network(kl_weight=0.1, dropout=0.0).train()
    state, images, normal_actions, is_pad = batch(8)
    actions = net.physical_actions(normal_actions)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    errors = []
    for _ in range(40):
        predicted, posterior = net(state, images, actions, is_pad)
        loss = act_loss(predicted, net.normalised_actions(actions), is_pad, posterior, kl_weight=0.1)
        optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        errors.append(loss.l1.item())
    assert errors[-1] < 0.7 * errors[0]
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(
    "change", [{"heads": 3}, {"dim_model": 18, "heads": 2}, {"cameras": ("a.b", "a_b")}, {"chunk_size": 0}]
)
def test_an_impossible_config_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ACTConfig.model_validate({**CONFIG.model_dump(), **change})


def test_a_config_knows_where_a_spec_differs() -> None:
    assert CONFIG.disagreements(SPEC) == []
    assert CONFIG.disagreements(SPEC.model_copy(update={"chunk_size": 9})) == [
        "chunk_size: the model has 4, input_spec 9"
    ]
