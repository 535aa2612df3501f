"""Families for networks that restore, enlarge or detect: what maps they take, and what runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from family_candidates import (
    CANDIDATES,
    AtOneSize,
    Shapes,
    chain,
    convolution,
    upsample,
)
from hypothesis import given
from hypothesis import strategies as st
from reference_blocks import C3, EdsrBlock, NafBlock, SeparableTower
from torch import nn

from hwnas.compress.library.candidates import dropped_families, find_candidates
from hwnas.compress.library.space import load_space
from hwnas.devices.simulator.device import SimulatorDevice
from hwnas.errors import InputError
from hwnas.measurement import DeviceProfile
from hwnas.network import Network, export_onnx
from hwnas.networks.blocks.families import (
    build_replacement,
    replacement_cost,
)
from hwnas.networks.blocks.family import FamilySpec, Original
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.count import count
from hwnas.networks.partition import partition


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
    for module in (*inside.modules(), end):
        if isinstance(module, nn.Conv2d):  # by chance all of its outputs could be positive
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    assert Original(nn.Sequential(inside, end).eval(), (4, 8, 8), "a block").output == output


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
    parts = partition(restoring(), (3, 16, 16), Blocks(cuts=("0", "1", "2", "3", "4")))
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
    parts = partition(model, (3, 20, 20), Blocks(cuts=("0", "1")))
    candidates = [c for c in find_candidates(parts, load_space(name)) if c.part == 1]
    assert len(candidates) > 1
    assert len({c.name for c in candidates}) == len(candidates)
