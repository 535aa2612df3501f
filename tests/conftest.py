"""What all tests share: places of their own, and property tests that are the same at every run."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("hwnas", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("hwnas")

# A suite in the background of a shell ignores interrupts, under nohup hang-ups, and so would every process
# that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep locks, history and profiles of the user out of the tests, and the tests out of them."""
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HWNAS_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HWNAS_DATA_DIR", raising=False)
