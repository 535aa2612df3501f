"""A workplace and a way to call `hwnas` in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from command_line import Hwnas, Run


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """One thread, whatever a run before this one has set."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A furnished folder that is the working directory, with a tinynet.py of its own."""
    sys.modules.pop("tinynet", None)
    tiny.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield tmp_path
    sys.modules.pop("tinynet", None)


@pytest.fixture
def hwnas(capsys: pytest.CaptureFixture[str]) -> Hwnas:
    return lambda *arguments: Run(capsys, arguments)
