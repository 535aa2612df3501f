"""Odd ONNX files through the commands: each one says the same, with exit code 2 and a fix, or measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Hwnas, refused
from onnx import TensorProto, helper, numpy_helper

MODELLED = ("--device", "modelled.toml")
FAST = ("--device", "cpu-1", "--max-seconds", "1")


def value(name: str, shape: Sequence[int | str] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(name: str, *inputs: onnx.ValueInfoProto, ir_version: int = 8, weight_first: bool = False) -> None:
    """A convolution of the sum of the inputs."""
    names = [info.name for info in inputs]
    weights = numpy_helper.from_array(np.full((4, 3, 3, 3), 0.1, np.float32), "k")
    nodes = [helper.make_node("Sum", names, ["s"]), helper.make_node("Conv", ["s", "k"], ["y"])]
    taken = [value("k", [4, 3, 3, 3]), *inputs] if weight_first else list(inputs)
    graph = helper.make_graph(nodes, "g", taken, [value("y", ["a", "b", "c", "d"])], [weights])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), name)


@pytest.fixture
def files(workplace: Path) -> Path:
    Path("pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13\n")
    Path("page.onnx").write_text("<html><body>Not Found</body></html>")
    Path("empty.onnx").write_bytes(b"")
    save("open.onnx", value("x", ["N", 3, "H", "W"]))
    save("batch.onnx", value("x", ["N", 3, 16, 16]))
    save("fixed.onnx", value("x", [1, 3, 16, 16]))
    save("two.onnx", value("a", [1, 3, 16, 16]), value("b", [1, 3, 16, 16]))
    save("old.onnx", value("x", [1, 3, 16, 16]), ir_version=3, weight_first=True)
    node = helper.make_node("MatMul", ["x", "m"], ["y"])
    weights = numpy_helper.from_array(np.ones((8, 8), np.float32), "m")
    graph = helper.make_graph(
        [node], "g", [value("x", ["seq", 1, 8])], [value("y", ["seq", 1, 8])], [weights]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "seq.onnx")
    return workplace


COMMANDS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "profile": lambda file: ("profile", file, *MODELLED),
    "profile on the host": lambda file: ("profile", file, "--device", "cpu-1", "--protocol", "quick"),
    "compare": lambda file: ("compare", "fixed.onnx", file, *MODELLED),
    "check record": lambda file: ("check", "record", file, *MODELLED),
    "check run": lambda file: ("check", "run", file, "--baseline", "fixed.onnx", *MODELLED),
    "check run against it": lambda file: ("check", "run", "fixed.onnx", "--baseline", file, *MODELLED),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("file", "cause", "fix"),
    [
        ("pointer.onnx", "Git LFS pointer", "git lfs pull"),
        ("page.onnx", "a page of HTML", "download"),
        ("empty.onnx", "it is empty", ""),
        ("open.onnx", "axis 0 (N), axis 2 (H), axis 3 (W) of input 'x' are open", "--input-shape 3xNxN"),
        ("seq.onnx", "axis 0 (seq) of input 'x' is open", "--input-shape Nx1x8"),
    ],
)
@pytest.mark.usefixtures("files")
def test_every_command_says_the_same(hwnas: Hwnas, command: str, file: str, cause: str, fix: str) -> None:
    refused(hwnas(*COMMANDS[command](file)), cause, fix)


SIZED = {
    "open.onnx": ("--input-shape", "3x24x16", "--batch", "2"),
    "batch.onnx": ("--batch", "3"),
    "seq.onnx": ("--input-shape", "5x1x8"),
}


@pytest.mark.slow
@pytest.mark.parametrize("file", SIZED)
@pytest.mark.usefixtures("files")
def test_the_options_set_what_is_open_in_every_command(hwnas: Hwnas, file: str) -> None:
    options = SIZED[file]
    done = hwnas("profile", file, "--device", "cpu-1", "--protocol", "quick", *options, "--json")
    assert f'"batch_size": {options[-1] if "--batch" in options else 1}.0' in done.out
    done = hwnas("compare", file, file, *FAST, *options, "--json")
    assert json.loads(done.out)["median_ms"][0] > 0
    assert hwnas("check", "record", file, *FAST, *options).code == 0
    baseline = json.loads(Path("hwnas-baseline.json").read_text())
    assert baseline.get("batch", 0) == (int(options[-1]) if "--batch" in options else 0)
    # Without the options: the baseline file knows them, and the network is the same.
    (network,) = json.loads(hwnas("check", "run", "--json").out)["networks"]
    assert network["verdict"] == "unchanged"
    other = Path("other.onnx")
    other.write_bytes(Path(file).read_bytes())
    assert hwnas("check", "run", "other.onnx", "--baseline", file, *FAST, *options).code == 0


@pytest.mark.usefixtures("files")
def test_sizes_that_a_file_fixes_are_not_changed(hwnas: Hwnas) -> None:
    for command in COMMANDS.values():
        done = hwnas(*command("fixed.onnx"), "--input-shape", "3x32x32")
        refused(done, "axis 2 of input 'x' is fixed to 16, and --input-shape says 32", "1x3x16x16")
    host = ("--device", "cpu-1")
    assert "cannot take a batch of 4" in hwnas("profile", "fixed.onnx", *host, "--batch", "4").err
    refused(
        hwnas("compare", "fixed.onnx", "fixed.onnx", *host, "--batch", "4"), "cannot take a batch of 4", "1"
    )
    refused(hwnas("check", "record", "fixed.onnx", *host, "--batch", "4"), "cannot take a batch of 4", "open")


@pytest.mark.usefixtures("files")
def test_what_needs_a_torch_network_refuses_a_file_by_cause(hwnas: Hwnas) -> None:
    compress = ("compress", "fixed.onnx", "--device", "cpu-1", "--data", "digits", "--preset", "quick")
    for arguments in (("partition", "fixed.onnx"), ("partition", "absent.onnx"), compress):
        refused(hwnas(*arguments), "is an ONNX file, which can be measured and not", "module:function")


@pytest.mark.usefixtures("files")
def test_int8_of_a_file(hwnas: Hwnas) -> None:
    def profile(file: str) -> str:
        done = hwnas("profile", file, "--device", "cpu-int8", "--protocol", "quick")
        assert "Traceback" not in done.err
        return "" if done.code == 0 else done.err

    assert profile("fixed.onnx") == profile("old.onnx") == ""
    assert "takes a float (1, 3, 16, 16), b float (1, 3, 16, 16)" in profile("two.onnx")


@pytest.mark.usefixtures("files")
def test_several_inputs_are_measured_on_the_host(hwnas: Hwnas) -> None:
    assert hwnas("profile", "two.onnx", "--device", "cpu-1", "--protocol", "quick").code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("files")
def test_a_simulator_takes_one_input_and_its_own_batch(hwnas: Hwnas) -> None:
    assert "the graph has 2 inputs: a, b" in hwnas("profile", "two.onnx", "--device", "sim-npu").err
    assert hwnas("profile", "old.onnx", "--device", "sim-npu").code == 0
    assert hwnas("profile", "batch.onnx", "--device", "sim-npu", "--batch", "4").code == 0
