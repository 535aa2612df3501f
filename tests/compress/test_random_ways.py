"""Random small networks go all the way that hwnas takes them, and stay the same function."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from features import features_of
from hypothesis import HealthCheck, given, settings
from random_networks import Recipe, build, recipe, recipes
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hwnas.agreement import disagreement
from hwnas.errors import NetworkFormError
from hwnas.network import plain_attention, random_input
from hwnas.networks.build import assemble
from hwnas.networks.count import count_parts
from hwnas.networks.exported import own_network
from hwnas.networks.partition import Partition, counted_again, partition
from hwnas.networks.serialize import save_module
from hwnas.networks.weights import load_weights


def answers(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [module(image[None].clone()) for image in x]


def graph_answers(content: bytes, x: torch.Tensor) -> list[torch.Tensor]:
    session = ort.InferenceSession(content)
    name = session.get_inputs()[0].name
    return [torch.from_numpy(np.array(session.run(None, {name: image[None].numpy()})[0])) for image in x]


def flops(module: nn.Module, x: torch.Tensor) -> int:
    counter = FlopCounterMode(display=False)
    with counter, plain_attention(), torch.no_grad():
        module(x.clone())
    return counter.get_total_flops()


def go_all_the_way(recipe: Recipe, folder: Path) -> bool:
    """Cut, export, join, store and load a network; whether its graph was refused."""
    network = build(recipe)
    shape = network.input_shape
    x = random_input((3, *shape))
    whole = answers(network, x)
    parts = partition(network, shape)
    module = assemble(parts, parts.modules)
    assert not disagreement(whole, answers(module, x)), network.describe()
    assert_inputs_stay(parts, x)

    costs = count_parts(parts)
    counted = [*costs.parts, costs.joints]
    choices = [0] * len(parts.modules)
    held = sum(params for _, params in counted) - counted_again(parts.shared, choices)
    used = {id(p) for p in module.parameters()}
    assert held == sum(p.numel() for p in module.parameters() if id(p) in used), network.describe()
    assert 2 * sum(macs for macs, _ in counted) == flops(network, x[:1]), network.describe()

    save_module(module, folder / "w.safetensors")
    again = partition(build(recipe), shape, parts.regions)
    loaded = assemble(again, again.modules)
    with torch.no_grad():
        for weight in loaded.parameters():
            weight.add_(1.0)
    load_weights(loaded, folder / "w.safetensors")
    assert not disagreement(whole, answers(loaded, x)), network.describe()
    try:
        content = own_network(parts, "whole").onnx()
    except NetworkFormError as refusal:
        assert "computes something else" in refusal.cause or "cannot be exported" in refusal.cause
        return True
    assert not disagreement(whole, graph_answers(content, x)), network.describe()
    return False


def assert_inputs_stay(parts: Partition, x: torch.Tensor) -> None:
    values = features_of(parts, x)
    for name, part in parts.ordered(parts.modules).items():
        given = [values[value].clone() for value in parts.reads(name)]
        with torch.no_grad():
            copy.deepcopy(part)(*given)
        assert all(
            torch.equal(one, values[value]) for one, value in zip(given, parts.reads(name), strict=True)
        ), name


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipes())
def test_a_random_network_stays_the_same_function(tmp_path: Path, recipe: Recipe) -> None:
    go_all_the_way(recipe, tmp_path)


@pytest.mark.slow
def test_most_graphs_are_not_refused(tmp_path: Path) -> None:
    """Else the test above would say nothing of graphs."""
    assert sum(go_all_the_way(recipe(seed), tmp_path) for seed in range(8)) <= 3


@pytest.mark.slow
def test_hundreds_of_random_networks_stay_the_same_function(tmp_path: Path) -> None:
    refused = sum(go_all_the_way(recipe(seed), tmp_path) for seed in range(150))
    assert refused < 50
