"""An ACT network for running alone: all that is the same in every cycle is computed once, when it is built.

| what | where it goes |
|---|---|
| batch norms | into the convolutions before them |
| 0..255, means and deviations of pictures, channel order | into the first convolution; the mean pads frames |
| the latent of 0, position embeddings | into constants added to queries, keys and values |
| the 1x1 projection of picture features | into one product with queries, keys and values of the first layer |
| first self-attention of the decoder, and the first queries to the encoder | constants: they see no input |
| keys and values of all decoder layers | one product |
| last layer norm's scale, un-normalising | into the action head |

All folding is done in float64 and rounded once. In half precision, the transformer's sums, attention and norms, and
what touches physical units (the state's projection, the action head) stay float32: that costs little, and a third of
the error is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.act.model import ACT, ACTNetwork
from policies.act.resnet import BasicBlock, BatchNorm
from policies.act.transformer import DecoderLayer, EncoderLayer
from policies.engines.folding import (
    double,
    first_self_attention,
    normalising,
    placed_qkv,
    qkv,
    scale_and_shift,
    token_places,
)

Layer = TypeVar("Layer", bound=nn.Module)
Size = tuple[int, int]
Colour = Literal["rgb", "bgr"]


class Conv(nn.Module):
    """A convolution with its batch norm in it, and what follows it: a sum with a shortcut, a ReLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, stride: int, padding: int, dtype: torch.dtype):
        super().__init__()
        self.stride, self.padding = stride, padding
        self.register_buffer("weight", weight.to(dtype).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.to(dtype))

    def forward(self, x: Tensor, shortcut: Tensor | None = None, *, relu: bool = True) -> Tensor:
        """(B, I, H, W), and (B, O, h, w) to add, to (B, O, h, w)."""
        y = functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        if shortcut is not None:
            y = y + shortcut
        return functional.relu(y) if relu else y


class Linear(nn.Module):
    """A linear layer in its own dtype, and what follows it: a sum in float32, or a ReLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("weight", weight.to(dtype).contiguous())
        self.register_buffer("bias", bias.to(dtype))

    def forward(self, x: Tensor, add: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """(N, I) of any dtype, and (N, O) float32 to add, to (N, O)."""
        y = functional.linear(x.to(self.weight.dtype), self.weight, self.bias)
        if add is not None:
            return add + y
        return functional.relu(y) if relu else y


class Norm(nn.Module):
    """A layer norm; one without a scale leaves it to the layer after it."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, norm: nn.LayerNorm, *, scaled: bool = True):
        super().__init__()
        self.eps, self.dim = norm.eps, norm.weight.shape[0]
        self.register_buffer("weight", double(norm.weight).float() if scaled else None)
        self.register_buffer("bias", double(norm.bias).float() if scaled else None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return functional.layer_norm(x, (self.dim,), self.weight, self.bias, self.eps)


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, block: BasicBlock, dtype: torch.dtype):
        super().__init__()
        self.conv1 = _conv(block.conv1, block.bn1, dtype)
        self.conv2 = _conv(block.conv2, block.bn2, dtype)
        self.downsample = None
        if block.downsample is not None:
            assert isinstance(block.downsample, nn.Sequential)
            shortcut, shortcut_norm = block.downsample
            assert isinstance(shortcut, nn.Conv2d)
            assert isinstance(shortcut_norm, BatchNorm)
            self.downsample = _conv(shortcut, shortcut_norm, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) to (B, O, h, w)."""
        shortcut = x if self.downsample is None else self.downsample(x, relu=False)
        result: Tensor = self.conv2(self.conv1(x), shortcut)
        return result


class Backbone(nn.Module):
    """Bytes of all cameras of one size to features.

    Raw bytes and their mean are exact in bfloat16 or nearly so, and the bias is that of the rounded weights, so that
    a grey picture loses nothing by the rounding.
    """

    means: Tensor

    def __init__(self, network: ACTNetwork, cameras: Sequence[int], colour: Colour, dtype: torch.dtype):
        super().__init__()
        resnet = network.model.backbone
        scale, shift = scale_and_shift(resnet.bn1)
        weight = resnet.conv1.weight.detach().double() * scale[:, None, None, None]
        means, stems = [], []
        for camera in cameras:
            mean, gain = normalising(network, f"observation.image_{network.config.cameras[camera]}")
            mean, gain = mean.flatten() * 255, gain.flatten() / 255
            camera_weight = weight * gain[None, :, None, None]
            if colour == "bgr":
                camera_weight, mean = camera_weight.flip(1), mean.flip(0)
            rounded = camera_weight.to(dtype).double()
            bias = shift - (rounded.sum((2, 3)) * mean).sum(1)
            means.append(mean)
            stems.append(Conv(rounded, bias, stride=2, padding=0, dtype=dtype))
        # Cameras with the same statistics share the first convolution too.
        if all(torch.equal(stem.weight, stems[0].weight) and torch.equal(stem.bias, stems[0].bias) for stem in stems):
            stems = stems[:1]
        self.stems = nn.ModuleList(stems)
        self.register_buffer("means", torch.stack(means)[:, None, None, :].to(dtype))  # (B, 1, 1, 3)
        stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        blocks = _layers([block for stage in stages for block in stage], BasicBlock)
        self.blocks = nn.ModuleList(Block(block, dtype) for block in blocks)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 to (B, h * w, channels)."""
        x = self._stem(self._padded(frames).permute(0, 3, 1, 2))
        x = functional.max_pool2d(x, 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 2, 3, 1).flatten(1, 2)

    def _padded(self, frames: Tensor) -> Tensor:
        count, height, width = frames.shape[:3]
        rows = self.means.expand(count, 3, width, 3)
        tall = torch.cat((rows, frames.to(self.means.dtype), rows), dim=1)
        columns = self.means.expand(count, height + 6, 3, 3)
        return torch.cat((columns, tall, columns), dim=2)

    def _stem(self, x: Tensor) -> Tensor:
        if len(self.stems) == 1:
            together: Tensor = self.stems[0](x)
            return together
        return torch.cat([stem(frame) for stem, frame in zip(self.stems, torch.split(x, 1), strict=True)])


