"""The arithmetic of folding: what weights become when the constants around them are put into them, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.act.config import buffer_name
from policies.act.model import ACT, ACTNetwork
from policies.act.resnet import BatchNorm
from policies.act.transformer import DecoderLayer, positions_2d
from policies.normalize import normalise


def double(tensor: Tensor) -> Tensor:
    """A copy to compute with."""
    return tensor.detach().cpu().double()


def normalising(network: ACTNetwork, feature: str) -> tuple[Tensor, Tensor]:
    """Mean of a feature, and what the distance to it is multiplied with."""
    prefix = f"normalize_inputs.buffer_{buffer_name(feature)}"
    mean, std = (double(network.get_buffer(f"{prefix}.{part}")) for part in ("mean", "std"))
    return mean, normalise(torch.ones_like(std), torch.zeros_like(mean), std)


def scale_and_shift(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """What a batch norm does per channel, as it is evaluated."""
    exact = copy.deepcopy(norm).cpu().double().eval()
    with torch.no_grad():
        probe = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None, None]
        shift, sum_ = exact(probe.expand(2, norm.weight.shape[0], 1, 1))[:, :, 0, 0]
    return sum_ - shift, shift


def qkv(attention: nn.MultiheadAttention) -> tuple[Tensor, Tensor]:
    """Weight (3 D, D) and bias (3 D,) to queries, keys and values, the queries scaled as the attention wants them."""
    scale = torch.ones(3 * attention.embed_dim, dtype=torch.float64)
    scale[: attention.embed_dim] = 1 / math.sqrt(attention.head_dim)
    return double(attention.in_proj_weight) * scale[:, None], double(attention.in_proj_bias) * scale


def placed_qkv(places: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What positions (N, D) add to queries, keys and values (N, 3 D); values have none."""
    placed = places @ weight.T
    placed[:, 2 * places.shape[1] :] = 0
    return placed + bias


def first_self_attention(layer: DecoderLayer, queries: Tensor) -> Tensor:
    """The first half of the decoder's first layer (C, D), whose input is zeros."""
    # Every value is the same, so that it does not matter what attends to what.
    value = double(layer.self_attn.in_proj_bias)[2 * queries.shape[1] :]
    seen = value @ double(layer.self_attn.out_proj.weight).T + double(layer.self_attn.out_proj.bias)
    norm = layer.norm1
    normed = functional.layer_norm(seen, (queries.shape[1],), double(norm.weight), double(norm.bias), norm.eps)
    return normed.expand_as(queries)


def token_places(model: ACT, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Position embeddings (N, D) of all tokens."""
    cells = [(-(-height // 32), -(-width // 32)) for height, width in sizes]
    grids = [double(positions_2d(*cell, model.config.dim_model))[0] for cell in cells]
    return torch.cat((double(model.encoder_1d_feature_pos_embed.weight), *grids))
