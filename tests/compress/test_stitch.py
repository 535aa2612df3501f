from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.library.store import Library
from hwnas.network import Network, export_onnx
from hwnas.networks.count import count
from hwnas.networks.exported import network_of
from hwnas.networks.partition import Partition


@pytest.fixture
def stitcher(parts: Partition, library: Library, tmp_path: Path) -> Stitcher:
    return Stitcher(parts, library)


def architectures(stitcher: Stitcher) -> list[tuple[int, ...]]:
    return list(itertools.product(*stitcher.choices))


def run(network: Network, x: torch.Tensor) -> np.ndarray:
    session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def test_the_choices_are_the_reference_and_what_is_done(stitcher: Stitcher) -> None:
    assert stitcher.choices == [[0], [0, 1, 3], [0, 1, 2, 3], [0]]


def test_stitched_graphs_compute_what_the_modules_do(stitcher: Stitcher) -> None:
    chosen = random.Random(0).sample(architectures(stitcher), 8)
    outputs = []
    for choices in chosen:
        x = torch.randn(1, 3, 32, 32)
        network = stitcher.network(choices)
        onnx.checker.check_model(onnx.load_model_from_string(network.onnx()), full_check=True)
        with torch.no_grad():
            expected = stitcher.module(choices)(x).numpy()
        np.testing.assert_allclose(run(network, x), expected, atol=1e-4, rtol=0)
        assert not np.allclose(run(network, 2 * x), expected, atol=1e-4)
        outputs.append(expected)
    assert len({output.tobytes() for output in outputs}) == len(chosen)


def test_the_reference_is_the_whole_model(stitcher: Stitcher, model: nn.Module) -> None:
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(stitcher.module((0, 0, 0, 0))(x), expected)
        torch.testing.assert_close(stitcher.reference.module()(x), expected)
    np.testing.assert_allclose(run(stitcher.reference, x), expected, atol=1e-5)
    assert stitcher.reference.hash == stitcher.network((0, 0, 0, 0)).hash


def test_a_chosen_block_has_the_weights_of_the_library(stitcher: Stitcher, library: Library) -> None:
    from safetensors.torch import load_file

    entry = stitcher.entries[2, 3]
    state = load_file(library.blocks / f"{entry.candidate.name}.safetensors")
    block = stitcher.module((0, 0, 3, 0)).get_submodule("block2")
    assert block.state_dict().keys() == state.keys()
    assert all(torch.equal(block.state_dict()[key], value) for key, value in state.items())


def test_a_module_is_a_copy(stitcher: Stitcher) -> None:
    first = stitcher.module((0, 0, 1, 0))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert any(parameter.abs().sum() > 0 for parameter in stitcher.module((0, 0, 1, 0)).parameters())
    assert any(parameter.abs().sum() > 0 for parameter in stitcher.parts.modules[0].parameters())


def test_the_hash_changes_with_any_choice_and_only_then(
    stitcher: Stitcher, parts: Partition, library: Library, tmp_path: Path
) -> None:
    hashes = {choices: stitcher.network(choices).hash for choices in architectures(stitcher)}
    assert len(set(hashes.values())) == len(hashes) == 12
    again = Stitcher(parts, library)
    assert {choices: again.network(choices).hash for choices in hashes} == hashes


@pytest.mark.parametrize("metric", ["nsr", "mse", "relative_l1"])
def test_the_loss_is_the_sum_over_the_blocks(stitcher: Stitcher, library: Library, metric: str) -> None:
    known = {
        (e.candidate.part, e.candidate.choice): getattr(e.metrics, metric)
        for e in library.entries()
        if e.metrics is not None
    }
    assert len(known) == 5
    for choices in architectures(stitcher):
        _, first, second, _ = choices
        expected = known.get((1, first), 0.0) + known.get((2, second), 0.0)
        assert stitcher.loss(choices, metric) == pytest.approx(expected)
    assert stitcher.loss((0,) * 4, metric) == 0


def test_the_cost_is_that_of_the_whole_module(stitcher: Stitcher) -> None:
    for choices in architectures(stitcher):
        assert stitcher.cost(choices) == count(stitcher.module(choices), (3, 32, 32))


def test_every_part_is_exported_once(
    parts: Partition, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: Counter[int] = Counter()

    def counting(module: nn.Module, *shapes: Sequence[int], name: str) -> bytes:
        exported[id(module)] += 1
        return export_onnx(module, *shapes, name=name)

    monkeypatch.setattr("hwnas.networks.exported.export_onnx", counting)
    stitcher = Stitcher(parts, library)
    for _ in range(2):
        for choices in architectures(stitcher):
            stitcher.network(choices).onnx()
        assert exported == Counter(id(module) for module in parts.modules)


def test_a_trained_network_has_its_own_graph(stitcher: Stitcher, parts: Partition) -> None:
    module = stitcher.module((0, 1, 2, 0))
    before = network_of(module, parts, "finished").hash
    with torch.no_grad():
        module.get_parameter("block2.0.expand.0.weight").mul_(1.5)
    network = network_of(module, parts, "finished")
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        np.testing.assert_allclose(run(network, x), module(x), atol=1e-4)
    assert before == stitcher.network((0, 1, 2, 0)).hash != network.hash


def test_a_trained_network_can_be_int8(parts: Partition, library: Library) -> None:
    images = torch.randn(4, 3, 32, 32).numpy()
    stitcher = Stitcher(parts, library, images)
    finished = network_of(stitcher.module((0, 1, 0, 0)), parts, "finished", stitcher.calibration)
    for network in (stitcher.network((0, 1, 0, 0)), finished):
        session = ort.InferenceSession(network.onnx("int8"), providers=["CPUExecutionProvider"])
        assert session.run(None, {session.get_inputs()[0].name: images[:1]})[0].shape == (1, 10)
