from __future__ import annotations

import pytest
import torch

from policies.act.loss import act_loss


def test_the_error_is_averaged_over_valid_steps_and_dimensions() -> None:
    target = torch.zeros(2, 3, 4)
    predicted = torch.ones(2, 3, 4)
    predicted[:, 2] = 1e6
    is_pad = torch.tensor([[False, False, True]] * 2)
    loss = act_loss(predicted, target, is_pad, None, kl_weight=10.0)
    assert (loss.total.item(), loss.l1.item(), loss.kl.item()) == (1.0, 1.0, 0.0)


def test_the_reference_leaves_the_dimensions_out_of_the_mean() -> None:
    is_pad = torch.zeros(2, 3, dtype=torch.bool)
    loss = act_loss(torch.ones(2, 3, 4), torch.zeros(2, 3, 4), is_pad, None, kl_weight=1.0, scale="reference")
    assert loss.l1.item() == 4.0


def test_divergence_is_that_of_a_gaussian() -> None:
    mean, log_variance = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    is_pad = torch.zeros(2, 1, dtype=torch.bool)
    loss = act_loss(torch.zeros(2, 1, 1), torch.zeros(2, 1, 1), is_pad, (mean, log_variance), kl_weight=3.0)
    unit = torch.distributions.Normal(torch.zeros(2, 2), torch.ones(2, 2))
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(posterior, unit).sum(-1).mean()
    assert loss.kl.item() == pytest.approx(expected.item())
    assert loss.total.item() == pytest.approx(3 * expected.item())


def test_a_batch_of_padding_alone_counts_nothing() -> None:
    loss = act_loss(torch.ones(1, 2, 3), torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool), None, kl_weight=1)
    assert loss.total.item() == 0.0
