"""Networks whose numbers would be wrong without a word, and what becomes of each."""

from __future__ import annotations

import copy
import logging

import numpy as np
import onnxruntime as ort
import pytest
import torch
from features import features_of
from torch import nn
from workplace import oddnets

from hwnas.composed import Composed
from hwnas.compress.library.operators import require_exports
from hwnas.errors import InputError, NetworkFormError
from hwnas.network import export_onnx, in_eval_mode, random_input
from hwnas.networks.build import assemble
from hwnas.networks.checks import (
    answer_of,
    is_answer,
    plain_module,
    require_one_function,
    require_rebuildable,
    require_trainable,
    writes_to_input,
)
from hwnas.networks.count import count
from hwnas.networks.exported import own_network
from hwnas.networks.find import find_network
from hwnas.networks.partition import Partition, counted_again, partition
from hwnas.networks.serialize import save_module
from hwnas.networks.weights import load_weights

SHAPE = (3, 32, 32)
X = random_input((2, *SHAPE))

IN_PLACE = (
    oddnets.inplace_function,
    oddnets.inplace_module,
    oddnets.inplace_multiplication,
    oddnets.inplace_data,
    oddnets.normalised_in_place,
)


def run(module: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = module(x.clone())
    return output


def graph_output(parts: Partition, x: torch.Tensor) -> np.ndarray:
    session = ort.InferenceSession(own_network(parts, "all").onnx())
    return np.concatenate([session.run(None, {"input": image[None].numpy()})[0] for image in x])


# A part that writes to its input.


@pytest.mark.parametrize("make", IN_PLACE, ids=lambda make: make.__name__)
def test_no_part_changes_what_it_is_given(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    parts = partition(model, SHAPE)
    assert torch.allclose(run(assemble(parts, parts.modules)), run(model), atol=1e-5)
    given = X
    for name, part in zip(parts.names, parts.modules, strict=True):
        for training in (True, False):
            each = copy.deepcopy(part)
            each.train(training)
            kept = given.clone()
            each(kept)
            assert torch.equal(kept, given), (name, training)
        given = run(part, given)
    if make is not oddnets.inplace_data:
        assert np.allclose(graph_output(parts, X), run(model).numpy(), atol=1e-4)


@pytest.mark.parametrize("make", IN_PLACE, ids=lambda make: make.__name__)
def test_features_are_what_each_part_gives(make) -> None:  # type: ignore[no-untyped-def]
    """The teacher passes a batch from part to part, and keeps every tensor between them."""
    parts = partition(make(), SHAPE)
    features = features_of(parts, X.clone())
    assert torch.equal(features[0], X)
    for before, after, part in zip(features, features[1:], parts.modules, strict=False):
        assert torch.equal(after, run(part, before))


def test_writing_is_seen_where_no_value_changes() -> None:
    assert writes_to_input(nn.ReLU(inplace=True), X.abs())
    assert writes_to_input(oddnets.Lambda(lambda x: x.data.clamp_(max=100.0)), X)
    assert writes_to_input(oddnets.Lambda(lambda x: torch.relu(x[:, 1:]).add(x[:, :1].mul_(1.0))), X)
    assert writes_to_input(oddnets.Lambda(lambda x: torch.abs(x, out=x)), X.abs())
    assert writes_to_input(oddnets.Lambda(lambda x: x.index_put_((torch.tensor([0]),), X[:1])), X)
    assert writes_to_input(nn.Sequential(nn.Dropout(inplace=True), nn.Conv2d(3, 4, 1)), X)  # in training
    assert not writes_to_input(nn.ReLU(), X)
    assert not writes_to_input(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)), X)


# Weights that parts share.


