"""Inverted bottlenecks: what a replacement of this family is, and the torch module that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.errors import InputError
from hwnas.measurement import STRICT
from hwnas.network import plain_attention
from hwnas.ranges import Factor, Size

GROUP_CHANNELS = 8
SE_RATIO = 0.25

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "swish": nn.SiLU, "hswish": nn.Hardswish}


@dataclass(frozen=True, kw_only=True)
class InvertedBottleneckSpec:
    """One replacement of a block: a chain of inverted bottlenecks (DONNA 4.1.1).

    Attributes:
        kernel: size of the spatial convolution.
        expand: hidden channels of a layer / its input channels.
        depth: number of layers.
        activation: `relu`, `swish` or `hswish`.
        se: squeeze-and-excitation in every layer.
        layer: spatial convolution one channel at a time, or in groups of 8 channels.
        width: factor on the channels inside of the block; its last layer comes back to the block's width,
            so that any choice fits beside any other.
    """

    __pydantic_config__ = STRICT
    family: Literal["inverted-bottleneck"] = "inverted-bottleneck"
    kernel: Size
    expand: Size
    depth: Size
    activation: Literal["relu", "swish", "hswish"]
    se: bool
    layer: Literal["depthwise", "grouped"]
    width: Factor

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(kernel=self.kernel, expand=self.expand, depth=self.depth, width=self.width)

    @property
    def kind(self) -> tuple[str, ...]:
        """What candidates of one kind have in common; a few of a space are taken in turn from each."""
        return self.family, self.layer, self.activation, str(self.se)

    @property
    def name(self) -> str:
        """Short, unique and readable: `k5-e3-d2-swish-se-depthwise-w0.5`."""
        se = "-se" if self.se else ""
        return (
            f"k{self.kernel}-e{self.expand}-d{self.depth}-{self.activation}{se}-{self.layer}-w{self.width:g}"
        )


def check_properties(*, kernel: int = 1, expand: int = 1, depth: int = 1, width: float = 1.0) -> None:
    """Raise ValueError, naming the property, for what no candidate of any family has."""
    if kernel % 2 == 0 or not 1 <= kernel <= 31:
        raise ValueError(f"kernel is {kernel}, it must be odd and from 1 to 31")
    if not 1 <= expand <= 16:
        raise ValueError(f"expand is {expand}, it must be from 1 to 16")
    if not 1 <= depth <= 64:
        raise ValueError(f"depth is {depth}, it must be from 1 to 64")
    if not 0 < width <= 4:
        raise ValueError(f"width is {width}, it must be above 0 and at most 4")


class SqueezeExcite(nn.Module):
    """Channel gates from the pooled map (SENet eq. 2–4). x: (B, C, H, W) → the same shape."""

    def __init__(self, channels: int, reduced: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Hardsigmoid() if activation is nn.Hardswish else nn.Sigmoid()  # MobileNetV3, 5.3

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        gates: Tensor = self.gate(self.expand(self.activation(self.reduce(pooled))))
        return x * gates


class InvertedBottleneck(nn.Module):
    """Expand 1×1, convolve k×k, gate, project 1×1, add the input where the shapes allow it.

    x: (B, C_in, H, W) → (B, C_out, ⌈H/stride⌉, ⌈W/stride⌉)
    """

    def __init__(self, spec: InvertedBottleneckSpec, layer: LayerPlan) -> None:
        super().__init__()
        activation = ACTIVATIONS[spec.activation]
        c_in, hidden, c_out, stride = layer.c_in, layer.hidden, layer.c_out, layer.stride
        groups = hidden if spec.layer == "depthwise" else hidden // GROUP_CHANNELS
        self.residual = stride == 1 and c_in == c_out
        self.expand = nn.Sequential(
            nn.Conv2d(c_in, hidden, 1, bias=False), nn.BatchNorm2d(hidden), activation()
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(
                hidden, hidden, spec.kernel, stride, padding=spec.kernel // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(hidden),
            activation(),
        )
        self.se = SqueezeExcite(hidden, _reduced(c_in), activation) if spec.se else nn.Identity()
        self.project = nn.Sequential(nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.se(self.spatial(self.expand(x))))
        return x + y if self.residual else y


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """Channels, stride and input map of one layer of a candidate."""

    c_in: int
    hidden: int
    c_out: int
    stride: int
    rows: int
    columns: int


def plan(spec: InvertedBottleneckSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> list[LayerPlan]:
    """The layers of a candidate: the map is halved as early as possible, as in the networks it replaces.

    Args:
        in_shape: (C, H, W) of the block's input.
        out_shape: (C, H, W) of the block's output.

    Raises:
        InputError: no chain of `depth` layers goes from the one size to the other.
    """
    (c_in, rows, columns), c_out = in_shape, out_shape[0]
    inner = divisible(c_out * spec.width)
    layers = []
    for index, stride in enumerate(strides(spec.name, spec.depth, in_shape, out_shape)):
        hidden = divisible(c_in * spec.expand * (spec.width if index == 0 else 1.0))
        layer_out = c_out if index == spec.depth - 1 else inner
        layers.append(
            LayerPlan(c_in=c_in, hidden=hidden, c_out=layer_out, stride=stride, rows=rows, columns=columns)
        )
        c_in, rows, columns = layer_out, -(-rows // stride), -(-columns // stride)
    return layers


def strides(name: str, depth: int, in_shape: Sequence[int], out_shape: Sequence[int]) -> list[int]:
    """The stride of each of `depth` layers: the map is halved, rounded up, as early as possible.

    Args:
        name: of the candidate, for the message.

    Raises:
        InputError: as for `plan`.
    """
    size, found = list(in_shape[1:]), []
    for _ in range(depth):
        found.append(2 if size[0] > out_shape[1] else 1)
        size = [-(-side // found[-1]) for side in size]
    if size != list(out_shape[1:]):
        raise InputError(
            f"candidate {name} cannot turn a map of {tuple(in_shape[1:])} into {tuple(out_shape[1:])}",
            "give it more layers (depth)",
        )
    return found


def build_candidate(
    spec: InvertedBottleneckSpec, in_shape: Sequence[int], out_shape: Sequence[int]
) -> nn.Sequential:
    """The untrained module of a candidate; arguments and errors as for `plan`."""
    return nn.Sequential(*(InvertedBottleneck(spec, layer) for layer in plan(spec, in_shape, out_shape)))


@torch.no_grad()
def match_output(module: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """Let a fresh candidate's output have this mean and variance (C,) in each channel.

    The layers that set the block's channels get them in their last normalisation; the residual layers
    behind those start by adding nothing.
    """
    for layer in module.children():
        assert isinstance(layer, InvertedBottleneck)
        norm = layer.project[1]
        assert isinstance(norm, nn.BatchNorm2d)
        if norm.num_features == len(mean):
            norm.weight.copy_(torch.zeros_like(mean) if layer.residual else variance.sqrt())
            norm.bias.copy_(torch.zeros_like(mean) if layer.residual else mean)


def cost(spec: InvertedBottleneckSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """What `count` gives for the candidate's module, in closed form; arguments and errors as for `plan`."""
    macs = params = 0
    for layer in plan(spec, in_shape, out_shape):
        fan_in = 1 if spec.layer == "depthwise" else GROUP_CHANNELS
        pixels_in = layer.rows * layer.columns
        pixels_out = -(-layer.rows // layer.stride) * -(-layer.columns // layer.stride)
        expand = layer.c_in * layer.hidden
        spatial = spec.kernel**2 * fan_in * layer.hidden
        project = layer.hidden * layer.c_out
        gates = 2 * layer.hidden * _reduced(layer.c_in) if spec.se else 0
        macs += expand * pixels_in + (spatial + project) * pixels_out + gates
        params += expand + spatial + project + gates + 4 * layer.hidden + 2 * layer.c_out
        params += layer.hidden + _reduced(layer.c_in) if spec.se else 0
    return macs, params


@torch.no_grad()
def count(module: nn.Module, in_shape: Sequence[int]) -> tuple[int, int]:
    """Multiply-accumulates of one image, and parameters.

    Convolutions, linear layers and matrix products count; element-wise work does not, as in the papers.

    Args:
        in_shape: (C, H, W).
    """
    from torch.utils.flop_counter import FlopCounterMode

    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    counter = FlopCounterMode(display=False)
    was_training = module.training
    module.eval()
    # The counter trips over views of parameters, as of a class token, that want a gradient and have no graph.
    weights = {name: value.detach() for name, value in module.named_parameters()}
    recurrent = any(isinstance(child, nn.RNNBase) for child in module.modules())
    # oneDNN's kernel of a recurrent layer is one that the counter does not know.
    oneDNN = torch.backends.mkldnn.flags(enabled=False) if recurrent else nullcontext()
    with counter, plain_attention(), oneDNN:
        torch.func.functional_call(module, weights, (torch.zeros(1, *in_shape, device=device),))
    module.train(was_training)
    return counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters())


def _reduced(c_in: int) -> int:
    """Channels inside of squeeze-and-excitation: a quarter of the layer's input, as in EfficientNet."""
    return max(1, round(c_in * SE_RATIO))


def divisible(channels: float) -> int:
    """The nearest multiple of 8, never below 8 nor below 0.9 of what was asked (MobileNetV3's rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
