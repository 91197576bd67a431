"""ResNet-18 without its classifier, under torchvision's parameter names, so that published weights load by name.

He et al. 2016, arXiv:1512.03385, table 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPS = 1e-5
_MOMENTUM = 0.1

Norm = Literal["frozen", "batch"]


class BatchNorm(nn.Module):
    """Batch normalisation, learned or frozen, with the same four tensors and no batch counter.

    Frozen: all four are buffers and the running statistics always apply. Learned: weight and bias are parameters,
    and training uses and updates the statistics of the batch. In evaluation both compute the same.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, frozen: bool):
        super().__init__()
        self.frozen = frozen
        for name, value in (("weight", torch.ones(channels)), ("bias", torch.zeros(channels))):
            if frozen:
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, nn.Parameter(value))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), normalised per channel."""
        return functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training and not self.frozen,
            momentum=_MOMENTUM,
            eps=_EPS,
        )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, frozen: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm(outputs, frozen=frozen)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(outputs, frozen=frozen)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, BatchNorm(outputs, frozen=frozen))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + shortcut)


class ResNet18(nn.Module):
    """Feature maps of the last stage.

    Args:
        width: channels of the first stage; each later one doubles them.
        norm: see `ACTConfig.backbone_norm`.
    """

    def __init__(self, *, width: int = 64, norm: Norm = "frozen"):
        super().__init__()
        frozen = norm == "frozen"
        self.channels = width * 8
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm(width, frozen=frozen)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, stride=1, frozen=frozen)
        self.layer2 = _stage(width, width * 2, stride=2, frozen=frozen)
        self.layer3 = _stage(width * 2, width * 4, stride=2, frozen=frozen)
        self.layer4 = _stage(width * 4, width * 8, stride=2, frozen=frozen)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 8 * width, ceil(H / 32), ceil(W / 32))."""
        x = self.maxpool(functional.relu(self.bn1(self.conv1(images))))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features


def _stage(inputs: int, outputs: int, *, stride: int, frozen: bool) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride=stride, frozen=frozen),
        BasicBlock(outputs, outputs, stride=1, frozen=frozen),
    )
