from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_record
from torch import nn
from workplace import tinynet

import hwnas
from hwnas.compress.tasks.regression import REGRESSION
from hwnas.compress.tasks.task import ACCURACY, difference, quantity
from hwnas.errors import InputError
from hwnas.measurement import Interval
from hwnas.networks.architecture import ArchitectureSpec, ReferenceSpec
from hwnas.networks.blocks.inverted_bottleneck import InvertedBottleneckSpec
from hwnas.networks.build import build_module
from hwnas.networks.serialize import load_module, save_module
from hwnas.networks.weights import load_weights

BLOCK = InvertedBottleneckSpec(
    kernel=5, expand=3, depth=2, activation="swish", se=True, layer="grouped", width=0.5
)
SPEC = ArchitectureSpec(
    reference=ReferenceSpec(source="timm", name="mobilenetv2_035", classes=10),
    regions=tuple((ends,) for ends in itertools.pairwise(("blocks.0", "blocks.2", "blocks.4", "blocks.6"))),
    input_shape=(3, 32, 32),
    parts=(None, None, BLOCK, None, None),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    class_names=tuple("0123456789"),
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    SPEC.save(tmp_path / "architecture.json")
    save_module(build_module(SPEC, allow_code=False), tmp_path / "model.safetensors")
    write_record(tmp_path)
    return tmp_path


def change(folder: Path, *keys: str | int, value: Any) -> None:
    """Set a key of architecture.json; None removes it."""
    file = folder / "architecture.json"
    plain = inner = json.loads(file.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    file.write_text(json.dumps(plain))


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        load_module(folder)
    assert error.value.fix
    return error.value.cause


def test_an_architecture_comes_back(checkpoint: Path) -> None:
    assert ArchitectureSpec.read(checkpoint / "architecture.json") == SPEC


def test_an_architecture_with_cuts_is_read_as_regions(checkpoint: Path) -> None:
    """As `hwnas.architecture/2` has them, also in the reference of a network that was compressed again."""
    file = checkpoint / "architecture.json"
    plain = json.loads(file.read_text())
    plain["cuts"] = ["blocks.0", "blocks.2", "blocks.4", "blocks.6"]
    plain["schema"] = "hwnas.architecture/2"
    del plain["regions"]
    inner = {key: value for key, value in plain.items() if key != "schema"}
    plain["reference"] = {"source": "checkpoint", "name": "again", "architecture": inner}
    file.write_text(json.dumps(plain))
    found = ArchitectureSpec.read(file)
    assert found.regions == SPEC.regions
    assert found.reference.architecture == SPEC


def test_a_module_comes_back_whatever_random_numbers_were_drawn(checkpoint: Path) -> None:
    first = hwnas.load(checkpoint)
    torch.manual_seed(1234)
    second = hwnas.load(str(checkpoint))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(first(x), second(x))
    assert [name for name, _ in first.named_children()] == ["stem", "block1", "block2", "block3", "head"]
    assert not first.training
    state = load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in first.state_dict().items())


def test_a_loaded_module_can_be_trained(checkpoint: Path) -> None:
    module = hwnas.load(checkpoint).train()
    module(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("keys", "value", "names"),
    [
        (("input_shape",), None, "input_shape"),
        (("regions",), 3, "regions"),
        (("parts", 2, "kernel"), "five", "parts.2.inverted-bottleneck.kernel"),
        (("parts", 2, "layer"), "dense", "parts.2.inverted-bottleneck.layer"),
        (("parts", 2, "colour"), "red", "parts.2.inverted-bottleneck.colour"),
        (("parts", 2, "family"), "conv", "parts.2"),
        (("reference", "source"), "mail", "reference.source"),
        (("reference", "classes"), 10.5, "reference.classes"),
        (("schema",), "hwnas.architecture/9", "schema"),
        (("reference", "name"), "mobilenetv9", "mobilenetv9"),
        (("regions", 1, 0), ["blocks.2", "blocks.9"], "blocks.9"),
        (("input_shape",), [3, 32], "input_shape"),
    ],
)
def test_a_damaged_architecture_is_told_with_its_key(
    checkpoint: Path, keys: tuple[str | int, ...], value: Any, names: str
) -> None:
    change(checkpoint, *keys, value=value)
    assert names in refusal(checkpoint)


@pytest.mark.parametrize("amount", [0, 3, 4, 6])
def test_parts_that_are_not_those_of_the_regions_are_told(checkpoint: Path, amount: int) -> None:
    change(checkpoint, "parts", value=[None] * amount)
    assert f"parts: the architecture names {amount}, its regions make 5" in refusal(checkpoint)


@pytest.mark.parametrize("content", ["", "{", '{"schema": "hwnas.architecture/1"}', "[]", "\ufffd"])
def test_an_architecture_that_is_none_is_told(checkpoint: Path, content: str) -> None:
    (checkpoint / "architecture.json").write_text(content)
    assert "architecture.json" in refusal(checkpoint)


def test_weights_that_do_not_fit_are_told(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    state = load_file(file)
    key = "block2.0.expand.0.weight"
    save_file({**state, key: state[key][:-1]}, file)
    assert key in refusal(checkpoint)
    save_file({name: value for name, value in state.items() if name != key}, file)
    assert f"{key} is missing" in refusal(checkpoint)
    save_file(state, file)
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors" in refusal(checkpoint)
    file.unlink()
    assert "model.safetensors" in refusal(checkpoint)


def test_a_directory_that_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    assert "is not a checkpoint" in refusal(tmp_path)
    assert "is not a checkpoint" in refusal(tmp_path / "absent")


def test_a_layer_in_two_places_is_stored(tmp_path: Path) -> None:
    model = tinynet.Tiny()
    twice = model.stages.get_submodule("1")
    twice.register_module("1", twice.get_submodule("0"))
    save_module(model, tmp_path / "w.safetensors")
    state = load_file(tmp_path / "w.safetensors")
    assert len(state) == len({id(value) for value in model.state_dict(keep_vars=True).values()})
    loaded = tinynet.Tiny()
    again = loaded.stages.get_submodule("1")
    again.register_module("1", again.get_submodule("0"))
    load_weights(loaded, tmp_path / "w.safetensors")
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


def test_memory_layout_does_not_reach_the_file(tmp_path: Path) -> None:
    model = tinynet.seeded()
    save_module(model, tmp_path / "a.safetensors")
    last: nn.Module = model.to(memory_format=torch.channels_last)
    save_module(last, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_figures_are_written_for_people() -> None:
    assert quantity(Interval(value=0.972, low=0.95, high=0.985), ACCURACY) == "97.2 % [95.0, 98.5]"
    assert difference(Interval(value=-0.003, low=-0.011, high=0.006), ACCURACY) == "-0.3 points [-1.1, +0.6]"
    assert "not known" in quantity(None, ACCURACY)
    assert "not known" in difference(None, ACCURACY)
    error = REGRESSION.metric
    assert quantity(Interval(value=0.25, low=0.125, high=1.5), error) == "0.25 [0.125, 1.5]"
    assert difference(Interval(value=0.25, low=-0.5, high=1.5), error) == "+0.25 [-0.5, +1.5]"
