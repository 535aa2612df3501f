"""Weights files as people have them: read rightly and with a word, or refused by the tensor's name."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import Heard
from safetensors.torch import save_file
from shortest_run import LIBRARY
from tiny import make_data
from torch import Tensor, nn
from workplace import tinynet

from hwnas.compress.reference.prepare import initial_reference
from hwnas.errors import InputError
from hwnas.networks.weights import load_weights, read_state

State = dict[str, Any]
HERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


TRAINED = tinynet.seeded().state_dict()


def trained() -> State:
    return dict(TRAINED)


def other() -> State:
    return {key: value + 1 for key, value in trained().items()}


def prefixed(prefix: str, state: State | None = None) -> State:
    return {prefix + key: value for key, value in (state or trained()).items()}


def loads(path: Path) -> list[str]:
    """What is said when a file is loaded, whose weights are the trained ones."""
    module, heard = tinynet.make(), Heard()
    load_weights(module, path, progress=heard)
    state = module.state_dict()
    assert all(torch.equal(state[key], value) for key, value in trained().items())
    return heard.said


def refusal(path: Path) -> InputError:
    module = tinynet.make()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(module, path)
    assert caught.value.fix
    assert str(path) in caught.value.cause
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    return caught.value


def saved(folder: Path, content: object, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def compiled() -> State:
    """Layers of which one is compiled."""
    return {
        (f"{key.split('.')[0]}._orig_mod.{key.split('.', 1)[1]}" if key.startswith("head.") else key): value
        for key, value in trained().items()
    }


def parallel_features() -> State:
    """As ImageNet's example wraps VGG: the features alone."""
    return {
        (key.replace("stem.", "stem.module.", 1) if key.startswith("stem.") else key): value
        for key, value in trained().items()
    }


