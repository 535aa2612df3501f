"""Accelerator descriptions: shipped ones load, nonsense is refused with the key's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulated_networks import REFERENCE, add, conv, needs_reference, random_network

from hwnas.devices.simulator import (
    Network,
    Scheduler,
    accelerator_names,
    evaluate,
    load_accelerator,
    load_reference,
    reference_accelerator,
    reference_network,
)
from hwnas.errors import InputError

SHIPPED = {
    "meta-prototype-df",
    "mobile-npu",
    "tpu-like",
    "tpu-like-df",
    "edge-tpu-like",
    "edge-tpu-like-df",
    "ascend-like",
    "ascend-like-df",
    "tesla-npu-like",
    "tesla-npu-like-df",
}


def test_what_is_shipped() -> None:
    assert set(accelerator_names()) == SHIPPED
    assert load_accelerator().name == load_accelerator("sim-npu").name == "mobile-npu"


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_accelerator_runs_both_models(name: str) -> None:
    accelerator = load_accelerator(name)
    network = random_network(6)
    assert accelerator.multipliers == 1024
    fast, exact = (
        Scheduler(accelerator).schedule(network),
        evaluate(network, accelerator, mode="layer-by-layer"),
    )
    assert fast.iterations == exact.iterations == network.iterations
    assert 0 < fast.utilisation <= 1
    assert exact.latency_cycles >= network.iterations / 1024


@needs_reference
@pytest.mark.parametrize(
    ("name", "entry"),
    [("meta-prototype-df", "Meta_prototype_DF"), ("tpu-like", "TPU_like"), ("tpu-like-df", "TPU_like_DF")],
)
def test_shipped_descriptions_equal_the_reference(name: str, entry: str) -> None:
    shipped = load_accelerator(name)
    given = reference_accelerator(shipped.name, load_reference(REFERENCE)["accelerators"][entry])
    assert shipped.unroll == given.unroll
    assert shipped.mac_pj == given.mac_pj
    for ours, theirs in zip(shipped.memories, given.memories, strict=True):
        assert set(ours.operands) == set(theirs.operands)
        for key in (
            "size_bits",
            "read_bits_per_cycle",
            "write_bits_per_cycle",
            "read_pj",
            "write_pj",
            "ports",
            "instances",
        ):
            assert getattr(ours, key) == pytest.approx(getattr(theirs, key))


def written(tmp_path: Path, old: str, new: str) -> Path:
    """The default accelerator with one line changed."""
    from importlib import resources

    text = (
        resources.files("hwnas.devices.simulator")
        .joinpath("accelerators", "meta-prototype-df.toml")
        .read_text()
    )
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("read_bits_per_cycle = 64\n", "read_bits_per_cycle = 0\n", "read_bits_per_cycle = 0"),
        ("bytes = 32768\n", "bytes = 0\n", "bytes"),
        ("bytes = 1048576\n", "bytes = 1024\n", "shrink"),
        ("bytes = 1048576\n", 'bytes = "large"\n', "bytes"),
        ("mac_pj = 0.04\n", "", "mac_pj"),
        ("mac_pj = 0.04\n", "mac_pj = -1\n", "mac_pj"),
        ("clock_mhz = 1000\n", "clock_mhz = 0\n", "clock_mhz"),
        ("batch = 1\n", "batch = 1.5\n", "batch"),
        ("K = 32\n", "K = 0\n", "unroll.K"),
        ("K = 32\n", "Q = 32\n", "Q"),
        ("instances = 64\n", "instances = 60\n", "instances = 60"),
        ('operands = ["I", "W", "O"]', 'operands = ["I", "O"]', "must hold all of I, W and O"),
        ('operands = ["W"]', 'operands = ["X"]', "operands"),
        ("ports = [1, 1, 0]", "ports = [1, 0, 0]", "ports"),
        ("mac_pj = 0.04\n", "mac_pj = 0.04\nvoltage = 1\n", "voltage"),
        ("[unroll]", "[unroll", "TOML"),
        ("mac_pj = 0.04\n", "mac_pj = nan\n", "mac_pj = nan"),
        ("clock_mhz = 1000\n", "clock_mhz = inf\n", "clock_mhz = inf"),
        ("bytes = 32768\n", "bytes = inf\n", "bytes = inf"),
        ("batch = 1\n", "batch = 1\npartial_sum_bits = 64\n", "one word of O takes 64"),
    ],
)
def test_nonsense_is_refused_with_its_key(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(InputError) as error:
        load_accelerator(written(tmp_path, old, new))
    assert named in str(error.value)
    assert error.value.fix


@pytest.mark.parametrize("name", sorted(SHIPPED))
@pytest.mark.parametrize("mode", ["single-layer", "fully-cached"])
def test_residual_networks_run_on_a_shipped_accelerator(name: str, mode: str) -> None:
    """Both maps of an addition share a buffer that may hold only one of them at the array's full width."""
    layers = (conv("stem", -1, 64, 3, 56), conv("body", 0, 64, 64, 56), add("add", 0, 1, 64, 56))
    network = Network("residual", layers, 3, 56, 56)
    result = evaluate(network, load_accelerator(name), mode=mode, tile=(56, 14))
    assert result.iterations == network.iterations


@pytest.mark.parametrize("key", ["id", "kind", "rows", "inputs"])
def test_a_reference_layer_without_a_key_is_refused(key: str) -> None:
    first = {"id": -1, "kind": "input", "channels": 3, "rows": 8, "cols": 8}
    layer = {"id": 0, "kind": "conv", "inputs": [-1], "K": 4, "C": 3, "rows": 8, "cols": 8}
    assert len(reference_network([first, layer]).layers) == 1
    with pytest.raises(InputError, match=f"lacks {key}"):
        reference_network([first, {k: v for k, v in layer.items() if k != key}])


def test_too_many_memories_are_refused() -> None:
    shipped = load_accelerator()
    sram = shipped.memories[-2]
    with pytest.raises(InputError, match="operand O passes 9 memories"):
        replace(shipped, memories=(*shipped.memories[:-1], *[sram] * 5, shipped.memories[-1]))
    deepest = replace(shipped, memories=(*shipped.memories[:-1], *[sram] * 3, shipped.memories[-1]))
    network = random_network(6)
    assert Scheduler(deepest).schedule(network).iterations >= network.iterations
    assert evaluate(network, deepest, mode="layer-by-layer").iterations == network.iterations


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        load_accelerator(tmp_path / "mine.toml")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="neither shipped nor a file") as error:
        load_accelerator("warp-drive")
    assert "mobile-npu" in error.value.fix


def test_a_reference_entry_without_memories_is_refused() -> None:
    with pytest.raises(InputError, match="memories"):
        reference_accelerator("broken", {"unroll": {"K": 4}, "mac_pJ": 1})
