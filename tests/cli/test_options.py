"""Options of a dataclass on the command line: each one is there, and what is given is what arrives."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hwnas.cli.main import app as hwnas
from hwnas.cli.options import arguments_of, takes
from hwnas.compress.options import PRESETS, CompressOptions, resolve
from hwnas.errors import InputError
from hwnas.files import decode, encode

TEXT = st.text(alphabet="abz09.:/_=-é", min_size=1, max_size=12)
SIZE = st.integers(1, 10**6)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "preset": st.sampled_from([*PRESETS]),
    "objective": st.lists(st.sampled_from(["latency", "energy", "macs"]), min_size=1, max_size=3).map(tuple),
    "pick": st.lists(TEXT, max_size=3).map(tuple),
    "speedup": st.lists(st.floats(0.1, 1e6), max_size=3).map(tuple),
    "filter": st.sampled_from([None, "device", "macs", "none"]),
    "filter_threshold": st.floats(-1e9, 1e9),
    "loss": st.sampled_from(["nsr", "mse"]),
    "train_on": st.sampled_from([None, "cpu", "cuda"]),
    "executor": st.sampled_from(["local", "ray"]),
    "allow_code": st.booleans(),
    "candidates": st.one_of(st.none(), st.just(0), SIZE),
    "epochs": st.one_of(st.none(), SIZE),
    "seed": st.integers(0, 2**32 - 1),
    "device_option": st.lists(TEXT, max_size=2).map(tuple),
    "quality": st.sampled_from(["loss", "dna", "my-own"]),
}


def parsed(arguments: list[str]) -> CompressOptions:
    """The options that a command with these arguments gets."""
    got: list[CompressOptions] = []

    def command(options: CompressOptions, model: str) -> None:
        got.append(options)

    app = typer.Typer()
    app.command()(takes(CompressOptions)(command))
    done = CliRunner().invoke(app, ["net", *arguments])
    assert done.exit_code == 0, done.output
    return got[0]


@given(st.fixed_dictionaries({"data": TEXT}, optional=VALUES))
def test_what_is_given_is_what_arrives(values: dict[str, Any]) -> None:
    options = CompressOptions(**values)
    assert parsed(arguments_of(options)) == options
    assert decode(CompressOptions, encode(options), "test") == options


def test_defaults_need_no_arguments() -> None:
    assert arguments_of(CompressOptions(data="digits")) == ["--data=digits"]
    assert parsed(["--data=digits"]) == CompressOptions(data="digits")


def test_each_option_is_listed_with_its_help() -> None:
    done = CliRunner().invoke(hwnas, ["compress", "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for field in fields(CompressOptions):
        assert f"--{field.name.replace('_', '-')}" in done.output
    for step in ("The network", "The block library", "The device", "The search", "Where it runs"):
        assert step in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--epochs=0"], "0 is not in the range 1<=x<=1000000"),
        (["--filter-threshold=nan"], "nan is not in the range"),
        (["--speedup=2", "--speedup=1e300"], "1e+300 is not in the range"),
        (["--objective=speed"], "'speed' is not one of latency"),
        (["--loss=l1"], "'nsr', 'mse'"),
        (["--seed=-1"], "-1 is not in the range"),
    ],
)
def test_values_that_are_none_are_refused(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(
        hwnas, ["compress", "net", "--device=cpu", "--data=digits", *arguments], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 2
    assert told in done.output


def test_what_is_left_open_comes_from_the_preset(tmp_path: Any) -> None:
    library, (search,) = resolve(
        CompressOptions(data="digits", preset="quick", epochs=3, threads=1),
        "net",
        ["sim-npu"],
        tmp_path / "r",
    )
    assert (library.per_block, library.epochs, library.train_epochs) == (6, 3, 40)
    assert (search.population, search.protocol, search.filter, search.picks) == (
        20,
        "quick",
        "device",
        ("knee",),
    )
    none = CompressOptions(data="digits", preset="quick", candidates=0, objective=("macs",), speedup=(2.0,))
    library, (search,) = resolve(none, "net", ["sim-npu"], tmp_path / "r")
    assert (library.per_block, search.filter, search.picks) == (0, "macs", ("speedup=2",))
    with pytest.raises(InputError, match="unknown preset 'quik'"):
        resolve(CompressOptions(data="digits", preset="quik"), "net", ["cpu"], tmp_path / "r")
