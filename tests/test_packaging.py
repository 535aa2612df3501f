"""The shape of the repository: rooms at its root, one package in the wheel, no heavy import at start."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("devices", "profiles", "compress", "cli")


@pytest.mark.parametrize("room", ROOMS)
def test_each_link_at_the_root_leads_to_its_room(room: str) -> None:
    link = ROOT / room
    assert link.is_symlink()
    assert link.resolve() == (ROOT / "hwnas" / room).resolve()


def test_the_wheel_holds_one_top_level_package_with_its_data(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"hwnas"}
    assert "hwnas/profiles/catalogue/cpu.toml" in names
    assert "hwnas/compress/spaces/donna.toml" in names
    assert {"hwnas/py.typed", "hwnas/page.css", "hwnas/page.js"} <= set(names)


def test_the_command_line_starts_without_heavy_packages() -> None:
    heavy = "{'torch', 'plotly', 'onnx', 'onnxruntime', 'timm', 'pymoo', 'sklearn'}"
    code = f"import sys, hwnas.cli.main; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
