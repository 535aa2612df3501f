"""Blocks of networks that restore or detect, written after their papers: what candidates stand in for."""

from __future__ import annotations

from torch import Tensor, cat, nn, ones, zeros


class EdsrBlock(nn.Module):
    """Lim et al. 2017, figure 2c: two convolutions beside a skip, scaled, without normalisation."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x).mul(self.scale)
        y += x
        return y


class LayerNorm2d(nn.Module):
    """Over the channels of each pixel, in plain operations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(ones(channels)), nn.Parameter(zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        y = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)


class SimpleGate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return a * b


class NafBlock(nn.Module):
    """Chen et al. 2022, figure 3c, both expansions 2; modules in another order than they are used in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.sg = SimpleGate()
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1, self.norm2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.dropout = nn.Identity()
        self.beta = nn.Parameter(zeros(1, channels, 1, 1) + 0.4)
        self.gamma = nn.Parameter(zeros(1, channels, 1, 1) + 0.3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.sg(self.conv2(self.conv1(self.norm1(x))))
        y = self.dropout(self.conv3(y * self.sca(y)))
        x = x + y * self.beta
        z: Tensor = self.conv5(self.sg(self.conv4(self.norm2(x))))
        return x + z * self.gamma


def _conv(c_in: int, c_out: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(c_out),
        nn.SiLU(inplace=True),
    )


class _Bottleneck(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = _conv(channels, channels), _conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.cv2(self.cv1(x))
        return y


class C3(nn.Module):
    """A cross-stage-partial bottleneck with three convolutions around it (Wang et al. 2020, figure 2b)."""

    def __init__(self, c_in: int, c_out: int, depth: int, *, halving: bool = False) -> None:
        super().__init__()
        self.down = _conv(c_in, c_out, 3, 2) if halving else nn.Identity()
        c_in, half = c_out if halving else c_in, c_out // 2
        self.cv1, self.cv2, self.cv3 = _conv(c_in, half), _conv(c_in, half), _conv(2 * half, c_out)
        self.m = nn.Sequential(*(_Bottleneck(half) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        y: Tensor = self.cv3(cat((self.m(self.cv1(x)), self.cv2(x)), 1))
        return y


class SeparableTower(nn.Module):
    """Tan et al. 2020: depthwise and pointwise convolutions, the latter with a bias and a normalisation."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1),
                nn.BatchNorm2d(channels, eps=1e-3),
                nn.SiLU(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y
