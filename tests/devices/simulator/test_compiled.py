"""Compiled functions and their cache on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from numba.core import caching

from hwnas.devices.simulator import compiled
from hwnas.devices.simulator.closed_form.plan import plan
from hwnas.devices.simulator.closed_form.stack_search import grow
from hwnas.devices.simulator.detailed.loop_order import best_order

PACKAGE = Path(compiled.__file__).parent


def double(x: int) -> int:
    """Something to compile."""
    return 2 * x


def test_without_a_folder_to_write_to_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only disk; numba says so by a RuntimeError when a function is decorated."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    alone = compiled.cached(double)
    assert alone._cache.cache_path is None
    assert alone(4) == 8


@pytest.mark.parametrize("function", [plan, grow, best_order])
def test_the_files_of_a_cached_function_are_named_by_the_stamp(function: object) -> None:
    assert function._cache.cache_path is not None  # type: ignore[attr-defined]
    assert compiled.STAMP in function._cache._impl.filename_base  # type: ignore[attr-defined]


def test_the_stamp_is_of_every_source_in_every_room(tmp_path: Path) -> None:
    copy = shutil.copytree(PACKAGE, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    assert compiled.stamp_of(copy) == compiled.STAMP
    sources = sorted(copy.rglob("*.py"))
    assert {source.parent.name for source in sources} >= {"closed_form", "detailed"}
    for source in sources:
        before = source.read_text()
        source.write_text(before + "#")
        assert compiled.stamp_of(copy) != compiled.STAMP, source
        source.write_text(before)
    sources[0].rename(copy / "elsewhere.py")
    assert compiled.stamp_of(copy) != compiled.STAMP
