"""The family of NAFNet's gated layers (Chen et al. 2022, figure 3c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.measurement import STRICT
from hwnas.networks.blocks.convnext import Resample, match_resample, plan_map
from hwnas.networks.blocks.family import Family, Original, crossed
from hwnas.networks.blocks.found import Call, find_scale, run_block
from hwnas.networks.blocks.inherit_chain import at_kernel
from hwnas.networks.blocks.layers import NORM_EPS, ChannelNorm, check_properties
from hwnas.ranges import Factor, Size


@dataclass(frozen=True, kw_only=True)
class NafSpec:
    """One replacement of a block: a chain of NAFNet's layers.

    Attributes:
        kernel: size of the depthwise convolution.
        expand: channels before each gate / the block's; the gate multiplies one half by the other.
        depth: number of layers.
    """

    __pydantic_config__ = STRICT
    family: Literal["naf"] = "naf"
    kernel: Size
    expand: Factor
    depth: Size

    def __post_init__(self) -> None:
        """Refuse what no network has; a file may say anything."""
        check_properties(kernel=self.kernel, depth=self.depth)
        if not 0.125 <= self.expand <= 16:
            raise ValueError(f"expand is {self.expand}, it must be from 0.125 to 16")

    @property
    def kind(self) -> tuple[str, ...]:
        """Family and kernel."""
        return self.family, str(self.kernel)

    @property
    def name(self) -> str:
        """`naf-k3-e2-d4`."""
        return f"naf-k{self.kernel}-e{self.expand:g}-d{self.depth}"

    @property
    def inside(self) -> float:
        """Channels before a gate over the block's."""
        return self.expand


@dataclass(frozen=True, kw_only=True)
class NafTable:
    """The values of each property."""

    __pydantic_config__ = STRICT
    kernel: tuple[Size, ...]
    expand: tuple[Factor, ...]
    depth: tuple[Size, ...]


def naf_specs(table: NafTable, block: Original) -> list[NafSpec]:
    """Every candidate of a table, whatever the block."""
    return [NafSpec(**values) for values in crossed(table)]


class Gate(nn.Module):
    """Multiplies one half of the channels by the other (SimpleGate). x: (B, 2C, H, W) → (B, C, H, W)"""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return x[:, :half] * x[:, half:]


