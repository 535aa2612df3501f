"""One matrix product costs the same however it is written, and every multiplication is counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hwnas.devices.simulator import Network, Scheduler, load_accelerator, read_onnx
from hwnas.network import export_onnx

timm = pytest.importorskip("timm")


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, T, C)."""
    return x.flatten(2).transpose(1, 2)


def image(x: Tensor, like: Tensor) -> Tensor:
    """(B, T, C) to (B, C, H, W)."""
    return x.transpose(1, 2).reshape(like.shape[0], -1, *like.shape[2:])


def of_rows(x: Tensor, w: Tensor, multiply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply a product to (B T, C)."""
    flat = tokens(x)
    return image(multiply(flat.reshape(-1, flat.shape[-1]), w).reshape(1, -1, w.shape[0]), x)


# The product of a map (B, C, H, W) with weights (K, C) over its channels, in every form.
FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "convolution": lambda x, w: F.conv2d(x, w[:, :, None, None]),
    "tokens": lambda x, w: image(F.linear(tokens(x), w), x),
    "rows": lambda x, w: of_rows(x, w, F.linear),
    "rows by stored columns": lambda x, w: of_rows(x, w, lambda a, b: torch.mm(a, b.T)),
    "rows with a bias": lambda x, w: of_rows(x, w, lambda a, b: torch.addmm(b[:, 0], a, b.T)),
    "columns": lambda x, w: image((w @ tokens(x)[0].T).T[None], x),
    "columns of a batch": lambda x, w: image((w @ x.flatten(2)).transpose(1, 2), x),
    "channels last": lambda x, w: F.linear(x.permute(0, 2, 3, 1), w).permute(0, 3, 1, 2),
    "four dimensions": lambda x, w: (w @ x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3),
    "one-dimensional convolution": lambda x, w: F.conv1d(x.flatten(2), w[:, :, None]).reshape(
        1, -1, *x.shape[2:]
    ),
    "a column": lambda x, w: F.conv2d(x.flatten(2)[..., None], w[:, :, None, None]).reshape(
        1, -1, *x.shape[2:]
    ),
    "a row": lambda x, w: F.conv2d(x.flatten(2)[:, :, None], w[:, :, None, None]).reshape(
        1, -1, *x.shape[2:]
    ),
    "einsum of a map": lambda x, w: torch.einsum("bchw,kc->bkhw", x, w),
    "einsum of tokens": lambda x, w: image(torch.einsum("...c,kc->...k", tokens(x), w), x),
}


class Chain(nn.Module):
    """A convolution, products in one form, and a classifier."""

    def __init__(self, form: str, channels: tuple[int, ...], kernel: int) -> None:
        super().__init__()
        self.form = FORMS[form]
        self.embed = nn.Conv2d(3, channels[0], kernel, kernel)
        self.weights = nn.ParameterList(torch.randn(k, c) for c, k in pairwise(channels))
        self.head = nn.Linear(channels[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for weight in self.weights:
            x = self.form(x, weight).relu()
        result: Tensor = self.head(x.mean((2, 3)))
        return result


def read(module: nn.Module, size: tuple[int, ...]) -> Network:
    return read_onnx(export_onnx(module, (1, *size)))


@cache
def figures(form: str, channels: tuple[int, ...], kernel: int, size: tuple[int, int]) -> list[object]:
    network = read(Chain(form, channels, kernel), (3, *size))
    return [
        Scheduler(load_accelerator(name)).figures(
            [Scheduler(load_accelerator(name)).part(network)], mode=mode
        )
        for name in ("mobile-npu", "tpu-like-df")
        for mode in (None, "single-layer")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "kernel", "size"),
    [
        ((32, 48, 64), 4, (64, 64)),
        ((16, 16), 4, (16, 16)),  # as many positions as channels
        ((24, 8, 40), 2, (12, 28)),
        ((24, 80, 40), 2, (112, 168)),
        ((8, 12), 4, (4, 64)),  # a map of one row
        ((8, 12), 4, (64, 4)),
    ],
)
@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_product_costs_the_same_in_every_form(
    form: str, channels: tuple[int, ...], kernel: int, size: tuple[int, int]
) -> None:
    assert figures(form, channels, kernel, size) == figures("convolution", channels, kernel, size)


def counted(module: nn.Module, size: tuple[int, ...]) -> int:
    """Multiply-accumulates by PyTorch's own counter."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module.eval()(torch.zeros(1, *size))
    return int(counter.get_total_flops()) // 2


class Heads(nn.Module):
    """Attention written by hand: products of two maps, batched by heads (and by windows)."""

    def __init__(self, channels: int, heads: int, windows: int, form: str) -> None:
        super().__init__()
        self.heads, self.windows, self.form = heads, windows, form
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        c, h, w = x.shape[1:]
        t = tokens(x).reshape(self.windows, -1, c)
        q, k, v = self.qkv(t).reshape(self.windows, -1, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if self.form == "einsum":
            weights = torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1)
            mixed = torch.einsum("bhqk,bhkd->bhqd", weights, v)
        elif self.form == "bmm":
            flat = [m.reshape(self.windows * self.heads, -1, c // self.heads) for m in (q, k, v)]
            mixed = torch.bmm(torch.bmm(flat[0], flat[1].transpose(1, 2)).softmax(-1), flat[2])
            mixed = mixed.reshape(self.windows, self.heads, -1, c // self.heads)
        elif self.form == "operator":
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        merged = mixed.transpose(1, 2).reshape(1, h * w, c)
        return image(self.out(merged), x)


ATTENTION = ("matmul", "bmm", "einsum", "operator")


@pytest.mark.parametrize("windows", [1, 4])
def test_attention_costs_the_same_in_every_form(windows: int) -> None:
    scheduler = Scheduler(load_accelerator())
    found = []
    for form in ATTENTION:
        module = Heads(24, 3, windows, form)
        network = read(module, (24, 8, 12))
        assert network.macs == counted(module, (24, 8, 12))
        found.append(scheduler.figures([scheduler.part(network)]))
    assert found[1:] == found[:-1]


def layer(draw: random.Random, channels: int) -> tuple[nn.Module, int]:
    """A random layer on a map, and the channels that it makes."""
    groups = draw.choice([g for g in (1, 2, channels) if channels % g == 0])
    wide = groups * draw.randint(1, 4)
    kernel = draw.choice([1, 3, 5])
    kind = draw.choice(["conv", "conv", "transposed", "heads", "product", "pool", "norm"])
    if kind == "conv":
        return nn.Conv2d(
            channels,
            wide,
            (kernel, draw.choice([1, 3])),
            draw.choice([1, 2]),
            kernel // 2,
            draw.choice([1, 2]) if kernel < 5 else 1,
            groups,
        ), wide
    if kind == "transposed":
        return nn.ConvTranspose2d(
            channels, wide, draw.choice([2, 3]), draw.choice([1, 2, 3]), groups=groups
        ), wide
    if kind == "heads":
        heads = draw.choice([h for h in (1, 2, 3) if channels % h == 0])
        return Heads(channels, heads, 1, draw.choice(ATTENTION)), channels
    if kind == "product":
        return Product(draw.choice(sorted(FORMS)), channels, wide), wide
    if kind == "pool":
        return nn.AvgPool2d(3, 1, 1), channels
    return nn.BatchNorm2d(channels), channels


class Product(nn.Module):
    def __init__(self, form: str, channels: int, wide: int) -> None:
        super().__init__()
        self.form, self.weight = FORMS[form], nn.Parameter(torch.randn(wide, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x, self.weight)


def random_network(seed: int) -> nn.Module:
    draw = random.Random(seed)
    channels = draw.choice([4, 6, 9])
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 2, 1)]
    for _ in range(4):
        made, channels = layer(draw, channels)
        layers += [made, draw.choice([nn.ReLU(), nn.GELU(), nn.Sigmoid()])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 7))


@pytest.mark.parametrize("seed", range(40))
def test_multiply_accumulates_of_random_networks_are_those_of_torch(seed: int) -> None:
    torch.manual_seed(seed)
    module = random_network(seed).eval()
    size = (3, *random.Random(seed).choices((20, 24, 31, 32), k=2))
    network = read(module, size)
    scheduler = Scheduler(load_accelerator())
    result = scheduler.schedule(network)
    assert network.macs == result.macs == counted(module, size)
    assert scheduler.figures([scheduler.part(network)]).macs == network.macs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenetv3_small_100", 96),
        ("efficientnet_b0", 64),
        ("resnet18d", 64),
        ("regnety_002", 64),
        ("convnext_atto", 64),
        ("mobilevit_xxs", 64),
        ("deit_tiny_patch16_224", 224),
        ("swin_s3_tiny_224", 224),
        ("levit_128s", 224),
        ("efficientformerv2_s0", 224),
        ("mixer_s32_224", 224),
        ("poolformer_s12", 64),
        ("efficientvit_b0", 64),
    ],
)
def test_multiply_accumulates_of_real_networks_are_those_of_torch(name: str, size: int) -> None:
    module = timm.create_model(name).eval()
    assert read(module, (3, size, size)).macs == counted(module, (3, size, size))
