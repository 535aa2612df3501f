"""Options of a dataclass on the command line: each one is there, and what is given is what arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_type_hints

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hwnas import api
from hwnas.cli.main import app as hwnas
from hwnas.cli.options import arguments_of, takes
from hwnas.compress.library.space import space_names
from hwnas.compress.options import (
    CompressOptions,
    EvaluateOptions,
    ExtendOptions,
    PartitionOptions,
    SpaceOptions,
)
from hwnas.compress.presets import PRESETS, resolve
from hwnas.compress.run.directory import RunRecord, versions
from hwnas.errors import InputError
from hwnas.files import decode, encode
from hwnas.options import Help, read_fraction, read_shape
from hwnas.profiles.options import CheckOptions, CompareOptions, ProfileOptions, RecordOptions

KINDS: list[tuple[type[Any], list[str]]] = [
    (CompressOptions, ["compress"]),
    (ProfileOptions, ["profile"]),
    (CompareOptions, ["compare"]),
    (RecordOptions, ["check", "record"]),
    (CheckOptions, ["check", "run"]),
    (PartitionOptions, ["partition"]),
    (SpaceOptions, ["space"]),
    (ExtendOptions, ["extend"]),
    (EvaluateOptions, ["evaluate"]),
]

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


def help_of(kind: type[Any], name: str) -> Help:
    """What an option says of itself."""
    found = get_args(get_type_hints(kind, include_extras=True)[name])
    return next(each for each in found if isinstance(each, Help))


def parsed(arguments: list[str], kind: type[Any] = CompressOptions) -> Any:
    """The options that a command with these arguments gets."""
    got: list[Any] = []

    def command(options: Any, model: str) -> None:
        got.append(options)

    app = typer.Typer()
    app.command()(takes(kind)(command))
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


@pytest.mark.parametrize(("kind", "command"), KINDS)
def test_each_option_is_listed_with_its_help(kind: type[Any], command: list[str]) -> None:
    done = CliRunner().invoke(hwnas, [*command, "--help"], env={"COLUMNS": "400"})
    assert done.exit_code == 0
    for field in fields(kind):
        said = help_of(kind, field.name)
        assert f"--{field.name.replace('_', '-')}" in done.output
        assert said.step in done.output
        assert said.text.replace("`", "")[:40] in done.output
        assert said.shown.partition(";")[0] in done.output


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS[1:-2]])
def test_a_command_without_options_goes_by_the_defaults(kind: type[Any]) -> None:
    assert parsed([], kind) == kind()


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (api.profile, ProfileOptions),
        (api.compare, CompareOptions),
        (api.record, RecordOptions),
        (api.check, CheckOptions),
        (api.partition, PartitionOptions),
        (api.find_cuts, PartitionOptions),
        (api.find_candidates, SpaceOptions),
        (api.Run.extend, ExtendOptions),
        (api.evaluate, EvaluateOptions),
    ],
)
def test_functions_and_commands_have_the_same_options(
    function: Callable[..., object], kind: type[Any]
) -> None:
    named = {*signature(function).parameters} - {
        "models",
        "model",
        "checkpoint",
        "first",
        "second",
        "progress",
        "on_result",
        "self",
    }
    options = {field.name for field in fields(kind)}
    assert named - {"device"} <= options
    assert function is api.profile or options <= named


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
def test_a_default_that_is_read_from_a_text_is_shown_as_that_text(kind: type[Any]) -> None:
    for field in fields(kind):
        said = help_of(kind, field.name)
        if said.read is not None and field.default not in (None, MISSING):
            assert said.read(said.shown, "--it") == field.default


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=4).map(tuple),
    st.sampled_from("x×,"),
    st.integers(1, 999),
    st.lists(TEXT, max_size=2).map(tuple),
)
def test_shapes_and_shares_are_read_from_texts(
    shape: tuple[int, ...], between: str, mille: int, device_option: tuple[str, ...]
) -> None:
    arguments = [f"--input-shape={between.join(map(str, shape))}", f"--precision={mille / 10}%", "--blocks"]
    options = parsed([*arguments, *(f"--device-option={each}" for each in device_option)], ProfileOptions)
    assert options.precision == pytest.approx(mille / 1000)
    assert options == ProfileOptions(
        input_shape=shape, precision=options.precision, blocks=True, device_option=device_option
    )


def test_an_empty_shape_is_left_open() -> None:
    assert parsed(["--input-shape="], ProfileOptions) == ProfileOptions()


@given(st.text(min_size=1, max_size=8))
def test_any_text_is_a_share_or_refused_by_name(text: str) -> None:
    for read, name in ((read_fraction, "--threshold"), (read_shape, "--input-shape")):
        try:
            value = read(text, name)
        except InputError as refused:
            assert refused.cause.startswith(f"{name} is {text!r}")
        else:
            assert 0 < value < 1 if isinstance(value, float) else min(value or (0,)) > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["profile", "net", "--device=cpu", "--max-seconds=0"], "0.0 is not in the range 0.1<=x<="),
        (["profile", "net", "--device=cpu", "--max-seconds=nan"], "nan is not in the range"),
        (["profile", "net", "--device=cpu", "--batch=0"], "0 is not in the range 1<=x<=1000000"),
        (["compare", "a", "b", "--device=cpu", "--max-seconds=0.5"], "0.5 is not in the range 1<=x<="),
        (["check", "record", "net", "--device=cpu", "--batch=1.5"], "Input should be a valid integer"),
        (["check", "run", "--max-seconds=1e10"], "is not in the range"),
    ],
)
def test_values_that_no_measurement_takes_are_refused(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(hwnas, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert told in done.output


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


def options_of(command: Any, path: str = "") -> dict[str, set[str]]:
    """The long options of each command below one."""
    found = {}
    for name, each in getattr(command, "commands", {}).items():
        inner = f"{path} {name}".strip()
        found[inner] = {opt for option in each.params for opt in option.opts if opt.startswith("--")}
        found |= options_of(each, inner)
    return found


def test_an_option_of_another_command_is_told_whose_it_is() -> None:
    known = options_of(typer.main.get_command(hwnas))
    everything = set().union(*known.values())
    for command in ("check record", "profile", "partition", "devices"):
        for option in sorted(everything - known[command]):
            done = CliRunner().invoke(hwnas, [*command.split(), option], env={"COLUMNS": "300"})
            assert done.exit_code == 2
            told = done.output.split(f"No such option: {option}; it belongs to hwnas ")[1].splitlines()[0]
            assert option in known[told.split(",")[0].removesuffix(" and others").strip("│ ")]
    done = CliRunner().invoke(hwnas, ["profile", "--spedup"], env={"COLUMNS": "300"})
    assert "belongs" not in done.output


def test_what_is_left_open_comes_from_the_preset(tmp_path: Any) -> None:
    library, (search,) = resolve(
        CompressOptions(data="digits", preset="quick", epochs=3, threads=1),
        "net",
        ["sim-npu"],
        tmp_path / "r",
    )
    assert (library.per_block, library.epochs, library.train_epochs) == (6, 3, 24)
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


@given(
    st.fixed_dictionaries(
        {"data": TEXT},
        optional={name: VALUES[name] for name in ("candidates", "epochs", "loss", "seed", "train_on")},
    )
)
def test_what_a_run_is_made_with_is_read_back_from_its_record(values: dict[str, Any]) -> None:
    for preset in PRESETS:
        options = CompressOptions(preset=preset, threads=1, **values)
        with TemporaryDirectory() as folder:
            library, _ = resolve(options, "net", [], Path(folder))
            written = RunRecord(settings=library, versions=versions(), hashes={"data": "0"})
            written.write(Path(folder))
            assert RunRecord.read(Path(folder)) == written


@pytest.mark.parametrize("command", ["compress", "space", "extend"])
def test_every_space_is_named_where_one_is_chosen(command: str) -> None:
    done = CliRunner().invoke(hwnas, [command, "--help"], env={"COLUMNS": "400"})
    (line,) = [line for line in done.output.splitlines() if " --space " in line and ".toml file" in line]
    names = line.partition("andidates")[2].partition(":")[2].partition(", or a .toml file")[0]
    assert names.strip().split(", ") == sorted(space_names())