WRAPPED: dict[str, tuple[Callable[[], State], str]] = {
    "DataParallel": (lambda: prefixed("module."), "module."),
    "torch.compile": (lambda: prefixed("_orig_mod."), "_orig_mod."),
    "Lightning": (lambda: prefixed("model."), "model."),
    "both": (lambda: prefixed("module._orig_mod."), "module."),
    "both the other way": (lambda: prefixed("_orig_mod.module."), "_orig_mod."),
    "three": (lambda: prefixed("model._orig_mod.module."), "model."),
    "own": (lambda: prefixed("classifier.net."), "classifier.net."),
    "one layer compiled": (compiled, "_orig_mod."),
    "one layer parallel": (parallel_features, "module."),
    "AveragedModel": (
        lambda: {"n_averaged": torch.tensor(7), **prefixed("module.")},
        "left aside: n_averaged",
    ),
    "with a loss": (
        lambda: {**prefixed("model."), "criterion.weight": torch.ones(10)},
        "left aside: criterion",
    ),
    "with an average": (
        lambda: {**prefixed("model.", other()), **prefixed("ema.module.")},
        "left aside: model",
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_levels_around_a_network_are_taken_off_and_said(tmp_path: Path, name: str) -> None:
    make, mentioned = WRAPPED[name]
    (said,) = loads(saved(tmp_path, make()))
    assert said.startswith("w.pth: ")
    assert mentioned in said
    assert "taken off" in said
    assert mentioned.startswith("left aside") or "left aside" not in said
    save_file({key: value.contiguous() for key, value in make().items()}, tmp_path / "w.safetensors")
    assert [text.replace("safetensors", "pth") for text in loads(tmp_path / "w.safetensors")] == [said]


def test_weights_that_fit_as_they_are_stay_so_without_a_word(tmp_path: Path) -> None:
    assert loads(saved(tmp_path, trained())) == []

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.ModuleDict({"module": nn.Linear(2, 2)})

    heard, source, target = Heard(), Wrapper(), Wrapper()
    load_weights(target, saved(tmp_path, source.state_dict()), progress=heard)
    assert heard.said == []
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


CHECKPOINTS: dict[str, tuple[Callable[[], Any], str]] = {
    "timm": (
        lambda: {"epoch": 3, "state_dict": other(), "state_dict_ema": trained(), "metric": 0.9},
        "the weights are state_dict_ema; left aside: state_dict",
    ),
    "torchvision": (
        lambda: {"model": other(), "model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.")}},
        "the weights are model_ema; left aside: model",
    ),
    "ema": (lambda: {"model": other(), "ema": trained()}, "the weights are ema; left aside: model"),
    "basicsr": (lambda: {"params": other(), "params_ema": trained()}, "the weights are params_ema"),
    "plain": (
        lambda: {
            "model_state_dict": trained(),
            "optimizer_state_dict": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []},
        },
        "the weights are model_state_dict",
    ),
    "named optimizer": (
        lambda: {"net": trained(), "optimizer": {"state": {"fc": {"exp_avg": torch.ones(2)}}}},
        "the weights are net",
    ),
    "nested": (lambda: {"checkpoint": {"model": {"state_dict": trained()}}}, "checkpoint.model.state_dict"),
    "other name": (lambda: {"student": trained(), "epoch": 3}, "the weights are student"),
    "with a teacher": (
        lambda: {"model": trained(), "teacher": other()},
        "the weights are model; left aside: teacher",
    ),
    "with a loose tensor": (lambda: {"model": trained(), "loss": torch.tensor(1.0)}, "the weights are model"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_which_part_of_a_checkpoint_is_taken_is_said(tmp_path: Path, name: str) -> None:
    make, said = CHECKPOINTS[name]
    assert said in loads(saved(tmp_path, make()))[0]


def test_several_networks_in_one_file_are_refused_by_their_names(tmp_path: Path) -> None:
    error = refusal(saved(tmp_path, {"generator": trained(), "discriminator": other()}))
    assert "holds several networks: discriminator, generator" in error.cause
    error = refusal(saved(tmp_path, {**prefixed("student."), **prefixed("teacher.", other())}))
    assert "several networks that fit: student., teacher." in error.cause


def test_a_wrapped_network_that_does_not_fit_is_told_by_the_tensor(tmp_path: Path) -> None:
    state = prefixed("module.")
    del state["module.head.2.bias"]
    assert "head.2.bias is missing" in refusal(saved(tmp_path, state)).cause
    assert refusal(saved(tmp_path, state)).cause.count("missing") == 1
    assert "stem.1.0.weight is missing" in refusal(saved(tmp_path, {"a.b": torch.ones(1)})).cause


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_converted_and_it_is_said(tmp_path: Path, dtype: torch.dtype) -> None:
    module, heard = tinynet.make(), Heard()
    state = {key: value.to(dtype) for key, value in trained().items()}  # counters of batches too
    load_weights(module, saved(tmp_path, state), progress=heard)
    for key, value in module.state_dict().items():
        assert value.dtype == trained()[key].dtype
        assert torch.equal(value, state[key].to(value.dtype))
    floats = sum(value.is_floating_point() for value in trained().values())
    text = f"{floats} tensors are converted from {str(dtype)[6:]} to float32"
    assert any(text in said for said in heard.said)


def with_weight(value: Tensor) -> State:
    return trained() | {"head.2.weight": value}


def nan_at(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    weight: Tensor = TRAINED["head.2.weight"].to(dtype).clone()
    weight[3, 5] = value
    return weight


WEIGHT = TRAINED["head.2.weight"]
STRANGE: dict[str, tuple[Tensor, str]] = {
    "int64": (WEIGHT.long(), "is int64 instead of float32"),
    "int8": (WEIGHT.to(torch.int8), "is int8 instead of float32"),
    "bool": (WEIGHT > 0, "is bool instead of float32"),
    "complex": (WEIGHT.to(torch.complex64), "is complex64 instead of float32"),
    "float8": (WEIGHT.to(torch.float8_e4m3fn), "is float8_e4m3fn instead of float32"),
    "quantised": (torch.quantize_per_tensor(WEIGHT, 0.1, 0, torch.qint8), "is quantised"),
    "coo": (WEIGHT.to_sparse(), "is sparse"),
    "csr": (WEIGHT.to_sparse_csr(), "is sparse"),
    "meta": (WEIGHT.to("meta"), "is without values"),
    "nan": (nan_at(float("nan")), "holds NaN or infinity"),
    "inf": (nan_at(float("inf")), "holds NaN or infinity"),
    "half inf": (nan_at(float("-inf"), torch.float16), "holds NaN or infinity"),
    "too large": (nan_at(1e300, torch.float64), "holds values beyond float32"),
    "shape": (WEIGHT[:, :3], "has shape (10, 3) instead of (10, 16)"),
    "no rank": (torch.tensor(1.0), "has shape () instead of (10, 16)"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_tensors_that_are_no_weights_are_named(tmp_path: Path, name: str) -> None:
    value, cause = STRANGE[name]
    assert f"head.2.weight {cause}" in refusal(saved(tmp_path, with_weight(value))).cause
    nested = saved(tmp_path, {"state_dict": prefixed("module.", with_weight(value))})
    assert f"head.2.weight {cause}" in refusal(nested).cause


def test_counters_keep_their_values_or_are_refused(tmp_path: Path) -> None:
    counter = next(key for key in trained() if key.endswith("tracked"))
    for value, loaded in ((torch.tensor(7, dtype=torch.int32), 7), (torch.tensor(7.0), 7)):
        module = tinynet.make()
        load_weights(module, saved(tmp_path, trained() | {counter: value}))
        assert int(module.state_dict()[counter]) == loaded
    for wrong in (7.5, float("nan"), float("inf")):
        cause = refusal(saved(tmp_path, trained() | {counter: torch.tensor(wrong)})).cause
        assert f"{counter} holds values that int64 does not" in cause


def test_a_mask_of_infinity_that_the_network_makes_itself_is_right(tmp_path: Path) -> None:
    def make() -> nn.Module:
        module = nn.Linear(2, 2)
        module.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
        return module

    source, target = make(), make()
    load_weights(target, saved(tmp_path, source.state_dict()))
    assert torch.equal(target.weight, source.weight)  # type: ignore[arg-type]


def test_a_tensor_with_two_names_may_be_stored_under_one(tmp_path: Path) -> None:
    """As safetensors' save_model and Hugging Face's save_pretrained do."""

    def make() -> nn.Module:
        layer = nn.Linear(4, 4)
        return nn.Sequential(layer, nn.ReLU(), layer)

    source, target = make(), make()
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    del state["module.2.weight"], state["module.2.bias"]
    load_weights(target, saved(tmp_path, state))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))
    state["module.2.weight"] = state["module.0.weight"] + 1
    with pytest.raises(InputError, match=r"different values for 0\.weight and 2\.weight"):
        load_weights(target, saved(tmp_path, state))


def test_a_file_is_read_by_what_it_holds_whatever_its_name_ends_in(tmp_path: Path) -> None:
    save_file(trained(), tmp_path / "safetensors.pth")
    loads(tmp_path / "safetensors.pth")
    saved(tmp_path, trained(), "torch.safetensors")
    loads(tmp_path / "torch.safetensors")
    torch.save(trained(), tmp_path / "legacy.safetensors", _use_new_zipfile_serialization=False)
    loads(tmp_path / "legacy.safetensors")
    for name in ("w.ckpt", "w.bin", "w"):
        loads(saved(tmp_path, trained(), name))


@pytest.mark.parametrize("length", range(8, 200, 8))
def test_safetensors_of_any_length_of_header_are_told_from_pickles(tmp_path: Path, length: int) -> None:
    path = tmp_path / "w.pth"
    save_file({"x" * length: torch.ones(1)}, path)  # among them headers whose length begins like a pickle
    assert read_state(path).keys() == {"x" * length}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "is a Git LFS pointer",
        ),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (json.dumps({"weight_map": {"a": "model-00001.safetensors"}}).encode(), "is JSON"),
        (b"\x08\x07\x12\x07pytorch", "or is not a weights file"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_are_something_else_are_told(
    tmp_path: Path, content: bytes, cause: str, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name)
    assert cause in error.cause or (name == "w.safetensors" and "cannot read weights" in error.cause)
    assert "LFS" not in cause or f"git lfs pull --include {name}" in error.fix


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({"epoch": 3, "fc.weight": torch.ones(2)}, "epoch is a int, not a tensor"),
        ({"epoch": 3, "args": {"lr": 0.1}}, "it holds epoch, args"),
        ({0: torch.ones(2)}, "holds no state dict"),
        (torch.ones(2), "it holds a Tensor"),
        ([trained()], "it holds a list"),
        ({}, "stem.1.0.weight is missing"),
    ],
)
def test_files_without_a_state_dict_say_what_they_hold(tmp_path: Path, content: object, cause: str) -> None:
    assert cause in refusal(saved(tmp_path, content)).cause


