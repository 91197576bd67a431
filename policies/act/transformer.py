"""The transformer of ACT: post-norm layers that add positions to queries and keys of every layer, as in DETR.

Carion et al. 2020, arXiv:2005.12872, figure 10.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_TEMPERATURE = 10_000.0


class FeedForward(nn.Module):
    """Base of the layers: holds `linear1` and `linear2` under the names that checkpoints have."""

    def __init__(self, dim: int, hidden: int, dropout: float):
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        inner = self.dropout(functional.relu(self.linear1(x)))
        result: Tensor = self.dropout(self.linear2(inner))
        return result


class EncoderLayer(FeedForward):
    """Self-attention, then two linear layers."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float):
        super().__init__(dim, hidden, dropout)
        self.self_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        """Tokens (B, N, D), positions (1, N, D), padding (B, N) true where a token is not to be seen."""
        placed = x + positions
        seen = self.self_attn(placed, placed, x, key_padding_mask=padding, need_weights=False)[0]
        x = self.norm1(x + self.dropout(seen))
        result: Tensor = self.norm2(x + self.feed_forward(x))
        return result


class DecoderLayer(FeedForward):
    """Self-attention of the queries, attention to the encoder's tokens, then two linear layers."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float):
        super().__init__(dim, hidden, dropout)
        self.self_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, queries: Tensor, tokens: Tensor, placed_tokens: Tensor) -> Tensor:
        """Input (B, C, D), queries (1, C, D), tokens (B, N, D) without and with their positions."""
        placed = x + queries
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x, need_weights=False)[0]))
        seen = self.multihead_attn(x + queries, placed_tokens, tokens, need_weights=False)[0]
        x = self.norm2(x + self.dropout(seen))
        result: Tensor = self.norm3(x + self.feed_forward(x))
        return result


class Encoder(nn.Module):
    """A stack of encoder layers."""

    def __init__(self, layers: int, dim: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, hidden, dropout) for _ in range(layers))

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """See `EncoderLayer.forward`."""
        for layer in self.layers:
            x = layer(x, positions, padding)
        return x


class Decoder(nn.Module):
    """A stack of decoder layers with a norm at the end; it starts from zeros, told apart by `queries` alone."""

    def __init__(self, layers: int, dim: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        """Queries (1, C, D), tokens (B, N, D), positions (1, N, D) to (B, C, D)."""
        x = tokens.new_zeros(tokens.shape[0], queries.shape[1], queries.shape[2])
        placed_tokens = tokens + positions
        for layer in self.layers:
            x = layer(x, queries, tokens, placed_tokens)
        result: Tensor = self.norm(x)
        return result


def positions_1d(length: int, dim: int) -> Tensor:
    """(1, length, dim) sinusoidal embedding (Vaswani et al. 2017, section 3.5)."""
    steps = torch.arange(length, dtype=torch.float64)[:, None]
    angles = steps / _TEMPERATURE ** (2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim)
    table = torch.empty(length, dim, dtype=torch.float64)
    table[:, 0::2] = angles[:, 0::2].sin()
    table[:, 1::2] = angles[:, 1::2].cos()
    return table.float()[None]


def positions_2d(height: int, width: int, dim: int) -> Tensor:
    """(1, height * width, dim) embedding of a grid: rows in the first half of the channels, columns in the second.

    Coordinates run from 1/n to 1 of a full turn (Carion et al. 2020, appendix A.4).
    """
    half = dim // 2
    periods = _TEMPERATURE ** (2 * (torch.arange(half, dtype=torch.float64) // 2) / half)

    def waves(count: int) -> Tensor:
        turn = torch.arange(1, count + 1, dtype=torch.float64) / (count + 1e-6) * 2 * math.pi
        angles = turn[:, None] / periods
        return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=-1).flatten(1)  # (count, half)

    rows = waves(height)[:, None].expand(height, width, half)
    columns = waves(width)[None].expand(height, width, half)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1).float()[None]
