"""Families for networks that restore, enlarge or detect: what maps they take, and what they inherit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_blocks import C3, EdsrBlock, NafBlock, SeparableTower
from torch import Tensor, nn

from hwnas.compress.library.candidates import dropped_families, find_candidates
from hwnas.compress.library.metrics import StatisticsAccumulator
from hwnas.compress.library.space import load_space
from hwnas.compress.training.loop import learning_rate_factor
from hwnas.devices.simulator.device import SimulatorDevice
from hwnas.errors import InputError
from hwnas.measurement import DeviceProfile
from hwnas.network import Network, export_onnx
from hwnas.networks.blocks.convolution import ConvolutionSpec
from hwnas.networks.blocks.csp import CspSpec
from hwnas.networks.blocks.families import (
    build_replacement,
    learning_rate,
    replacement_cost,
    start_replacement,
)
from hwnas.networks.blocks.family import FamilySpec, Original
from hwnas.networks.blocks.naf import NafSpec
from hwnas.networks.blocks.residual import ResidualSpec
from hwnas.networks.blocks.separable import SeparableSpec
from hwnas.networks.blocks.upsample import UpsampleSpec
from hwnas.networks.count import count
from hwnas.networks.partition import partition

Shapes = tuple[tuple[int, ...], tuple[int, ...]]


def convolution(**changed: Any) -> ConvolutionSpec:
    values: dict[str, Any] = {
        "kernel": 3,
        "depth": 3,
        "width": 1.0,
        "activation": "relu",
        "norm": "none",
        "skip": False,
        "padded": True,
        "output": "relu",
    }
    return ConvolutionSpec(**values | changed)


def upsample(**changed: Any) -> UpsampleSpec:
    values: dict[str, Any] = {
        "upsample": "transposed",
        "kernel": 3,
        "depth": 2,
        "width": 1.0,
        "activation": "leaky_relu",
        "output": "linear",
    }
    return UpsampleSpec(**values | changed)


def chain(
    channels: int, amount: int, *, padding: int, activation: Callable[[], nn.Module], norm: bool = False
) -> Any:
    layers: list[nn.Module] = []
    for _ in range(amount):
        layers += [nn.Conv2d(channels, channels, 3, padding=padding)]
        layers += [nn.BatchNorm2d(channels)] if norm else []
        layers.append(activation())
    return randomised(nn.Sequential(*layers))


def randomised(module: Any) -> Any:
    """In eval mode, with random statistics, scales and slopes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and value.ndim < 4:
                low = 0.5 if "running_var" in name or "norm" in name or "weight" in name else -0.5
                value.copy_(low + torch.rand(value.shape, generator=generator))
    return module.eval()


def heir(spec: FamilySpec, block: nn.Module, shapes: Shapes) -> nn.Module:
    """A fresh candidate that has inherited from a block."""
    torch.manual_seed(1)
    module = build_replacement(spec, *shapes)
    channels = shapes[1][0]
    start_replacement(module, spec, block, torch.zeros(channels), torch.ones(channels))
    return module.eval()