class Attention(nn.Module):
    """Attention of one observation in float32, heads apart; queries are scaled already."""

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(Q, D), (N, D), (N, D) to (Q, D)."""
        q, k, v = (self._apart(x) for x in (queries, keys, values))
        seen = functional.scaled_dot_product_attention(q, k, v, scale=1.0)  # (1, heads, Q, d)
        return seen[0].transpose(0, 1).flatten(1)

    def _apart(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], self.heads, x.shape[1] // self.heads).transpose(0, 1)[None]


class EncoderBlock(nn.Module):
    """An encoder layer after its queries, keys and values; those of the first come from the embedding."""

    places: Tensor | None

    def __init__(self, layer: EncoderLayer, places: Tensor, *, first: bool, dtype: torch.dtype):
        super().__init__()
        self.qkv = None
        self.register_buffer("places", None)
        if not first:
            weight, bias = qkv(layer.self_attn)
            self.qkv = Linear(weight, torch.zeros_like(bias), dtype=dtype)
            self.places = placed_qkv(places, weight, bias).float()
        self.attention = Attention(layer.self_attn.num_heads)
        self.out = _linear(layer.self_attn.out_proj, dtype)
        self.norm1, self.norm2 = Norm(layer.norm1), Norm(layer.norm2)
        self.linear1, self.linear2 = _linear(layer.linear1, dtype), _linear(layer.linear2, dtype)

    def forward(self, x: Tensor, qkv: Tensor | None = None) -> Tensor:
        """Tokens (N, D), their queries, keys and values (N, 3 D) where those are known, to (N, D)."""
        if qkv is None:
            assert self.qkv is not None
            qkv = self.qkv(x, self.places)
        x = self.norm1(self.out(self.attention(*qkv.chunk(3, dim=-1)), x))
        result: Tensor = self.norm2(self.linear2(self.linear1(x, relu=True), x))
        return result


class DecoderBlock(nn.Module):
    """A decoder layer; in the first, all before the attention to the encoder is a constant."""

    start: Tensor | None
    start_queries: Tensor | None
    qkv_places: Tensor | None
    query_places: Tensor | None

    def __init__(self, layer: DecoderLayer, queries: Tensor, *, first: bool, dtype: torch.dtype):
        super().__init__()
        cross_weight, cross_bias = (part[: queries.shape[1]] for part in qkv(layer.multihead_attn))
        for name in ("start", "start_queries", "qkv_places", "query_places"):
            self.register_buffer(name, None)
        if first:
            start = first_self_attention(layer, queries)
            self.start = start.float()
            self.start_queries = ((start + queries) @ cross_weight.T + cross_bias).float()
        else:
            weight, bias = qkv(layer.self_attn)
            self.qkv = Linear(weight, torch.zeros_like(bias), dtype=dtype)
            self.qkv_places = placed_qkv(queries, weight, bias).float()
            self.out1 = _linear(layer.self_attn.out_proj, dtype)
            self.norm1 = Norm(layer.norm1)
            self.query = Linear(cross_weight, torch.zeros_like(cross_bias), dtype=dtype)
            self.query_places = (queries @ cross_weight.T + cross_bias).float()
        self.attention = Attention(layer.self_attn.num_heads)
        self.out2 = _linear(layer.multihead_attn.out_proj, dtype)
        self.norm2, self.norm3 = Norm(layer.norm2), Norm(layer.norm3)
        self.linear1, self.linear2 = _linear(layer.linear1, dtype), _linear(layer.linear2, dtype)

    def forward(self, x: Tensor | None, keys: Tensor, values: Tensor) -> Tensor:
        """(C, D), nothing for the first, and keys and values of the encoder's tokens (N, D) each, to (C, D)."""
        if x is None:
            x, queries = self.start, self.start_queries
        else:
            qkv = self.qkv(x, self.qkv_places)
            x = self.norm1(self.out1(self.attention(*qkv.chunk(3, dim=-1)), x))
            queries = self.query(x, self.query_places)
        x = self.norm2(self.out2(self.attention(queries, keys, values), x))
        result: Tensor = self.norm3(self.linear2(self.linear1(x, relu=True), x))
        return result


