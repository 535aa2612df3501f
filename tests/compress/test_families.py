"""Families of candidates: each fits where its shapes fit, costs what it says, starts at the right scale."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import get_args

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.space import load_space
from hwnas.compress.report.drawing import Box, draw
from hwnas.errors import InputError
from hwnas.files import decode, encode
from hwnas.network import export_onnx
from hwnas.networks.architecture import ArchitectureSpec, ReferenceSpec
from hwnas.networks.blocks.convnext import ConvNextSpec
from hwnas.networks.blocks.convolution import ConvolutionSpec
from hwnas.networks.blocks.csp import CspSpec
from hwnas.networks.blocks.families import FAMILIES, build_replacement, replacement_cost, start_replacement
from hwnas.networks.blocks.family import FamilySpec
from hwnas.networks.blocks.inverted_bottleneck import InvertedBottleneckSpec
from hwnas.networks.blocks.layers import Activation, Output
from hwnas.networks.blocks.naf import NafSpec
from hwnas.networks.blocks.residual import ResidualSpec, ResidualTable
from hwnas.networks.blocks.separable import SeparableSpec
from hwnas.networks.blocks.transformer import TransformerSpec
from hwnas.networks.blocks.upsample import UpsampleSpec
from hwnas.networks.build import build_part
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.count import count
from hwnas.networks.partition import partition
from hwnas.onnx_file import operators_of

INVERTED = InvertedBottleneckSpec(
    kernel=3, expand=2, depth=2, activation="relu", se=False, layer="depthwise", width=0.5
)
RESIDUAL = ResidualSpec(
    layer="basic", kernel=3, depth=2, width=0.5, activation="relu", se=False, output="linear"
)
CONVNEXT = ConvNextSpec(kernel=5, expand=2, depth=2, width=0.5, activation="gelu")
TRANSFORMER = TransformerSpec(depth=2, heads=2, head_channels=8, mlp=1.5, activation="gelu")
CONVOLUTION = ConvolutionSpec(
    kernel=3, depth=2, width=0.5, activation="relu", norm="batch", skip=False, padded=True, output="linear"
)
NAF = NafSpec(kernel=3, expand=1.5, depth=2)
CSP = CspSpec(kernel=3, depth=2, width=0.5, activation="leaky_relu", output="linear")
SEPARABLE = SeparableSpec(kernel=5, depth=2, width=0.5, activation="swish", output="linear")
UPSAMPLE = UpsampleSpec(
    upsample="transposed", kernel=3, depth=2, width=0.5, activation="relu", output="linear"
)
KEEPING: tuple[FamilySpec, ...] = (
    INVERTED,
    RESIDUAL,
    CONVNEXT,
    TRANSFORMER,
    CONVOLUTION,
    NAF,
    CSP,
    SEPARABLE,
)
"""Those that keep a map or halve it."""
ALL: tuple[FamilySpec, ...] = (*KEEPING, UPSAMPLE)

Shapes = tuple[tuple[int, ...], tuple[int, ...]]
MAPS: list[Shapes] = [
    ((16, 8, 8), (24, 4, 4)),
    ((16, 7, 5), (16, 7, 5)),
    ((16, 7, 9), (32, 4, 5)),
    ((8, 16, 16), (8, 4, 4)),
]
TOKENS: list[Shapes] = [((16, 24), (16, 24)), ((17, 24), (17, 24)), ((10, 24), (10, 32))]

words = st.sampled_from(get_args(Activation))
residuals = st.builds(
    ResidualSpec,
    layer=st.sampled_from(["basic", "bottleneck"]),
    kernel=st.sampled_from([1, 3, 5]),
    depth=st.integers(2, 3),
    width=st.sampled_from([0.25, 0.5, 1.0, 1.5]),
    activation=words,
    se=st.booleans(),
    output=st.sampled_from(["relu", "linear"]),
    norm=st.sampled_from(["none", "batch", "layer"]),
)
inverted = st.builds(
    InvertedBottleneckSpec,
    kernel=st.sampled_from([1, 3, 5]),
    expand=st.integers(1, 3),
    depth=st.integers(2, 3),
    activation=words,
    se=st.booleans(),
    layer=st.sampled_from(["depthwise", "grouped", "shift"]),
    width=st.sampled_from([0.5, 1.0, 1.5]),
)
convnexts = st.builds(
    ConvNextSpec,
    kernel=st.sampled_from([3, 5, 7]),
    expand=st.integers(1, 4),
    depth=st.integers(2, 3),
    width=st.sampled_from([0.5, 1.0, 1.5]),
    activation=words,
)
transformers = st.builds(
    TransformerSpec,
    depth=st.integers(2, 3),
    heads=st.integers(1, 4),
    head_channels=st.sampled_from([8, 12]),
    mlp=st.sampled_from([0.5, 1.3, 4.0]),
    activation=words,
)


outputs = st.sampled_from(get_args(Output))
convolutions = st.builds(
    ConvolutionSpec,
    kernel=st.sampled_from([1, 3, 5]),
    depth=st.integers(2, 3),
    width=st.sampled_from([0.5, 1.0, 1.5]),
    activation=words,
    norm=st.sampled_from(["none", "batch"]),
    skip=st.booleans(),
    padded=st.just(True),
    output=outputs,
)
nafs = st.builds(
    NafSpec,
    kernel=st.sampled_from([1, 3, 5]),
    expand=st.sampled_from([0.125, 0.5, 1.3, 2.0, 3.0]),
    depth=st.integers(2, 3),
)
csps = st.builds(
    CspSpec,
    kernel=st.sampled_from([1, 3, 5]),
    depth=st.integers(2, 3),
    width=st.sampled_from([0.25, 0.5, 1.0]),
    activation=words,
    output=outputs,
)
separables = st.builds(
    SeparableSpec,
    kernel=st.sampled_from([1, 3, 5]),
    depth=st.integers(2, 3),
    width=st.sampled_from([0.5, 1.0, 1.5]),
    activation=words,
    output=outputs,
)
of_older = st.one_of(inverted, residuals, convnexts, transformers)
of_any = st.one_of(of_older, convolutions, nafs, csps, separables)


def test_every_family_is_tested() -> None:
    assert {spec.family for spec in ALL} == set(FAMILIES.names())


@given(of_any, st.sampled_from(MAPS + TOKENS))
def test_costs_in_closed_form_are_those_of_the_module(spec: FamilySpec, shapes: Shapes) -> None:
    if isinstance(spec, ConvolutionSpec) and spec.skip and shapes[0] != shapes[1]:
        for refused in (build_replacement, replacement_cost):
            with pytest.raises(InputError, match="adds its input"):
                refused(spec, *shapes)
        return
    module = build_replacement(spec, *shapes)
    assert replacement_cost(spec, *shapes) == count(module, shapes[0])
    with torch.no_grad():
        assert module.eval()(torch.randn(3, *shapes[0])).shape == (3, *shapes[1])


@pytest.mark.parametrize(
    ("spec", "shapes"),
    list(itertools.product(KEEPING, MAPS + TOKENS)),
    ids=lambda value: getattr(value, "family", None),
)
def test_a_graph_computes_what_the_module_does_and_no_shapes(spec: FamilySpec, shapes: Shapes) -> None:
    import onnxruntime as ort

    module = build_replacement(spec, *shapes).eval()
    content = export_onnx(module, (1, *shapes[0]))
    assert not {"Shape", "Gather", "Where", "Expand", "Mod"} & set(operators_of(content))
    x = torch.randn(1, *shapes[0])
    got = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", KEEPING, ids=lambda spec: spec.family)
@pytest.mark.parametrize("shapes", [((16, 8, 8), (24, 4, 4)), ((17, 24), (17, 32))], ids=["map", "tokens"])
def test_a_fresh_candidate_has_the_teachers_scale(spec: FamilySpec, shapes: Shapes) -> None:
    module = build_replacement(spec, *shapes)
    channels = shapes[1][0] if len(shapes[1]) == 3 else shapes[1][1]
    mean, variance = torch.linspace(-40, 40, channels), torch.linspace(1e-4, 25, channels)
    start_replacement(module, spec, nn.Identity(), mean, variance)
    y = module.train()(torch.randn(64, *shapes[0])).detach()
    if len(shapes[1]) == 2:
        y = y[:, 1:]  # the class token has no normalisation behind it
    rows = y.movedim(1 if y.ndim == 4 else 2, -1).reshape(-1, channels)
    torch.testing.assert_close(rows.mean(0), mean, rtol=0.1, atol=3.0)
    ratio = rows.var(0) / variance
    assert bool(((ratio > 0.3) & (ratio < 3)).all())


def test_a_normalisation_as_before_is_not_written_so_that_stored_runs_stay_the_same() -> None:
    stored = {
        "family": "residual",
        "layer": "basic",
        "kernel": 3,
        "depth": 2,
        "width": 0.5,
        "activation": "relu",
        "se": False,
        "output": "linear",
    }
    assert encode(RESIDUAL) == stored
    assert decode(ResidualSpec, stored, "a file") == RESIDUAL
    table = load_space("residual").tables["residual"]
    assert set(encode(table)) == {"layer", "kernel", "depth", "width", "activation", "se"}
    for norm in ("none", "layer"):
        changed = dataclasses.replace(RESIDUAL, norm=norm)
        assert decode(ResidualSpec, encode(changed), "a file") == changed
        assert changed.name != RESIDUAL.name
        tables = dataclasses.replace(table, norm=("batch", norm))
        assert decode(ResidualTable, encode(tables), "a file") == tables


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.family)
def test_shapes_that_do_not_fit_are_told(spec: FamilySpec) -> None:
    with pytest.raises(InputError, match=r"cannot turn a map of \(32, 32\) into \(4, 4\)"):
        build_replacement(spec, (8, 32, 32), (8, 4, 4))
    with pytest.raises(InputError) as error:
        build_replacement(spec, (17, 8), (5, 8))
    assert spec.name in error.value.cause
    assert error.value.fix


@pytest.mark.parametrize("spec", [s for s in ALL if s is not TRANSFORMER], ids=lambda spec: spec.family)
def test_tokens_of_no_square_are_for_transformers(spec: FamilySpec) -> None:
    with pytest.raises(InputError) as error:
        replacement_cost(spec, (24, 8), (24, 8))
    assert "--space transformer" in error.value.fix
    assert replacement_cost(TRANSFORMER, (24, 8), (24, 8))


@pytest.mark.parametrize(
    ("kind", "changed", "names"),
    [
        (TransformerSpec, {"heads": 0}, "heads"),
        (TransformerSpec, {"head_channels": 2}, "head_channels"),
        (TransformerSpec, {"mlp": 0.0}, "mlp"),
        (TransformerSpec, {"depth": 0}, "depth"),
        (ConvNextSpec, {"kernel": 4}, "kernel"),
        (ConvNextSpec, {"expand": 17}, "expand"),
        (ResidualSpec, {"width": 0.0}, "width"),
        (ConvolutionSpec, {"kernel": 2}, "kernel"),
        (ConvolutionSpec, {"padded": False, "skip": True}, "skip"),
        (NafSpec, {"expand": 0.1}, "expand"),
        (NafSpec, {"kernel": 33}, "kernel"),
        (CspSpec, {"depth": 0}, "depth"),
        (SeparableSpec, {"width": 5.0}, "width"),
        (UpsampleSpec, {"kernel": 4}, "kernel"),
    ],
)
def test_what_no_network_has_is_refused(kind: type, changed: dict[str, float], names: str) -> None:
    good = {type(spec): spec for spec in ALL}[kind]
    with pytest.raises(ValueError, match=f"^{names} is"):
        kind(**(vars(good) | changed))


def test_a_residual_candidate_ends_as_its_block_does() -> None:
    resnet = partition(timm.create_model("resnet10t", num_classes=4).eval(), (3, 64, 64))
    linear = partition(timm.create_model("mobilenetv2_035", num_classes=4).eval(), (3, 64, 64))
    space = load_space("residual")
    for parts, output in ((resnet, "relu"), (linear, "linear")):
        specs = [c.spec for c in find_candidates(parts, space, 3) if c.spec.family == "residual"]
        assert specs
        for spec in specs:
            assert isinstance(spec, ResidualSpec)
            assert spec.output == output


def test_every_family_stands_in_every_stage_of_a_network_and_of_a_transformer() -> None:
    models: list[tuple[nn.Module, list[str]]] = [
        (timm.create_model("resnet10t", num_classes=4), ["maxpool", "layer1", "layer2", "layer3", "layer4"]),
        (
            timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=64),
            ["norm_pre", "blocks.3", "blocks.11"],
        ),
    ]
    for model, cuts in models:
        parts = partition(model.eval(), (3, 64, 64), Blocks(cuts=tuple(cuts)))
        candidates = [
            c for c in find_candidates(parts, load_space("mixed"), 18) if c.spec.family != "variant"
        ]
        for block in range(1, parts.block_count + 1):
            assert {c.spec.family for c in candidates if c.part == block} == {
                "inverted-bottleneck",
                "residual",
                "convnext",
                "transformer",
            }
        x = torch.randn(2, 3, 64, 64)
        one = {c.part: c for c in candidates[:: max(1, len(candidates) // 9)]}
        modules = [build_part(parts, n, one[n].spec if n in one else None) for n in range(len(parts.modules))]
        with torch.no_grad():
            assert nn.Sequential(*modules).eval()(x).shape == (2, 4)


def test_architectures_keep_their_families(tmp_path: Path) -> None:
    path = tmp_path / "architecture.json"
    spec = ArchitectureSpec(
        reference=ReferenceSpec(source="timm", name="resnet18", classes=4),
        regions=((("a", "b"),),),
        input_shape=(3, 8, 8),
        parts=(None, *ALL, None),
        mean=(0.5,),
        std=(0.5,),
    )
    spec.save(path)
    assert ArchitectureSpec.read(path) == spec


def test_every_family_is_drawn_with_a_bar_a_layer() -> None:
    boxes = [Box(spec=spec, macs=1000) for spec in (None, *ALL)]
    svg = draw(["stem", *(f"block{n}" for n in range(1, len(boxes)))], [("network", boxes)])
    bars = [rect for rect in svg.iter("rect") if "rx" in rect.attrib]
    assert len(bars) == 1 + sum(spec.depth for spec in ALL)
    texts = {text.text for text in svg.iter("text")}
    assert {spec.name for spec in ALL} <= texts
