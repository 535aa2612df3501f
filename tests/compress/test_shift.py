"""Learned shifts in the place of depthwise convolutions (ShiftNet)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shortest_run import LIBRARY, SEARCH
from tiny import make_spec, run_job
from torch import Tensor, nn
from torch.nn import functional

import hwnas
from hwnas.compress.extend import extend
from hwnas.compress.library.space import load_space
from hwnas.network import export_onnx
from hwnas.networks.blocks.bottleneck import SHIFT_CHANNELS, Shift
from hwnas.networks.blocks.inverted_bottleneck import build_candidate
from hwnas.progress import Progress


def moved(shift: Shift, x: Tensor) -> Tensor:
    """By hand: pad, cut out at the offset of each group, take every stride-th pixel."""
    pad = shift.kernel // 2
    wide = functional.pad(x, [pad] * 4)
    rows, columns = x.shape[2:]
    pieces = []
    for group, place in enumerate(shift.logits.argmax(1).tolist()):
        top, left = divmod(place, shift.kernel)
        of_group = wide[:, SHIFT_CHANNELS * group : SHIFT_CHANNELS * (group + 1)]
        pieces.append(of_group[:, :, top : top + rows, left : left + columns])
    return torch.cat(pieces, 1)[:, :, :: shift.stride, :: shift.stride]


@given(
    channels=st.integers(1, 100),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    seed=st.integers(0, 1000),
)
def test_a_shift_moves_each_group_and_changes_no_value(
    channels: int, kernel: int, stride: int, seed: int
) -> None:
    torch.manual_seed(seed)
    shift = Shift(channels, kernel, stride)
    x = torch.randn(2, channels, 9, 7)
    with torch.no_grad():
        assert torch.equal(shift.eval()(x), moved(shift, x))
        assert torch.allclose(shift.train()(x), moved(shift, x), atol=1e-6)


def test_the_offset_is_learned_and_both_modes_agree() -> None:
    """The target is the map moved by one pixel; after training each group has found where to."""
    torch.manual_seed(0)
    x = torch.randn(16, 64, 8, 8)
    wanted = torch.cat([x[:, :32].roll(1, 2), x[:, 32:].roll(-1, 3)], 1)
    shift = Shift(64, 3, 1).train()
    optimizer = torch.optim.AdamW(shift.parameters(), lr=0.1, weight_decay=0.0)
    inner = slice(1, -1)
    for _ in range(60):
        loss = (shift(x) - wanted)[:, :, inner, inner].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = shift.eval()(x)[:, :, inner, inner]
    assert torch.equal(found, wanted[:, :, inner, inner])
    again = Shift(64, 3, 1).eval()
    again.load_state_dict(shift.state_dict())
    assert torch.equal(again(x), shift(x))


def test_it_begins_where_the_trained_kernels_have_their_weight() -> None:
    kernels = 0.1 * torch.rand(40, 1, 3, 3)
    kernels[:32, 0, 2, 1] += 1
    kernels[32:, 0, 1, 1] += 1
    shift = Shift(64, 5, 1)
    before = shift.logits.detach().clone()
    shift.take(kernels)
    assert shift.logits.argmax(1).tolist() == [3 * 5 + 2, 2 * 5 + 2]
    assert not torch.equal(shift.logits, before)
    assert shift.weight[:32, 0, 3, 2].eq(1).all()


def test_an_offset_outside_of_the_source_s_window_can_be_learned() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 32, 9, 9)
    wanted = x.roll((2, 2), (2, 3))
    shift = Shift(32, 5, 1)
    shift.take(torch.rand(32, 1, 3, 3))
    optimizer = torch.optim.AdamW(shift.train().parameters(), lr=0.04, weight_decay=0.0)
    for _ in range(400):
        loss = (shift(x) - wanted)[:, :, 2:-2, 2:-2].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert shift.logits.argmax(1).tolist() == [0]


def test_the_graph_is_a_plain_depthwise_convolution() -> None:
    torch.manual_seed(0)
    spec = make_spec(layer="shift", kernel=3, depth=2, expand=4)
    module = build_candidate(spec, (24, 8, 8), (24, 8, 8)).eval()
    content = export_onnx(module, (1, 24, 8, 8))
    x = torch.randn(1, 24, 8, 8)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), module(x), atol=1e-5)
    assert b"ArgMax" not in content and b"OneHot" not in content
    assert spec.name == "k3-e4-d2-relu-shift-w1"
    assert sum(isinstance(layer, Shift) for layer in module.modules()) == 2
    assert not any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in module.modules())


@pytest.mark.slow
def test_a_run_is_extended_by_shifts(workplace: Path) -> None:
    """The same library, its predictor fitted without them; a network of shifts loads and answers the same."""
    library = replace(LIBRARY, model="tinynet:make", data="digits", space="compression", per_block=2)
    search = replace(SEARCH, quality="predictor", predictor_networks=4, predictor_epochs=1, picks=("knee",))
    out = workplace / "run"
    run_job(library, search, out, "hwnas compress …", Progress(), allow_code=True)
    added = extend(out, "shift", 2, Progress(), allow_code=True)
    assert (added.added, added.done) == (4, 4)
    predictor, rows = hwnas.open_run(out).predict("0-3-3-0", "0-4-4-0")
    assert predictor.networks >= 4
    assert all(math.isfinite(row.predicted_accuracy) for row in rows)
    space = load_space("shift")
    assert {values["layer"] for values in space.tables["inverted-bottleneck"].combinations()} == {"shift"}
    scale = replace(search, quality="loss", picks=("speedup=1.001",), filter="none", generations=6)
    result = run_job(library, scale, out, "hwnas compress …", Progress(), allow_code=True)
    (checkpoint,) = result["checkpoints"]
    module = hwnas.load(checkpoint["path"], allow_code=True)
    session = ort.InferenceSession(
        Path(checkpoint["path"]) / "model.onnx", providers=["CPUExecutionProvider"]
    )
    x = torch.rand(1, 3, 32, 32)
    (found,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), module(x), atol=1e-4)