@pytest.mark.parametrize("make", [oddnets.shared, oddnets.shared_parameter], ids=lambda make: make.__name__)
def test_shared_weights_count_once_and_are_stored_once(make, tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = make()
    parts = partition(model, SHAPE)
    each = [count(module, shape)[1] for module, shape in zip(parts.modules, parts.shapes, strict=False)]
    choices = [0] * len(parts.modules)
    whole = sum(p.numel() for p in model.parameters())
    assert sum(each) > whole
    assert sum(each) - counted_again(parts.shared, choices) == whole
    save_module(assemble(parts, parts.modules), tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").stat().st_size < 4 * whole + 30_000
    loaded = partition(make(), SHAPE)
    module = assemble(loaded, loaded.modules)
    for weight in module.parameters():
        weight.data.zero_()
    load_weights(module, tmp_path / "w.safetensors")
    assert torch.equal(run(module), run(assemble(parts, parts.modules)))


def test_what_is_replaced_shares_nothing() -> None:
    parts = partition(oddnets.shared(), SHAPE)
    (shared,) = parts.shared
    assert shared.parts == (1, 2, 3)
    own, others = [0] * len(parts.modules), [0, 1, 0, 1, 0]
    assert counted_again(parts.shared, own) == 2 * shared.params
    assert counted_again(parts.shared, others) == 0


def test_a_file_in_which_shared_weights_differ_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from safetensors.torch import save_file

    model = oddnets.shared()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    save_file(state, tmp_path / "same.safetensors")
    load_weights(model, tmp_path / "same.safetensors")
    state["layer3.1.0.weight"] += 1
    save_file(state, tmp_path / "apart.safetensors")
    with pytest.raises(InputError, match=r"layer1\.1\.0\.weight and layer3\.1\.0\.weight, one tensor"):
        load_weights(model, tmp_path / "apart.safetensors")


# State that a state dict does not hold.


@pytest.mark.parametrize("name", ["random_buffer", "random_attribute", "numpy_noise"])
def test_a_network_that_is_built_otherwise_each_time_is_refused(name: str) -> None:
    make = getattr(oddnets, name)
    first, again = (in_eval_mode(make()) for _ in range(2))
    with pytest.raises(InputError, match="another network each time it is built") as error:
        require_rebuildable(first, again, X, name)
    assert ("between.filters" in error.value.cause) == name.startswith("random")


@pytest.mark.parametrize("name", ["random_stored", "random_seeded", "plain", "shared"])
def test_a_network_that_is_built_alike_is_taken(name: str) -> None:
    make = getattr(oddnets, name)
    require_rebuildable(in_eval_mode(make()), in_eval_mode(make()), X, name)


def test_a_network_whose_sizes_are_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="built otherwise each time"):
        require_rebuildable(oddnets.plain(), oddnets.attention(), X, "drawn")


def test_an_answer_tells_networks_apart() -> None:
    model = oddnets.plain()
    answer = answer_of(model, SHAPE)
    assert is_answer(oddnets.plain(), SHAPE, answer)
    other = oddnets.plain()
    with torch.no_grad():
        other.get_parameter("layer2.0.0.weight").mul_(1.1)
    assert not is_answer(other, SHAPE, answer)
    assert not is_answer(nn.Sequential(oddnets.plain(), nn.Linear(10, 9)), SHAPE, answer)


# An answer that depends on more than the image.


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("batch_statistics", "when others are beside it, in its module 'layer2.1'"),
        ("centred", "when others are beside it, in its module 'between'"),
        ("always_dropping", "another answer each time, in its own forward"),
        ("counting", "another answer each time, in its module 'between'"),
    ],
)
def test_an_answer_that_depends_on_more_than_the_image_is_refused(name: str, where: str) -> None:
    model = in_eval_mode(getattr(oddnets, name)())
    with pytest.raises(InputError, match=where):
        require_one_function(model, X)
    with pytest.raises(InputError, match=where):
        partition(model, SHAPE)


# Attention's fast path.


def test_attention_is_counted_and_exported() -> None:
    model = oddnets.attention()
    macs, _ = count(model, SHAPE)
    tokens, channels, hidden = 16, 32, 64
    layer = 4 * tokens * channels**2 + 2 * tokens**2 * channels + 2 * tokens * channels * hidden
    assert macs == 3 * 8 * 8 * tokens * channels + 3 * layer + 10 * channels
    parts = partition(model, SHAPE)
    assert np.allclose(graph_output(parts, X), run(model).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["recurrent", "masked_plainly"])
def test_what_only_looks_like_control_flow_is_taken(name: str) -> None:
    network = find_network(f"workplace.oddnets:{name}")
    session = ort.InferenceSession(network.onnx())
    (found,) = session.run(None, {"input": X[:1].numpy()})
    assert np.allclose(found, run(network.module(), X[:1]).numpy(), atol=1e-5)


def test_recurrent_layers_are_counted() -> None:
    macs, _ = count(nn.LSTM(16, 16, batch_first=True), (256, 16))
    assert macs == 256 * 4 * (16 * 16 + 16 * 16)


# Control flow on values, and graphs that compute something else.


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("early_exit", "if early.abs"),
        ("by_numpy", "np.asarray"),
        ("by_list", "tolist"),
        ("by_size", "len"),
        ("by_count", "nonzero"),
        ("by_memory", "seen.sum"),
    ],
)
def test_control_flow_on_values_is_refused_wherever_a_network_is_named(name: str, line: str) -> None:
    with pytest.raises(InputError, match=f"depends on the .*image,? .oddnets.py line .*{line}"):
        find_network(f"workplace.oddnets:{name}")


@pytest.mark.parametrize("name", ["view_changed", "view_changed_small", "masked"])
def test_a_graph_that_computes_something_else_is_refused(name: str) -> None:
    with pytest.raises(NetworkFormError, match="a graph that computes something else"):
        export_onnx(getattr(oddnets, name)(), (1, *SHAPE))
    with pytest.raises(NetworkFormError, match="computes something else"):
        find_network(f"workplace.oddnets:{name}").hash  # noqa: B018


