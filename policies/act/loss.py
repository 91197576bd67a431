"""The loss of ACT (Zhao et al. 2023, algorithm 1): absolute error of the actions and divergence of the latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from policies.act.model import Latent


@dataclass(frozen=True, slots=True)
class ACTLoss:
    """Scalars. `total` is what is minimised."""

    total: Tensor
    l1: Tensor
    kl: Tensor


def act_loss(
    predicted: Tensor,
    target: Tensor,
    is_pad: Tensor,
    posterior: Latent | None,
    *,
    kl_weight: float,
    scale: Literal["mean", "reference"] = "mean",
) -> ACTLoss:
    """Masked absolute error plus weighted divergence.

    Args:
        predicted: (B, C, A), normalised.
        target: (B, C, A), normalised.
        is_pad: (B, C) true where the target lies past the end of the episode; such steps do not count.
        posterior: mean and log variance (B, L) of the latent; None without a VAE.
        kl_weight: weight of the divergence.
        scale: see `ACTConfig.loss_scale`.

    Returns:
        `kl` is the mean over the batch of the sum over the latent's dimensions. A batch of padding alone gives 0.
    """
    l1 = l1_error(predicted, target, is_pad)
    if scale == "reference":
        l1 = l1 * predicted.shape[-1]
    kl = l1.new_zeros(()) if posterior is None else _divergence(*posterior)
    return ACTLoss(total=l1 + kl_weight * kl, l1=l1, kl=kl)


def l1_error(predicted: Tensor, target: Tensor, is_pad: Tensor) -> Tensor:
    """Mean absolute error over the steps that are not padding and over the action dimensions; see `act_loss`."""
    valid = (~is_pad)[..., None].to(predicted.dtype)  # (B, C, 1)
    count = valid.sum().clamp(min=1) * predicted.shape[-1]
    return ((predicted - target).abs() * valid).sum() / count


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence from a unit Gaussian (Kingma and Welling 2014, appendix B)."""
    per_latent = -0.5 * (1 + log_variance - mean.square() - log_variance.exp())
    return per_latent.sum(-1).mean()