def norm_of(weight: Tensor, over: tuple[int, ...]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(weight.detach(), dim=over)
    return norm


def agree(a: nn.Module, b: nn.Module, shape: tuple[int, ...]) -> bool:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return torch.allclose(a(x), b(x), rtol=1e-3, atol=1e-4)


@given(depth=st.integers(1, 5), half=st.integers(1, 8), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_layers_without_padding_take_from_a_map_what_the_block_takes(
    depth: int, half: int, rows: int, columns: int
) -> None:
    shapes = (8, rows + 2 * half, columns + 2 * half), (16, rows, columns)
    wanted = 2 * -(-half // depth) + 1
    for kernel in {wanted, wanted + 2, max(1, wanted - 2)}:
        spec = convolution(kernel=kernel, depth=depth, width=0.5, padded=False)
        if kernel == wanted:
            module = build_replacement(spec, *shapes)
            assert replacement_cost(spec, *shapes) == count(module, shapes[0])
            with torch.no_grad():
                assert module(torch.randn(2, *shapes[0])).shape == (2, *shapes[1])
            assert all(not any(m.padding) for m in module.modules() if isinstance(m, nn.Conv2d))
        else:
            for refused in (build_replacement, replacement_cost):
                with pytest.raises(InputError) as error:
                    refused(spec, *shapes)
                assert f"give it kernel {wanted}" in error.value.fix


@pytest.mark.parametrize("out_shape", [(8, 13, 13), (8, 12, 10), (8, 16, 16), (8, 20, 20)])
def test_a_loss_that_no_odd_kernels_have_is_told(out_shape: tuple[int, ...]) -> None:
    spec = convolution(padded=False)
    for refused in (build_replacement, replacement_cost):
        with pytest.raises(InputError, match="the same even number of pixels"):
            refused(spec, (8, 16, 16), out_shape)


@given(
    factor=st.integers(2, 4),
    kind=st.sampled_from(["transposed", "pixel-shuffle", "nearest"]),
    kernel=st.sampled_from([1, 3, 5]),
    depth=st.integers(1, 3),
    activation=st.sampled_from(["relu", "prelu"]),
    size=st.tuples(st.integers(13, 17), st.integers(13, 17)),
    valid=st.booleans(),
)
def test_a_map_is_enlarged_by_a_whole_factor(
    factor: int, kind: Any, kernel: int, depth: int, activation: Any, size: tuple[int, int], valid: bool
) -> None:
    lost = depth * (kernel - 1) if valid and depth * (kernel - 1) < 7 else 0
    shapes = (8, *size), (5, *(factor * (side - lost) for side in size))
    spec = upsample(
        upsample=kind, kernel=kernel, depth=depth, activation=activation, output=activation, width=0.75
    )
    if lost and kind == "nearest":
        with pytest.raises(InputError, match="keeps the border"):
            replacement_cost(spec, *shapes)
        return
    module = build_replacement(spec, *shapes)
    assert replacement_cost(spec, *shapes) == count(module, shapes[0])
    with torch.no_grad():
        assert module(torch.randn(2, *shapes[0])).shape == (2, *shapes[1])


def test_without_a_border_no_pixel_that_comes_out_depends_on_padding() -> None:
    """As in a larger image: a map with more around it gives the same in the middle."""
    for spec in (upsample(), upsample(upsample="pixel-shuffle")):
        module = build_replacement(spec, (4, 12, 12), (3, 16, 16)).eval()
        large = torch.randn(1, 4, 20, 20)
        with torch.no_grad():
            whole, part = module(large), module(large[:, :, 4:16, 4:16])
        torch.testing.assert_close(whole[:, :, 8:-8, 8:-8], part)


@pytest.mark.parametrize(
    ("in_shape", "out_shape"),
    [
        ((8, 8, 8), (8, 8, 8)),
        ((8, 8, 8), (8, 4, 4)),
        ((8, 8, 8), (8, 16, 24)),
        ((8, 8, 8), (8, 17, 17)),
        ((8, 2, 2), (8, 20, 20)),
    ],
)
def test_other_sizes_than_whole_factors_are_told(in_shape: Any, out_shape: Any) -> None:
    for refused in (build_replacement, replacement_cost):
        with pytest.raises(InputError, match="a whole factor from 2 to 8"):
            refused(upsample(), in_shape, out_shape)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("kind", ["transposed", "pixel-shuffle", "nearest"])
def test_a_graph_enlarges_as_the_module_does(kind: Any, factor: int) -> None:
    shapes = (8, 6, 7), (3, 6 * factor, 7 * factor)
    check_graph(build_replacement(upsample(upsample=kind), *shapes), shapes[0])


def test_a_graph_without_padding_computes_what_the_module_does() -> None:
    shapes = (8, 14, 12), (8, 8, 6)
    check_graph(build_replacement(convolution(padded=False), *shapes), shapes[0])
    check_graph(build_replacement(upsample(), (8, 14, 12), (3, 20, 16)), (8, 14, 12))


def check_graph(module: nn.Module, in_shape: tuple[int, ...]) -> None:
    import onnxruntime as ort

    content = export_onnx(module.eval(), (1, *in_shape))
    x = torch.randn(1, *in_shape)
    got = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), module(x), rtol=1e-4, atol=1e-5)


CANDIDATES: list[tuple[FamilySpec, Shapes]] = [
    (convolution(skip=True, activation="prelu"), ((16, 16, 16), (16, 16, 16))),
    (convolution(padded=False), ((16, 16, 16), (16, 10, 10))),
    (
        ResidualSpec(
            layer="basic",
            kernel=3,
            depth=2,
            width=1.0,
            activation="gelu",
            se=False,
            output="linear",
            norm="none",
        ),
        ((16, 16, 16), (16, 16, 16)),
    ),
    (NafSpec(kernel=3, expand=2.0, depth=2), ((16, 16, 16), (16, 16, 16))),
    (
        CspSpec(kernel=3, depth=2, width=0.5, activation="leaky_relu", output="swish"),
        ((16, 16, 16), (32, 8, 8)),
    ),
    (
        SeparableSpec(kernel=3, depth=2, width=1.0, activation="swish", output="swish"),
        ((16, 16, 16), (16, 16, 16)),
    ),
    *(
        (upsample(upsample=kind), ((16, 16, 16), (3, 32, 32)))
        for kind in ("transposed", "pixel-shuffle", "nearest")
    ),
]


@pytest.mark.parametrize(("spec", "shapes"), CANDIDATES, ids=lambda value: getattr(value, "name", ""))
def test_the_simulator_runs_every_family_with_the_macs_that_are_said(
    spec: FamilySpec, shapes: Shapes
) -> None:
    module = build_replacement(spec, *shapes).eval()
    network = Network.from_module("candidate", module, (1, *shapes[0]))
    with SimulatorDevice(DeviceProfile(name="sim-npu", device="simulator", description="x")) as device:
        handle = device.prepare(network)
        assert all(latency_ms > 0 for latency_ms in device.sample(handle, runs=1, seconds=0))
    assert handle.metrics["macs"] == replacement_cost(spec, *shapes)[0]


@pytest.mark.parametrize(("spec", "shapes"), CANDIDATES, ids=lambda value: getattr(value, "name", ""))
def test_every_family_can_be_quantised(spec: FamilySpec, shapes: Shapes) -> None:
    import onnxruntime as ort

    torch.manual_seed(0)
    module = build_replacement(spec, *shapes).eval()
    images = torch.randn(16, *shapes[0])
    network = Network.from_module("candidate", module, (1, *shapes[0])).calibrated(images.numpy())
    session = ort.InferenceSession(network.onnx("int8"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = module(images[:1]).numpy()
    got = session.run(None, {session.get_inputs()[0].name: images[:1].numpy()})[0]
    assert np.square(got - expected).mean() < 0.05 * np.square(expected).mean()


class AtOneSize(nn.Module):
    """A block for maps of one size alone."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == 16
        return x[:, :, 2:-2, 2:-2]


@pytest.mark.parametrize(
    ("block", "loses"),
    [
        (nn.Conv2d(4, 4, 3, padding=1), False),
        (nn.Conv2d(4, 4, 3, 2, padding=1), False),
        (nn.Conv2d(4, 4, 9), True),  # 16 → 8, as a stride of 2 would
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 5)), True),
        (nn.Upsample(scale_factor=2), False),
        (AtOneSize(), False),
        (nn.Flatten(), False),
    ],
)
def test_a_block_that_loses_its_border_is_known_from_a_stride(block: nn.Module, loses: bool) -> None:
    original = Original(block.eval(), (4, 16, 16), "a block")
    assert original.loses_border is loses


@pytest.mark.parametrize(
    ("end", "output"),
    [
        (nn.LeakyReLU(), "leaky_relu"),
        (nn.PReLU(), "prelu"),
        (nn.SiLU(inplace=True), "swish"),
        (nn.GELU(), "gelu"),
        (nn.ReLU6(), "relu"),
        (nn.Identity(), "linear"),
        (nn.Conv2d(4, 4, 1), "linear"),
    ],
)
def test_how_a_block_ends_is_known(end: nn.Module, output: str) -> None:
    inside = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Hardswish(), nn.Conv2d(4, 4, 1))
    assert Original(nn.Sequential(inside, end).eval(), (4, 8, 8), "a block").output == output


SAME: Shapes = ((16, 20, 20), (16, 20, 20))


@pytest.mark.parametrize(
    ("word", "activation"),
    [
        ("relu", nn.ReLU),
        ("leaky_relu", lambda: nn.LeakyReLU(0.1)),
        ("prelu", lambda: nn.PReLU(16)),
        ("prelu", nn.PReLU),
        ("swish", nn.SiLU),
    ],
)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_chain_like_its_block_is_its_block(
    word: Any, activation: Callable[[], nn.Module], norm: Any
) -> None:
    block = chain(16, 3, padding=1, activation=activation, norm=norm == "batch")
    for spec in (convolution(), convolution(kernel=5), convolution(width=1.5)):
        changed = convolution(kernel=spec.kernel, width=spec.width, activation=word, output=word, norm=norm)
        assert agree(heir(changed, block, SAME), block, SAME[0]), changed.name


def test_a_normalisation_becomes_part_of_weights_where_a_candidate_has_none() -> None:
    block = chain(16, 3, padding=1, activation=nn.ReLU, norm=True)
    assert agree(heir(convolution(), block, SAME), block, SAME[0])


def test_a_leaky_slope_of_the_block_is_learnt_by_a_prelu() -> None:
    block = chain(16, 2, padding=1, activation=lambda: nn.LeakyReLU(0.3))
    spec = convolution(depth=2, activation="prelu", output="prelu")
    assert agree(heir(spec, block, SAME), block, SAME[0])


def test_a_chain_without_padding_is_its_block_and_starts_with_its_first_layers() -> None:
    block = chain(16, 4, padding=0, activation=lambda: nn.LeakyReLU(0.1))
    shapes: Shapes = ((16, 24, 24), (16, 16, 16))
    words: dict[str, Any] = {"activation": "leaky_relu", "output": "leaky_relu", "padded": False}
    assert agree(heir(convolution(depth=4, **words), block, shapes), block, shapes[0])
    fewer: Any = heir(convolution(depth=2, kernel=5, **words), block, shapes)
    first = fewer[0].convolution.weight
    assert torch.equal(first[..., 1:4, 1:4], block[0].weight)
    assert not first[..., 0, :].any()


def test_the_channels_that_matter_most_are_taken() -> None:
    block = chain(16, 2, padding=1, activation=nn.ReLU)
    narrow: Any = heir(convolution(depth=2, width=0.5), block, SAME)
    norms = norm_of(block[0].weight, (1, 2, 3)) * norm_of(block[2].weight, (0, 2, 3))
    kept = norms.topk(8).indices.sort().values
    assert torch.equal(narrow[0].convolution.weight, block[0].weight[kept])


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_residual_layers_without_normalisation_take_after_edsrs(scale: float) -> None:
    block = nn.Sequential(*(EdsrBlock(16, scale) for _ in range(3))).eval()

    def spec(depth: int, kernel: int = 3, norm: Any = "none") -> ResidualSpec:
        return ResidualSpec(
            layer="basic",
            kernel=kernel,
            depth=depth,
            width=1.0,
            activation="relu",
            se=False,
            output="linear",
            norm=norm,
        )

    assert agree(heir(spec(3), block, SAME), block, SAME[0])
    assert agree(heir(spec(3, kernel=5), block, SAME), block, SAME[0])
    assert agree(heir(spec(2), block, SAME), block[:2], SAME[0])
    assert not agree(heir(spec(3, norm="layer"), block, SAME), block, SAME[0])
    beside = convolution(depth=2, skip=True, output="linear")
    assert agree(heir(beside, block[:1], SAME), block[:1], SAME[0])


def test_gated_layers_take_after_nafnets() -> None:
    block: Any = randomised(nn.Sequential(*(NafBlock(16) for _ in range(3))))
    assert agree(heir(NafSpec(kernel=3, expand=2.0, depth=3), block, SAME), block, SAME[0])
    assert agree(heir(NafSpec(kernel=5, expand=2.0, depth=3), block, SAME), block, SAME[0])
    assert agree(heir(NafSpec(kernel=3, expand=3.0, depth=3), block, SAME), block, SAME[0])
    assert agree(heir(NafSpec(kernel=3, expand=2.0, depth=2), block, SAME), block[:2], SAME[0])
    narrow = heir(NafSpec(kernel=3, expand=1.0, depth=3), block, SAME)
    for layer in block:  # the gates that lead on to the least are left out
        for project, before in ((layer.conv3, layer.sca), (layer.conv5, None)):
            least = norm_of(project.weight, (0, 2, 3)).argsort()[:8]
            with torch.no_grad():
                project.weight[:, least] = 0
                if before is not None:
                    before[1].weight[:, least] = 0
    assert agree(narrow, block, SAME[0])


@pytest.mark.parametrize("stride", [False, True])
def test_csp_takes_after_c3(stride: bool) -> None:
    shapes: Shapes = ((16, 20, 20), (32, 10, 10)) if stride else ((16, 20, 20), (32, 20, 20))
    block: Any = randomised(C3(16, 32, 2, halving=stride))

    def spec(depth: int = 2, width: float = 0.5) -> CspSpec:
        return CspSpec(kernel=3, depth=depth, width=width, activation="swish", output="swish")

    assert agree(heir(spec(), block, shapes), block, shapes[0])
    assert not agree(heir(spec(depth=1), block, shapes), block, shapes[0])
    fewer: Any = heir(spec(depth=1, width=0.25), block, shapes)
    through = block.cv1[0].weight
    assert all(
        any(torch.equal(row, other) for other in through) for row in fewer[-1].through.convolution.weight
    )


def test_separable_layers_take_after_a_tower() -> None:
    block: Any = randomised(SeparableTower(16, 3))

    def spec(depth: int = 3, kernel: int = 3, width: float = 1.0) -> SeparableSpec:
        return SeparableSpec(kernel=kernel, depth=depth, width=width, activation="swish", output="swish")

    assert agree(heir(spec(), block, SAME), block, SAME[0])
    assert agree(heir(spec(kernel=5), block, SAME), block, SAME[0])
    fewer: Any = heir(spec(depth=2), block, SAME)
    assert agree(fewer[:1], block.layers[:4], SAME[0])
    narrow: Any = heir(spec(width=0.5), block, SAME)
    rows = block.layers[1].weight
    assert all(any(torch.equal(row, other) for other in rows) for row in narrow[0].pointwise.weight)


@pytest.mark.parametrize("kind", ["transposed", "pixel-shuffle"])
def test_ends_take_after_waifu2xs_and_espcns(kind: Any) -> None:
    first: Any = nn.Sequential(nn.Conv2d(16, 16, 3), nn.LeakyReLU(0.1))
    end: nn.Module = nn.ConvTranspose2d(16, 3, 4, 2, padding=3)
    if kind == "pixel-shuffle":
        end = nn.Sequential(nn.Conv2d(16, 12, 3), nn.PixelShuffle(2))
    block: Any = nn.Sequential(*first, *(end if isinstance(end, nn.Sequential) else [end])).eval()
    shapes: Shapes = ((16, 20, 20), (3, 32, 32))
    assert agree(heir(upsample(upsample=kind), block, shapes), block, shapes[0])
    narrow: Any = heir(upsample(upsample=kind, width=0.5), block, shapes)
    rows = block[0].weight
    assert all(any(torch.equal(row, other) for other in rows) for row in narrow[0].convolution.weight)


def test_what_a_block_does_otherwise_leaves_a_candidate_as_it_was() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(x).tanh() * self.b(x)
            return y

    others = [
        nn.Identity(),
        Crossed(),
        nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.MaxPool2d(3, 1, 1)),
        AtOneSize(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, groups=4),
    ]
    for (spec, shapes), block in itertools.product(CANDIDATES, others):
        fresh, after = heir(spec, nn.Identity(), shapes), heir(spec, block, shapes)
        if not isinstance(block, nn.Conv2d) or block.groups > 1:
            assert agree(fresh, after, shapes[0]), (spec.name, type(block))


def test_a_block_without_a_single_family_is_told_with_the_reasons(tmp_path: Any) -> None:
    text = """
name = "two"
description = "two families of which none fits"
smaller = false
[separable]
kernel = [3]
depth = [1]
width = [1.0]
activation = ["reference"]
[upsample]
upsample = ["transposed"]
kernel = [3]
depth = [1]
width = [1.0]
activation = ["relu"]
"""
    (tmp_path / "two.toml").write_text(text)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten())
    with pytest.raises(InputError) as error:
        find_candidates(partition(model, (3, 12, 12)), load_space(str(tmp_path / "two.toml")))
    assert "separable: block 1 has no activation" in error.value.cause
    assert "upsample: candidate upsample-transposed-k3-d1-relu-linear-w1 cannot turn" in error.value.cause


def restoring() -> nn.Module:
    """A chain as DnCNN's, layers as EDSR's, layers as NAFNet's, and an end that enlarges the map."""
    body = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())))
    residual = nn.Sequential(*(EdsrBlock(16, 1.0) for _ in range(4)))
    gated = nn.Sequential(*(NafBlock(16) for _ in range(2)))
    end = nn.Sequential(nn.Conv2d(16, 64, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(16, 8, 3, padding=1))
    last = nn.Conv2d(8, 3, 1)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), body, residual, gated, end, last).eval()