class PooledScale(nn.Module):
    """Simplified channel attention: each channel times a mixture of their means. x keeps its shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.mix(x.mean((2, 3), keepdim=True))
        return y


class NafLayer(nn.Module):
    """A gated convolution and a gated MLP, each behind a normalisation and beside a skip.

    x: (B, C, H, W) → the same shape
    """

    def __init__(self, spec: NafSpec, channels: int) -> None:
        super().__init__()
        gated = _gated(spec, channels)
        self.norm1 = ChannelNorm(channels, eps=NORM_EPS)
        self.expand1 = nn.Conv2d(channels, 2 * gated, 1)
        self.depthwise = nn.Conv2d(
            2 * gated, 2 * gated, spec.kernel, padding=spec.kernel // 2, groups=2 * gated
        )
        self.gate = Gate()
        self.scale = PooledScale(gated)
        self.project1 = nn.Conv2d(gated, channels, 1)
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))
        self.norm2 = ChannelNorm(channels, eps=NORM_EPS)
        self.expand2 = nn.Conv2d(channels, 2 * gated, 1)
        self.project2 = nn.Conv2d(gated, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(self.depthwise(self.expand1(self.norm1(x))))
        x = x + self.beta * self.project1(self.scale(y))
        z: Tensor = self.project2(self.gate(self.expand2(self.norm2(x))))
        return x + self.gamma * z


def _gated(spec: NafSpec, channels: int) -> int:
    return max(1, round(channels * spec.expand / 2))


def build_naf(spec: NafSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> nn.Sequential:
    """The untrained module of a candidate between maps (C, H, W); errors as for `layers.strides`."""
    plan = plan_map(spec.name, spec.depth, 1.0, in_shape, out_shape)
    layers: list[nn.Module] = []
    for before in plan.before:
        layers += [] if before is None else [Resample(before)]
        layers.append(NafLayer(spec, plan.channels))
    return nn.Sequential(*layers)


def naf_cost(spec: NafSpec, in_shape: Sequence[int], out_shape: Sequence[int]) -> tuple[int, int]:
    """MACs and parameters in closed form; arguments and errors as for `build_naf`."""
    plan = plan_map(spec.name, spec.depth, 1.0, in_shape, out_shape)
    channels, gated = plan.channels, _gated(spec, plan.channels)
    of_pixel = gated * (6 * channels + 2 * spec.kernel**2)
    biases = 7 * gated + 2 * channels
    macs, params = plan.cost
    return (
        macs + of_pixel * sum(plan.pixels) + spec.depth * gated**2,
        params + spec.depth * (of_pixel + gated**2 + biases + 6 * channels),
    )


@dataclass(frozen=True, kw_only=True)
class FoundLayer:
    """The modules of a layer of the reference, in the order in which it uses them.

    Attributes:
        norms: before the gated convolution and before the gated MLP.
        convolutions: expand, depthwise, mix of means, project; expand, project.
        scales: what both sums are scaled by, (C, 1, 1).
    """

    norms: tuple[nn.Module, nn.Module]
    convolutions: tuple[nn.Conv2d, ...]
    scales: tuple[Tensor, Tensor]


def find_layers(block: nn.Module) -> list[FoundLayer]:
    """The layers that a block starts with, known by what they do to a random map."""
    calls, x, end = run_block(block)
    used = [call for call in calls if isinstance(call.module, nn.Conv2d)]
    found: list[FoundLayer] = []
    for first in range(0, len(used) - 5, 6):
        six = used[first : first + 6]
        behind = used[first + 6] if first + 6 < len(used) else None
        norms = [_call_before(calls, six[0]), _call_before(calls, six[4])]
        after = end if behind is None else _input_of(calls, behind)
        layer = _as_layer(six, norms, x, after)
        if layer is None or after is None:
            break
        found.append(layer)
        x = after
    return found


def _as_layer(
    six: Sequence[Call], norms: Sequence[Call | None], x: Tensor, after: Tensor | None
) -> FoundLayer | None:
    first, second = norms
    if first is None or second is None or after is None or not torch.equal(first.x, x):
        return None
    convolutions = tuple(call.module for call in six if isinstance(call.module, nn.Conv2d))
    gated = convolutions[3].in_channels
    shapes = [(c.in_channels, c.out_channels, c.groups) for c in convolutions]
    channels, mlp = x.shape[1], convolutions[5].in_channels
    scales = find_scale(x, six[3].y, second.x), find_scale(second.x, six[5].y, after)
    wanted = [
        (channels, 2 * gated, 1),
        (2 * gated, 2 * gated, 2 * gated),
        (gated, gated, 1),
        (gated, channels, 1),
        (channels, 2 * mlp, 1),
        (mlp, channels, 1),
    ]
    if shapes != wanted or scales[0] is None or scales[1] is None or six[2].x.shape[2:] != (1, 1):
        return None
    return FoundLayer(
        norms=(first.module, second.module), convolutions=convolutions, scales=(scales[0], scales[1])
    )


def _call_before(calls: Sequence[Call], call: Call) -> Call | None:
    """The normalisation that gives what a call takes."""
    for each in calls:
        channels = getattr(each.module, "weight", None)
        if each is not call and isinstance(channels, Tensor) and channels.ndim == 1 and each.y.equal(call.x):
            return each
    return None


def _input_of(calls: Sequence[Call], call: Call) -> Tensor | None:
    norm = _call_before(calls, call)
    return None if norm is None else norm.x


@torch.no_grad()
def inherit_naf(module: nn.Module, block: nn.Module, variance: Tensor) -> None:
    """As `Family.inherit`: a block of such layers gives its first ones, with the gates that matter most."""
    layers = [layer for layer in module.children() if isinstance(layer, NafLayer)]
    if len(layers) < len(list(module.children())):
        return
    for layer, source in zip(layers, find_layers(block), strict=False):
        if source.convolutions[0].in_channels != layer.expand1.in_channels:
            return
        _take(layer, source)


def _take(layer: NafLayer, source: FoundLayer) -> None:
    expand1, depthwise, mix, project1, expand2, project2 = source.convolutions
    for ours, theirs in zip((layer.norm1, layer.norm2), source.norms, strict=True):
        for name in ("weight", "bias"):
            getattr(ours, name).copy_(getattr(theirs, name))
    gates = _most_important(project1, layer.project1.in_channels)
    here, there = layer.project1.in_channels, project1.in_channels
    _take_gates(layer.expand1, expand1, gates, (here, there))
    _take_gates(layer.depthwise, depthwise, gates, (here, there))
    _take_inputs(layer.project1, project1, gates)
    _take_inputs(layer.scale.mix, mix, gates, gates)
    gates = _most_important(project2, layer.project2.in_channels)
    _take_gates(layer.expand2, expand2, gates, (layer.project2.in_channels, project2.in_channels))
    _take_inputs(layer.project2, project2, gates)
    layer.beta.copy_(source.scales[0])
    layer.gamma.copy_(source.scales[1])


def _most_important(theirs: nn.Conv2d, wanted: int) -> Tensor:
    """Which gates a layer takes, by what leads on from them."""
    matter = torch.linalg.vector_norm(theirs.weight, dim=(0, 2, 3))
    chosen: Tensor = matter.topk(min(wanted, len(matter))).indices.sort().values
    return chosen.cpu()


def _take_gates(ours: nn.Conv2d, theirs: nn.Conv2d, gates: Tensor, amounts: tuple[int, int]) -> None:
    """Both channels of some gates; `amounts` are those of gates, ours and theirs."""
    assert ours.bias is not None
    here, there = amounts
    for half in range(2):
        rows, sources = torch.arange(len(gates)) + half * here, gates + half * there
        ours.weight[rows] = at_kernel(theirs.weight[sources], ours.kernel_size[0])
        ours.bias[rows] = 0.0 if theirs.bias is None else theirs.bias[sources]


def _take_inputs(ours: nn.Conv2d, theirs: nn.Conv2d, gates: Tensor, outputs: Tensor | None = None) -> None:
    """What leads on from some gates, to some channels (None: to all); from further gates nothing."""
    assert ours.bias is not None
    sources = torch.arange(theirs.out_channels) if outputs is None else outputs
    ours.weight[: len(sources)] = 0.0
    ours.weight[: len(sources), : len(gates)] = theirs.weight[sources][:, gates]
    ours.bias[: len(sources)] = 0.0 if theirs.bias is None else theirs.bias[sources]


NAF = Family(
    spec=NafSpec,
    table=NafTable,
    specs=naf_specs,
    build=build_naf,
    cost=naf_cost,
    match_output=match_resample,
    learning_rate=1.5e-2,
    inherit=inherit_naf,
)
