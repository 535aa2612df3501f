"""The compiled functions that Python calls, with a cache on disk that is never stale.

numba keys a cached function by its own file and the variables it encloses, not by the functions it calls.
So only these entry points are cached, and each encloses a stamp of all sources that are compiled into it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

from . import growth, loop_order, plan

# Globals, because what an entry point encloses must be the same in every process.
_plan, _grow, _order = plan.plan, growth.grow, loop_order.best_order


def _stamp() -> int:
    """A number that changes with any source of this package."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return int(digest.hexdigest()[:15], 16)


def _entries(
    stamp: int, cache: bool = True
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Entry points that enclose the stamp; the comparison with it never holds."""

    @njit(cache=cache, error_model="numpy")
    def plan_entry(
        layers: Any,
        last_use: Any,
        heights: Any,
        widths: Any,
        forced: Any,
        m: Any,
        arrays: Any,
        objective: int,
        best: Any,
        choice: Any,
    ) -> Any:
        if stamp < 0:
            return False
        return _plan(layers, last_use, heights, widths, forced, m, arrays, objective, best, choice)

    @njit(cache=cache, error_model="numpy")
    def grow_entry(
        layers: Any,
        last_use: Any,
        first: int,
        end: int,
        tile_y: int,
        tile_x: int,
        mode: int,
        m: Any,
        arrays: Any,
    ) -> Any:
        if stamp < 0:
            return 0
        return _grow(layers, last_use, first, end, tile_y, tile_x, mode, m, arrays)

    @njit(cache=cache, error_model="numpy")
    def order_entry(nest: Any, hw: Any, fastest_tie: bool) -> Any:
        if stamp < 0:
            return hw.size
        return _order(nest, hw, fastest_tie)

    return plan_entry, grow_entry, order_entry


try:
    plan_network, grow_stack, search_orders = _entries(_stamp())
except RuntimeError:
    # numba finds no folder that it may write to, so every process compiles for itself.
    plan_network, grow_stack, search_orders = _entries(_stamp(), cache=False)