def test_the_space_for_restoration_has_candidates_for_every_block_and_tells_what_it_drops() -> None:
    parts = partition(restoring(), (3, 16, 16), ["0", "1", "2", "3", "4"])
    space = load_space("restoration")
    candidates = find_candidates(parts, space)
    families = {block: {c.spec.family for c in candidates if c.part == block} for block in range(1, 5)}
    keeping = {"convolution", "residual", "naf"}
    assert families == {1: keeping, 2: keeping, 3: families[3], 4: {"upsample"}}
    assert "naf" in families[3]
    dropped = dropped_families(parts, space)
    assert set(dropped[4]) == keeping
    assert "whole factor" in dropped[1]["upsample"]
    for candidate in candidates:
        if not 0 < candidate.part <= parts.block_count:
            continue
        in_shape = parts.part_shapes(candidate.part)[0]
        macs, params = count(parts.modules[candidate.part], in_shape)
        assert candidate.macs < macs
        assert candidate.params < params


@pytest.mark.parametrize("name", ["convolution", "naf", "csp", "separable", "upsample", "restoration"])
def test_every_space_is_read_and_fits_a_block_of_its_kind(name: str) -> None:
    blocks: dict[str, nn.Module] = {
        "convolution": chain(16, 3, padding=0, activation=nn.PReLU),
        "naf": nn.Sequential(*(NafBlock(16) for _ in range(2))),
        "csp": C3(16, 16, 2),
        "separable": SeparableTower(16, 3),
        "upsample": nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 16, 4, 2, 3)),
        "restoration": nn.Sequential(*(EdsrBlock(16, 1.0) for _ in range(2))),
    }
    model = nn.Sequential(nn.Conv2d(3, 16, 3), blocks[name], nn.Conv2d(16, 3, 1)).eval()
    parts = partition(model, (3, 20, 20), ["0", "1"])
    candidates = [c for c in find_candidates(parts, load_space(name)) if c.part == 1]
    assert len(candidates) > 1
    assert len({c.name for c in candidates}) == len(candidates)


