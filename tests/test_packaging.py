"""The shape of the repository: rooms at its root, one package in the wheel, no heavy import at start."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from hwnas.version import __version__

ROOT = Path(__file__).parents[1]
ROOMS = ("devices", "profiles", "compress", "cli")


def build(kind: str, folder: Path, root: Path = ROOT) -> Path:
    """Build an sdist or a wheel of what lies in `root`."""
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)],
        cwd=root,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked archive has no links")
@pytest.mark.parametrize("room", ROOMS)
def test_each_link_at_the_root_leads_to_its_room(room: str) -> None:
    link = ROOT / room
    assert link.is_symlink()
    assert link.resolve() == (ROOT / "hwnas" / room).resolve()


def test_the_wheel_holds_one_top_level_package_with_its_data(tmp_path: Path) -> None:
    names = zipfile.ZipFile(build("wheel", tmp_path)).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"hwnas"}
    assert "hwnas/profiles/catalogue/cpu.toml" in names
    assert "hwnas/compress/library/spaces/donna.toml" in names
    assert {"hwnas/py.typed", "hwnas/page.css", "hwnas/page.js"} <= set(names)


@pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="what is tracked is not known in an unpacked archive"
)
def test_the_source_archive_holds_every_tracked_file_but_the_links(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    tracked = {name for name in listed.stdout.split("\0") if name and not (ROOT / name).is_symlink()}
    with tarfile.open(build("sdist", tmp_path)) as archive:
        held = {member.name.partition("/")[2] for member in archive.getmembers()}
    assert len(tracked) > 300
    assert tracked - held == set()


@pytest.mark.slow
def test_a_wheel_made_from_the_source_archive_works_in_an_environment_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("pip")
    with tarfile.open(build("sdist", tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel = build("wheel", tmp_path, unpacked)

    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fresh)], check=True)
    # What hwnas needs is taken from this environment. Paths of paths are not followed, so an editable
    # install of hwnas is not.
    (packages,) = fresh.glob("lib/python*/site-packages")
    (packages / "this_environment.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    install = ["--python", str(fresh), "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)

    shape = [1, 3, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["output"])],
        "relu",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
    )
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]),
        tmp_path / "net.onnx",
    )

    def run(*command: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    python, hwnas = str(fresh / "bin" / "python"), str(fresh / "bin" / "hwnas")
    assert run(python, "-c", "import hwnas; print(hwnas.__file__)").startswith(str(packages))
    assert run(hwnas, "--version").split() == [wheel.name.split("-")[1]]
    options = ("--device", "cpu-1", "--protocol", "quick", "--json")
    (row,) = json.loads(run(hwnas, "profile", "net.onnx", *options))
    assert row["summary"]["latency_ms"]["value"] > 0


def test_the_image_is_built_of_what_the_dockerfile_copies(tmp_path: Path) -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY "):
            *names, into = line.split()[1:]
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(
                        ROOT / name, tmp_path / into, ignore=shutil.ignore_patterns("__pycache__")
                    )
                else:
                    shutil.copy(ROOT / name, tmp_path / into)
    names = zipfile.ZipFile(build("wheel", tmp_path / "built", tmp_path)).namelist()
    assert "hwnas/cli/main.py" in names


def test_the_version_that_is_cited_is_that_of_the_package() -> None:
    (line,) = (
        each for each in (ROOT / "CITATION.cff").read_text().splitlines() if each.startswith("version:")
    )
    assert line.split()[1] == __version__


def test_the_command_line_starts_without_heavy_packages() -> None:
    heavy = "{'torch', 'plotly', 'onnx', 'onnxruntime', 'timm', 'pymoo', 'sklearn'}"
    code = f"import sys, hwnas.cli.main; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
