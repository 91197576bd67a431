"""A folded network with its weights laid out once as oneDNN computes with them, sums and ReLUs done while it does.

torch itself lays weights out anew in every call, which costs a small batch as much as the computing. The operations are
those that torch's own compiler emits; they are no public interface, so an engine made of them has to prove itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from policies.engines.folded import Conv, Linear


class PackedConv(nn.Module):
    """See `policies.engines.folded.Conv`."""

    def __init__(self, conv: Conv, shape: tuple[int, ...]):
        super().__init__()
        self._stride, self._padding = [conv.stride] * 2, [conv.padding] * 2
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight, self._padding, self._stride, [1, 1], 1, list(shape)
        )
        self._bias = conv.bias

    def forward(self, x: Tensor, shortcut: Tensor | None = None, *, relu: bool = True) -> Tensor:
        """As `Conv.forward`; `shortcut` is overwritten."""
        where = (self._padding, self._stride, [1, 1], 1)
        after = "relu" if relu else "none"
        if shortcut is None:
            alone: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *where, after, [], "")
            return alone
        added: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            shortcut, x, self._weight, self._bias, *where, "add", 1.0, after if relu else None, [], ""
        )
        return added


class PackedLinear(nn.Module):
    """See `policies.engines.folded.Linear`."""

    def __init__(self, linear: Linear, rows: int):
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight, rows)
        self._bias = linear.bias

    def forward(self, x: Tensor, add: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """As `Linear.forward`."""
        after = "relu" if relu else "none"
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._weight.dtype), self._weight, self._bias, after, [], ""
        )
        return y if add is None else add + y


def pack(network: nn.Module, example: tuple[Tensor, ...]) -> None:
    """Replace the convolutions and linear layers of a folded network, for inputs of the shapes of `example`."""
    shapes: dict[str, tuple[int, ...]] = {}
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, Conv | Linear)}

    def note(name: str) -> Any:
        return lambda _, inputs: shapes.__setitem__(name, tuple(inputs[0].shape))

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    network(*example)
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        if name not in shapes:
            continue
        new = PackedConv(layer, shapes[name]) if isinstance(layer, Conv) else PackedLinear(layer, shapes[name][0])
        network.set_submodule(name, new)
