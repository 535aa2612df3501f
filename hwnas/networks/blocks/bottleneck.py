"""The inverted bottleneck: what candidates of that family are chains of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from hwnas.networks.blocks.layers import SqueezeExcite, make_activation, slopes

GROUP_CHANNELS = 8
SE_RATIO = 0.25


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """Kernel, channels, stride and input map of one layer of a candidate."""

    kernel: int
    activation: str
    se: bool
    layer: Literal["depthwise", "grouped"]
    c_in: int
    hidden: int
    c_out: int
    stride: int
    rows: int
    columns: int

    @property
    def reduced(self) -> int:
        """Channels inside of squeeze-and-excitation: a quarter of the layer's input, as in EfficientNet."""
        return max(1, round(self.c_in * SE_RATIO))

    @property
    def cost(self) -> tuple[int, int]:
        """MACs and parameters."""
        fan_in = 1 if self.layer == "depthwise" else GROUP_CHANNELS
        pixels_in = self.rows * self.columns
        pixels_out = -(-self.rows // self.stride) * -(-self.columns // self.stride)
        expand = self.c_in * self.hidden
        spatial = self.kernel**2 * fan_in * self.hidden
        project = self.hidden * self.c_out
        gates = 2 * self.hidden * self.reduced if self.se else 0
        biases = self.hidden + self.reduced + slopes(self.activation, self.reduced) if self.se else 0
        biases += 2 * slopes(self.activation, self.hidden)
        macs = expand * pixels_in + (spatial + project) * pixels_out + gates
        return macs, expand + spatial + project + gates + biases + 4 * self.hidden + 2 * self.c_out


class InvertedBottleneck(nn.Module):
    """Expand 1×1, convolve k×k, gate, project 1×1, add the input where the shapes allow it.

    x: (B, C_in, H, W) → (B, C_out, ⌈H/stride⌉, ⌈W/stride⌉)
    """

    def __init__(self, plan: LayerPlan) -> None:
        super().__init__()
        c_in, hidden, c_out, stride = plan.c_in, plan.hidden, plan.c_out, plan.stride
        kernel, pad = plan.kernel, plan.kernel // 2
        groups = hidden if plan.layer == "depthwise" else hidden // GROUP_CHANNELS
        self.residual = stride == 1 and c_in == c_out
        self.expand = nn.Sequential(
            nn.Conv2d(c_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            make_activation(plan.activation, hidden),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(hidden, hidden, kernel, stride, padding=pad, groups=groups, bias=False),
            nn.BatchNorm2d(hidden),
            make_activation(plan.activation, hidden),
        )
        self.se = SqueezeExcite(hidden, plan.reduced, plan.activation) if plan.se else nn.Identity()
        self.project = nn.Sequential(nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.se(self.spatial(self.expand(x))))
        return x + y if self.residual else y
