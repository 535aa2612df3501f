"""What the campaign shares: a place with a finished run, of which tests spoil copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
from spoilt_runs import Place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("faults")
    tiny.furnish(folder)
    done = tiny.run_hwnas(folder, *tiny.compress_arguments("whole", "--json"))
    assert done.returncode == 0, done.stderr
    return Place(folder, folder / "whole", tiny.of_one_device(json.loads(done.stdout)))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A furnished folder as the current one."""
    tiny.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def copy(place: Place, workplace: Path) -> Path:
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(place.whole, workplace / "whole"))
