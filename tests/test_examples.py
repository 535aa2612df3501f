"""The examples: each script has a notebook of the same cells, and the notebooks run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
TOGETHER = {
    ("profile_and_compare",): "times as long",
    ("own_network_and_data",): "of the latency",
    ("other_libraries",): "ms on a simulated NPU",
    ("three_devices", "run_in_pandas"): "of the reference",
}
"""Those that read what others leave behind them; what the last one prints."""


def cells(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_has_the_cells_of_its_script(script: Path) -> None:
    """Made by `jupytext --to notebook examples/NAME.py`."""
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert cells(notebook) == cells(jupytext.read(script))


def test_every_example_is_run() -> None:
    assert {name for names in TOGETHER for name in names} == {script.stem for script in SCRIPTS}


@pytest.mark.slow
@pytest.mark.parametrize("names", TOGETHER, ids="-".join)
def test_notebooks_run(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
        where = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert TOGETHER[names] in "".join(output.get("text", "") for output in outputs)