class FoldedACT(nn.Module):
    """See the module. Frames come grouped by size: `groups` has the cameras of each, in the order of their frames.

    Args:
        network: in physical units, with its statistics; is not changed and shares no tensor.
        sizes: (height, width) of each camera's frames.
        colour: order of channels that the network was trained with; frames are RGB.
        dtype: of weights and activations.
    """

    first_latent: Tensor
    first_places: Tensor
    cross_places: Tensor

    def __init__(
        self, network: ACTNetwork, sizes: Sequence[Size], *, colour: Colour = "rgb", dtype: torch.dtype = torch.float32
    ):
        super().__init__()
        model, config = network.model, network.config
        self.dim, self.dtype = config.dim_model, dtype
        self.groups = tuple(
            tuple(camera for camera, other in enumerate(sizes) if other == size) for size in dict.fromkeys(sizes)
        )
        self.backbones = nn.ModuleList(Backbone(network, cameras, colour, dtype) for cameras in self.groups)
        places = token_places(model, sizes)
        self._fold_embedding(network, places, dtype)
        self.encoder = nn.ModuleList(
            EncoderBlock(layer, places, first=index == 0, dtype=dtype)
            for index, layer in enumerate(_layers(model.encoder.layers, EncoderLayer))
        )
        decoder = _layers(model.decoder.layers, DecoderLayer)
        queries = double(model.decoder_pos_embed.weight)
        self.decoder = nn.ModuleList(
            DecoderBlock(layer, queries, first=index == 0, dtype=dtype) for index, layer in enumerate(decoder)
        )
        self._fold_cross(decoder, places, dtype)
        self._fold_head(network, model)

    def forward(self, state: Tensor, *frames: Tensor) -> Tensor:
        """The chunk (C, A) float32 in physical units; state (S,) float32, per group (B, H, W, 3) uint8."""
        x, qkv = torch.split(self._embedded(state, frames), [self.dim, 3 * self.dim], dim=-1)
        for index, block in enumerate(self.encoder):
            x = block(x, qkv if index == 0 else None)
        crossed = self.cross(x, self.cross_places).chunk(2 * len(self.decoder), dim=-1)
        decoded: Tensor | None = None
        for index, block in enumerate(self.decoder):
            decoded = block(decoded, crossed[2 * index], crossed[2 * index + 1])
        assert decoded is not None
        actions: Tensor = self.head(self.norm(decoded))
        return actions

    def _embedded(self, state: Tensor, frames: Sequence[Tensor]) -> Tensor:
        """Tokens with queries, keys and values of the first layer, (N, 4 D)."""
        by_camera: dict[int, Tensor] = {}
        for cameras, backbone, group in zip(self.groups, self.backbones, frames, strict=True):
            features = backbone(group)
            tokens = self.first(features.flatten(0, 1)).view(*features.shape[:2], -1)
            by_camera.update(zip(cameras, tokens.unbind(0), strict=True))
        state_token = self.first_state(state[None])
        tokens = [self.first_latent, state_token, *(by_camera[camera] for camera in sorted(by_camera))]
        return torch.cat(tokens) + self.first_places

    def _fold_embedding(self, network: ACTNetwork, places: Tensor, dtype: torch.dtype) -> None:
        model = network.model
        weight, bias = qkv(_layers(model.encoder.layers, EncoderLayer)[0].self_attn)
        widened = torch.cat((torch.eye(self.dim, dtype=torch.float64), weight))  # (4 D, D)
        self.register_buffer("first_latent", (double(model.encoder_latent_input_proj.bias) @ widened.T)[None].float())
        mean, gain = normalising(network, "observation.state")
        state = double(model.encoder_robot_state_input_proj.weight) * gain
        shift = double(model.encoder_robot_state_input_proj.bias) - state @ mean
        self.first_state = Linear(widened @ state, widened @ shift, dtype=torch.float32)
        if network.config.cameras:
            projection = model.encoder_img_feat_input_proj
            assert projection.bias is not None
            self.first = Linear(
                widened @ double(projection.weight)[:, :, 0, 0], widened @ double(projection.bias), dtype=dtype
            )
        shifts = torch.cat((torch.zeros_like(places), placed_qkv(places, weight, bias)), dim=1)
        self.register_buffer("first_places", shifts.float())  # (N, 4 D)

    def _fold_cross(self, decoder: Sequence[DecoderLayer], places: Tensor, dtype: torch.dtype) -> None:
        weights, constants = [], []
        for layer in decoder:
            weight, bias = (part[self.dim :] for part in qkv(layer.multihead_attn))
            key, value = weight.chunk(2)
            weights.append(weight)
            constants.append(torch.cat((places @ key.T, torch.zeros_like(places @ value.T)), dim=1) + bias)
        together = torch.cat(weights)
        self.cross = Linear(together, together.new_zeros(together.shape[0]), dtype=dtype)
        self.register_buffer("cross_places", torch.cat(constants, dim=1).float())  # (N, 2 L D)

    def _fold_head(self, network: ACTNetwork, model: ACT) -> None:
        norm = model.decoder.norm
        self.norm = Norm(norm, scaled=False)
        mean = double(network.get_buffer("unnormalize_outputs.buffer_action.mean"))
        std = double(network.get_buffer("unnormalize_outputs.buffer_action.std"))
        weight, bias = double(model.action_head.weight), double(model.action_head.bias)
        self.head = Linear(
            std[:, None] * weight * double(norm.weight),
            std * (weight @ double(norm.bias) + bias) + mean,
            dtype=torch.float32,
        )


def _layers(layers: Iterable[nn.Module], kind: type[Layer]) -> list[Layer]:
    return [layer for layer in layers if isinstance(layer, kind)]


def _conv(conv: nn.Conv2d, norm: BatchNorm, dtype: torch.dtype) -> Conv:
    scale, shift = scale_and_shift(norm)
    weight = double(conv.weight) * scale[:, None, None, None]
    stride, padding = conv.stride[0], conv.padding[0]
    assert isinstance(padding, int)
    return Conv(weight, shift, stride=stride, padding=padding, dtype=dtype)


def _linear(linear: nn.Linear, dtype: torch.dtype) -> Linear:
    return Linear(double(linear.weight), double(linear.bias), dtype=dtype)