def test_a_change_that_only_the_exporter_misses_is_refused() -> None:
    with pytest.raises(InputError, match="block1 was exported to a graph that computes something else"):
        require_exports(partition(oddnets.inplace_data(), SHAPE))


def test_an_answer_that_is_zero_or_tiny_is_no_fault() -> None:
    class Zero(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) * 0.0

    export_onnx(Zero(), (1, *SHAPE))
    export_onnx(nn.Sequential(oddnets.plain(), oddnets.Lambda(lambda x: x * 1e-6)), (1, *SHAPE))


# What cannot be trained or delivered.


def test_a_part_that_cannot_be_trained_is_named() -> None:
    parts = partition(oddnets.untrainable().eval(), SHAPE)
    with pytest.raises(
        InputError, match=r"block2 of the network cannot be trained: .*modified by an inplace"
    ):
        require_trainable(parts.ordered(parts.modules), parts.wiring, X)
    parts = partition(oddnets.plain(), SHAPE)
    before = {key: value.clone() for key, value in assemble(parts, parts.modules).state_dict().items()}
    require_trainable(parts.ordered(parts.modules), parts.wiring, X)
    after = assemble(parts, parts.modules).state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(module.training for module in parts.modules)


def test_a_part_that_cannot_be_exported_is_named() -> None:
    parts = partition(oddnets.spectral().eval(), SHAPE)
    with pytest.raises(InputError, match=r"block2 cannot be exported to ONNX: .*vdot"):
        require_exports(parts)


# Forms in which people have networks.


@pytest.mark.parametrize("name", ["half", "double", "compiled", "compiled_inside", "data_parallel"])
def test_a_network_in_another_form_is_taken_as_what_it_is(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        module = plain_module(getattr(oddnets, name)(), f"net:{name}")
    assert any(f"net:{name}" in message for message in caplog.messages)
    assert type(module) is oddnets.Chain
    assert module.input_shape == SHAPE
    expected = run(oddnets.plain())
    assert torch.allclose(run(module), expected, atol=2e-3 if name == "half" else 1e-5)
    assert list(module.state_dict()) == list(oddnets.plain().state_dict())
    export_onnx(module, (1, *SHAPE))


@pytest.mark.parametrize("name", ["lazy", "meta"])
def test_a_network_without_values_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="has no values yet"):
        plain_module(getattr(oddnets, name)(), name)


def test_modules_in_a_python_list_are_refused() -> None:
    with pytest.raises(InputError, match=r"in a plain list, layer2\.convs"):
        plain_module(oddnets.python_list(), "net")


@pytest.mark.parametrize("name", ["held_by_an_object", "held_by_a_closure"])
def test_weights_that_torch_does_not_find_are_refused_with_the_line_that_uses_them(name: str) -> None:
    with pytest.raises(
        InputError, match=r"torch does not find in it \(oddnets.py line \d+: .*between=Lambda"
    ):
        partition(getattr(oddnets, name)().eval(), SHAPE)


def test_modules_that_are_listed_beside_are_no_fault() -> None:
    model = oddnets.plain()
    vars(model)["order"] = [model.get_submodule("layer1"), model.get_submodule("layer2")]
    vars(model)["activations"] = (nn.ReLU(), nn.SiLU())  # nothing to train or store
    plain_module(model, "net")


def test_weights_of_one_memory_are_one() -> None:
    model = oddnets.shared_memory()
    expected = run(model)
    module = plain_module(model, "net")
    assert module.get_parameter("layer1.0.0.weight") is module.get_parameter("layer1.1.0.weight")
    assert torch.equal(run(copy.deepcopy(module)), expected)
    with pytest.raises(InputError, match=r"layer1\.0\.0\.weight is a part of the memory of stem\.bias"):
        plain_module(oddnets.overlapping_memory(), "net")


def test_frozen_weights_can_be_trained() -> None:
    module = plain_module(oddnets.frozen_weights(), "net")
    assert all(parameter.requires_grad for parameter in module.parameters())
    partly = oddnets.plain()
    partly.stem.requires_grad_(False)
    assert not plain_module(partly, "net").get_parameter("stem.weight").requires_grad


def test_weights_that_a_hook_computes_are_no_fault() -> None:
    find_network("workplace.oddnets:weight_norm_of_old").module()
    parts = partition(oddnets.weight_norm_of_old().eval(), SHAPE)
    require_trainable(parts.ordered(parts.modules), parts.wiring, X)


def test_a_train_that_returns_nothing_is_no_fault() -> None:
    network = find_network("workplace.oddnets:train_returns_nothing")
    assert isinstance(network.module(), Composed)
    parts = partition(oddnets.train_returns_nothing(), SHAPE)
    assert np.allclose(graph_output(parts, X), run(oddnets.train_returns_nothing()).numpy(), atol=1e-5)
