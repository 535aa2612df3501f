"""The generator of random networks: each is the same twice, runs in both modes, and tells images apart."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from random_networks import CLASSES, StageRecipe, build, recipe, recipes
from random_networks import Recipe as RandomRecipe
from random_stages import KINDS, WRITES_TO_INPUT


def images(network: torch.nn.Module, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *network.input_shape, generator=generator)  # type: ignore[misc]


@settings(max_examples=60)
@given(recipes())
def test_a_recipe_gives_the_same_network_twice(made: RandomRecipe) -> None:
    before = torch.random.get_rng_state()
    first, second = build(made), build(made)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        outputs = [network(images(network)) for network in (first, second)]
    assert torch.equal(*outputs), first.describe()
    assert outputs[0].shape == (3, CLASSES)
    assert outputs[0].isfinite().all(), first.describe()
    assert outputs[0].abs().max() > 1e-5, first.describe()
    assert (outputs[0][0] - outputs[0][1]).abs().max() > 1e-7, first.describe()  # images are told apart
    state, other = first.state_dict(), second.state_dict()
    assert all(torch.equal(state[key], value) for key, value in other.items())


@settings(max_examples=25)
@given(recipes())
def test_an_answer_does_not_depend_on_its_neighbours(made: RandomRecipe) -> None:
    network = build(made)
    with torch.no_grad():
        together = network(images(network))
        alone = network(images(network)[:1])
    assert torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-4 * made.scale), network.describe()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_in_both_modes_and_only_some_write_to_their_input(kind: str) -> None:
    network = build(RandomRecipe(seed=3, size=(24, 40), stages=(StageRecipe(kind=kind),) * 3))
    stage = network.layer1
    assert isinstance(stage, torch.nn.Module)
    x = torch.randn(2, 16, 12, 20, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        given_input = x.clone()
        y = stage(given_input)
        assert y.shape == x.shape
        assert torch.equal(given_input, x) == (kind not in WRITES_TO_INPUT)
    network.train()
    assert network(images(network)).isfinite().all()


def test_seeds_give_many_networks_that_train() -> None:
    trained = 0
    for seed in range(40):
        network = build(recipe(seed)).train()
        try:
            network(images(network)).square().sum().backward()
        except RuntimeError as error:
            assert "inplace" in str(error)
            continue
        trained += all(p.grad is not None for p in network.parameters() if p.requires_grad)
    assert trained >= 15


def test_seeds_reach_everything() -> None:
    made = [recipe(seed) for seed in range(300)]
    networks = [build(one) for one in made[:60]]
    kinds = Counter(stage.kind for one in made for stage in one.stages)
    assert kinds.keys() == KINDS.keys()
    assert any("again" in network.describe() for network in networks)
    assert any("share a weight" in network.describe() for network in networks)
    assert any("in place" in network.describe() for network in networks)
    assert eval(networks[0].describe().splitlines()[-1].replace("build(", "(", 1), vars_of()) == made[0]  # noqa: S307


def vars_of() -> dict[str, object]:
    return {"Recipe": RandomRecipe, "StageRecipe": StageRecipe}