def test_a_network_without_weights_has_an_empty_file(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    load_weights(nn.ReLU(), tmp_path / "w.safetensors")


class Declared:
    """A class that other code says is safe."""

    def __init__(self) -> None:
        self.value = 1

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        raise AssertionError("it was unpickled")


def test_only_tensors_are_unpickled_whatever_else_is_declared_or_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, {**trained(), "args": Declared()})
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with torch.serialization.safe_globals([Declared]):
        assert "holds more than tensors" in refusal(path).cause
        assert Declared in torch.serialization.get_safe_globals()
    assert "Declared" in refusal(path).cause


def test_a_command_says_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(tinynet.__file__).parent))
    heard = Heard()
    weights = saved(tmp_path, {"state_dict": prefixed("module.")})
    chosen = replace(LIBRARY, model="tinynet:make", weights=str(weights))
    initial = initial_reference(chosen, make_data(), allow_code=False, progress=heard)
    assert not initial.to_train
    assert ["state_dict" in heard.said[0], "module." in heard.said[1]] == [True, True]


LEVELS = st.lists(st.sampled_from(["module", "_orig_mod", "model", "net"]), max_size=3)
KEYS = st.lists(st.sampled_from(["state_dict", "model", "net", "checkpoint"]), max_size=2)
DTYPES = st.sampled_from([torch.float32, torch.float64])


