"""The compiled entry points and their cache on disk."""

from __future__ import annotations

import importlib

import pytest
from numba.core import caching

from hwnas.devices.simulator import compiled


def test_without_a_folder_to_write_to_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only disk; numba says so by a RuntimeError when a function is decorated."""
    assert compiled.plan_network._cache.cache_path is not None  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(caching.CacheImpl, "_locator_classes", [])
        importlib.reload(compiled)
        assert compiled.plan_network._cache.cache_path is None  # type: ignore[attr-defined]
    importlib.reload(compiled)
