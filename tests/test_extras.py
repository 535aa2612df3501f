"""Without the extras: what measures ONNX files works, and the rest says what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from hwnas.extras import EXTRAS, missing_package

ROOT = Path(__file__).parents[1]
HIDDEN = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(EXTRAS)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


class Place:
    """A folder with two equal networks, where hwnas runs without its extras."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "hidden").mkdir()
        (folder / "hidden/sitecustomize.py").write_text(HIDDEN)
        shape = [1, 3, 64, 64]
        graph = helper.make_graph(
            [helper.make_node("Relu", ["input"], ["output"])],
            "relu",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        )
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        for name in ("old.onnx", "new.onnx"):
            onnx.save(model, folder / name)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.folder / "hidden")}
        return subprocess.run(
            [sys.executable, "-m", "hwnas", *command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_onnx_files_are_measured_and_checked_without_extras(place: Place) -> None:
    for command in (
        ("profile", "old.onnx", "--device", "cpu-1", "--protocol", "quick", "--json"),
        ("compare", "old.onnx", "new.onnx", "--device", "cpu-1", "--max-seconds", "2", "--json"),
        ("history", "old.onnx", "--device", "cpu-1", "--json"),
    ):
        done = place.run(*command)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
    done = place.run("check", "record", "old.onnx", "--device", "cpu-1", "--max-seconds", "3")
    assert done.returncode == 0, done.stderr
    done = place.run("check", "run", "--threshold", "30%", "--max-seconds", "5")
    assert done.returncode in (0, 3), done.stderr


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (("profile", "resnet18", "--device", "cpu"), "torch", "compress"),
        (("partition", "resnet18"), "torch", "compress"),
        (("compress", "resnet18", "--device", "cpu", "--data", "digits"), "torch", "compress"),
        (("report", "nowhere"), "torch", "compress"),
        (("profile", "old.onnx", "--device", "cuda"), "torch", "compress"),
        (("profile", "old.onnx", "--device", "sim-npu"), "numba", "simulator"),
        (("profile", "old.onnx", "--device", "aihub"), "qai_hub", "aihub"),
        (("profile", "old.onnx", "--device", "android-cpu"), "adbutils", "android"),
        (("profile", "old.onnx", "--device", "cpu", "--html", "page.html"), "plotly", "report"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    place: Place, command: tuple[str, ...], package: str, extra: str
) -> None:
    done = place.run(*command)
    assert done.returncode == 2
    assert f"needs the package {package}, which is not installed" in done.stderr
    assert f"fix: pip install 'hwnas[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_overviews_of_devices_go_on_without_extras(place: Place) -> None:
    for command in (("devices", "--json"), ("doctor", "--json")):
        done = place.run(*command)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


def test_each_package_is_in_the_extra_that_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = packages_distributions()
    for package, extra in EXTRAS.items():
        names = {name.lower() for name in found[package]}
        wanted = {requirement.partition(">")[0].lower() for requirement in extras[extra]}
        assert names & wanted, package
    brought = {name.lower() for package in EXTRAS for name in found[package]}
    assert not brought & {requirement.partition(">")[0].lower() for requirement in project["dependencies"]}


def test_other_failures_are_none_of_an_extra() -> None:
    assert missing_package(ModuleNotFoundError("No module named 'nets'", name="nets")) is None
    assert missing_package(ImportError("torch is broken", name="torch")) is None
    assert missing_package(ModuleNotFoundError("no name")) is None