@HERE
@given(LEVELS, KEYS, DTYPES, st.booleans(), st.sampled_from(["w.pth", "w.safetensors"]))
def test_any_wrapping_of_a_state_is_undone(
    tmp_path: Path, levels: list[str], keys: list[str], dtype: torch.dtype, averaged: bool, name: str
) -> None:
    prefix = "".join(f"{level}." for level in levels)
    state = prefixed(prefix, {key: value.to(dtype) for key, value in trained().items()})
    content: Any = {"model": other(), "ema": state} if averaged else state
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    said = loads(saved(tmp_path, content, name))
    assert len(said) >= bool(prefix) + bool(keys or averaged) + (dtype != torch.float32)


@HERE
@given(st.data(), st.sampled_from(["w.pth", "w.safetensors"]), st.sampled_from(["torch", "safetensors"]))
def test_no_damage_runs_anything_or_ends_in_a_traceback(
    tmp_path: Path, data: st.DataObject, name: str, form: str
) -> None:
    path = tmp_path / name
    content = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    save_file(content, path) if form == "safetensors" else torch.save(content, path)
    stored = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(stored[: data.draw(st.integers(0, len(stored)))])
    try:
        load_weights(nn.Linear(2, 2), path)
    except InputError as error:
        assert str(path) in error.cause


@HERE
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda x: (
            st.lists(x, max_size=2)
            | st.dictionaries(
                st.sampled_from(["state_dict", "model", "ema", "fc.weight", "a"]), x, max_size=3
            )
        ),
    )
)
def test_any_plain_content_is_refused_by_cause(tmp_path: Path, content: object) -> None:
    refusal(saved(tmp_path, content))


def test_a_pickle_of_a_function_is_not_called(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    for name in ("w.pth", "w.safetensors", "w.ckpt"):
        saved(tmp_path, {"state_dict": trained(), "hyper_parameters": Evil()}, name)
        assert "posix.mkdir" in refusal(tmp_path / name).cause
        (tmp_path / name).write_bytes(pickle.dumps({"state_dict": Evil()}))
        refusal(tmp_path / name)
    assert not (tmp_path / "ran").exists()
