"""Networks that are no chains, as they are written: U-shapes, pyramids, several heads, long skips."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHAPE = (3, 32, 32)


def convolution(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """A convolution with normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    """Two levels down and up again; the enlarged map is joined with what was there."""

    def __init__(self, width: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.input_shape = SHAPE
        self.enter = nn.Sequential(convolution(3, width), convolution(width, width))
        self.down1 = nn.Sequential(convolution(width, 2 * width), convolution(2 * width, 2 * width))
        self.down2 = nn.Sequential(convolution(2 * width, 4 * width), convolution(4 * width, 4 * width))
        self.up1 = nn.Sequential(convolution(6 * width, 2 * width), convolution(2 * width, 2 * width))
        self.up2 = nn.Sequential(convolution(3 * width, width), convolution(width, width))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.enter(x)
        middle = self.down1(F.max_pool2d(top, 2))
        y = self.down2(F.max_pool2d(middle, 2))
        for other, block in ((middle, self.up1), (top, self.up2)):
            y = block(torch.cat([F.interpolate(y, size=other.shape[-2:]), other], 1))
        logits: Tensor = self.classify(y)
        return logits


class Pyramid(nn.Module):
    """A detector: two levels, towers over both with a normalisation for each, lists of maps."""

    def __init__(self, width: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.input_shape = SHAPE
        self.stem = convolution(3, width, 2)
        self.s1 = nn.Sequential(convolution(width, width), convolution(width, width))
        self.s2 = nn.Sequential(convolution(width, width, 2), convolution(width, width))
        self.tower = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2)) for _ in range(2))
        self.classes, self.boxes = nn.Conv2d(width, classes, 3, 1, 1), nn.Conv2d(width, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        levels = [self.s1(self.stem(x))]
        levels.append(self.s2(levels[0]))
        found: dict[str, list[Tensor]] = {"classes": [], "boxes": []}
        for y, norms in zip(levels, zip(*self.norms, strict=True), strict=True):
            z = y
            for layer, norm in zip(self.tower, norms, strict=True):
                z = F.relu(norm(layer(z)))
            found["classes"].append(self.classes(z))
            found["boxes"].append(self.boxes(z))
        return found


class Several(nn.Module):
    """Two heads on one backbone, one answers about the image, the other about each pixel."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.input_shape = SHAPE
        self.stem = convolution(3, width)
        self.body = nn.Sequential(convolution(width, 2 * width, 2), convolution(2 * width, 2 * width))
        self.deeper = nn.Sequential(convolution(2 * width, 4 * width, 2), convolution(4 * width, 4 * width))
        self.lanes = nn.Sequential(convolution(2 * width, width), convolution(width, width))
        self.draw = nn.Conv2d(width, 2, 1)
        self.classify = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(self.stem(x))
        lanes = F.interpolate(self.draw(self.lanes(y)), size=x.shape[-2:], mode="bilinear")
        return self.classify(self.deeper(y).mean((2, 3))), lanes


class Late(nn.Module):
    """As SPAN's: what early and late layers give is joined at the end; the enlarged image is added."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.input_shape = SHAPE
        self.first = nn.Conv2d(3, width, 3, 1, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1))
            for _ in range(4)
        )
        self.join, self.end = nn.Conv2d(3 * width, width, 1), nn.Conv2d(width, 12, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = y = self.first(x)
        kept = [first]
        for number, block in enumerate(self.blocks):
            y = y + block(y)
            if number == 1:
                kept.append(y)
        larger = F.pixel_shuffle(self.end(self.join(torch.cat([*kept, y], 1))), 2)
        return larger + F.interpolate(x, scale_factor=2, mode="nearest")


class Segmenter(nn.Module):
    """As torchvision's segmenters: a dictionary, its logits at the size that the image is asked for."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.input_shape = SHAPE
        self.backbone = nn.Sequential(
            convolution(3, width, 2), *(convolution(width, width) for _ in range(3))
        )
        self.classifier = nn.Sequential(convolution(width, width), nn.Conv2d(width, 4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[-2:]
        return {"out": F.interpolate(self.classifier(self.backbone(x)), (height, width), mode="bilinear")}


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    each.__name__: each for each in (UNet, Pyramid, Several, Late, Segmenter)
}


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with statistics of its own, in eval mode, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = make().train()
        with torch.no_grad():
            for _ in range(10):
                net(torch.randn(8, *SHAPE))
    return net.eval()


def unet() -> nn.Module:
    """See `UNet`."""
    return seeded(UNet)


def pyramid() -> nn.Module:
    """See `Pyramid`; wide enough that a processor notices."""
    return seeded(lambda: Pyramid(64))


def several() -> nn.Module:
    """See `Several`."""
    return seeded(Several)


def segmenter() -> nn.Module:
    """See `Segmenter`; wide enough that a processor notices."""
    return seeded(lambda: Segmenter(64))


def late() -> nn.Module:
    """See `Late`; wide enough that a processor notices."""
    return seeded(lambda: Late(64))
