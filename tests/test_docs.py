"""The documentation: the site is built without a warning, and what its tutorials say runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)(?: title=\"([\w.]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in ("cli", "functions", "tutorials/first"):
        assert (tmp_path / "site" / page / "index.html").is_file()
    assert "hwnas compress" in (tmp_path / "site/cli/index.html").read_text()
    assert "Interleave two networks" in (tmp_path / "site/functions/index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_to_the_letter(tutorial: Path, tmp_path: Path) -> None:
    """Blocks of shell and Python are run in order; a line that needs something else says `# needs:`."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
    }
    found = BLOCK.findall(tutorial.read_text())
    assert found
    for language, title, text in found:
        if title:
            (tmp_path / title).write_text(text)
            continue
        if language not in ("sh", "python"):
            continue
        lines = "\n".join(line for line in text.splitlines() if "# needs:" not in line)
        command = ["bash", "-e", "-c", lines] if language == "sh" else [sys.executable, "-c", lines]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