def smooth(images: int, channels: int, side: int, seed: int) -> Tensor:
    """Random maps without fine detail, of variance about one. (images, channels, side, side)"""
    noise = torch.randn(images, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, (side, side), mode="bicubic")


def kinds() -> dict[str, tuple[nn.Module, FamilySpec]]:
    """A block of each kind of reference, and a candidate that is smaller."""
    torch.manual_seed(0)
    return {
        "EDSR's body": (
            nn.Sequential(*(EdsrBlock(16, 0.5) for _ in range(3))),
            ResidualSpec(
                layer="basic",
                kernel=3,
                depth=2,
                width=1.0,
                activation="relu",
                se=False,
                output="linear",
                norm="none",
            ),
        ),
        "DnCNN's body": (chain(16, 3, padding=1, activation=nn.ReLU), convolution(depth=2)),
        "waifu2x's body": (
            chain(16, 3, padding=0, activation=lambda: nn.LeakyReLU(0.1)),
            convolution(kernel=5, depth=2, padded=False, activation="leaky_relu", output="leaky_relu"),
        ),
        "NAFNet's layers": (
            randomised(nn.Sequential(*(NafBlock(16) for _ in range(3)))),
            NafSpec(kernel=3, expand=1.0, depth=3),
        ),
        "C3": (
            randomised(C3(16, 16, 2)),
            CspSpec(kernel=3, depth=1, width=0.5, activation="swish", output="swish"),
        ),
        "EfficientDet's tower": (
            randomised(SeparableTower(16, 3)),
            SeparableSpec(kernel=3, depth=2, width=1.0, activation="swish", output="swish"),
        ),
        "waifu2x's end": (
            nn.Sequential(nn.Conv2d(16, 32, 3), nn.LeakyReLU(0.1), nn.ConvTranspose2d(32, 3, 4, 2, 3)),
            upsample(width=0.5, kernel=3),
        ),
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_two_epochs_of_distillation_teach_a_candidate_and_inherited_weights_help(kind: str) -> None:
    block, spec = kinds()[kind]
    train, val = smooth(96, 16, 24, seed=0), smooth(32, 16, 24, seed=1)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    statistics = StatisticsAccumulator()
    with torch.no_grad():
        block.train()(train)
        target, wanted = block.eval()(train), block(val)
    statistics.add(target)
    mean, variance = statistics.result().mean, statistics.result().variance

    def nsr(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = ((module(x) - y).square() / variance[:, None, None]).mean()
        return loss

    def distilled(inherits: bool) -> tuple[float, float]:
        torch.manual_seed(0)
        module = build_replacement(spec, tuple(train.shape[1:]), tuple(target.shape[1:]))
        start_replacement(module, spec, block if inherits else nn.Identity(), mean, variance)
        optimizer = torch.optim.AdamW(module.parameters(), learning_rate(spec), weight_decay=0.0)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: learning_rate_factor(n, 24))
        with torch.no_grad():
            before = float(nsr(module.eval(), val, wanted))
        for _ in range(2):
            for x, y in zip(torch.split(train, 8), torch.split(target, 8), strict=True):
                optimizer.zero_grad()
                nsr(module.train(), x, y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
        with torch.no_grad():
            return before, float(nsr(module.eval(), val, wanted))

    fresh, inherited = distilled(False), distilled(True)
    assert inherited[1] < 0.8 * inherited[0]
    assert fresh[1] < fresh[0]
    assert inherited[1] < fresh[1]
