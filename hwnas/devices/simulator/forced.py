"""What a user may force on a schedule: the overlap mode, the tile, the stacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwnas.devices.simulator import columns as col
from hwnas.errors import InputError

# A tile side that means the whole map.
WHOLE = 1 << 30

MODE_CODES = {
    "fully_recompute": col.RECOMPUTE,
    "h_cached_v_recompute": col.H_CACHED,
    "fully_cached": col.FULLY_CACHED,
}
MODE_NAMES = {code: name for name, code in MODE_CODES.items()}


class Forced(NamedTuple):
    """What is forced on all stacks, as the compiled program takes it.

    Attributes:
        tile_y, tile_x: the tile; 0 leaves it free.
        mode: the overlap mode; -1 leaves it free.
        one_run: 1 keeps every stack between two neighbouring cuts.
    """

    tile_y: int = 0
    tile_x: int = 0
    mode: int = -1
    one_run: int = 0


def mode_name(mode: str) -> str:
    """A mode in the spelling used inside: fully-cached is fully_cached.

    Raises:
        InputError: the mode is unknown.
    """
    spelled = mode.replace("-", "_")
    if spelled not in (*MODE_CODES, "layer_by_layer", "single_layer"):
        known = ", ".join(m.replace("_", "-") for m in ("layer_by_layer", "single_layer", *MODE_CODES))
        raise InputError(f"mode {mode!r} is unknown", f"use one of {known}")
    return spelled


def force(
    rows: NDArray[np.int64],
    mode: str | None = None,
    tile: tuple[int, int] | None = None,
    cuts: Iterable[int] | None = None,
) -> tuple[NDArray[np.int64], Forced]:
    """A network's rows with the cuts that are left, and the forced tile, mode and runs.

    Raises:
        InputError: an unknown mode, a cut that is no layer or divides a branch, a tile below 1.
    """
    forced = Forced()
    spelled = mode_name(mode) if mode is not None else None
    if tile is not None:
        if min(tile) < 1:
            raise InputError(f"tile {tile} is not positive", "give (columns, rows), each at least 1")
        forced = forced._replace(tile_y=min(tile[1], WHOLE), tile_x=min(tile[0], WHOLE))
    if spelled in MODE_CODES:
        forced = forced._replace(mode=MODE_CODES[spelled])
    elif spelled is not None:
        forced = Forced(WHOLE, WHOLE, col.FULLY_CACHED)
    if spelled == "single_layer":
        rows, forced = _cut_everywhere(rows), forced._replace(one_run=1)
    if cuts is not None:
        rows, forced = _cut_at(rows, cuts), forced._replace(one_run=1)
    return rows, forced


def _cut_everywhere(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A cut after every layer, none of whose maps stays on chip. Vectors still belong to the layer before."""
    cut = rows.copy()
    follows = np.append(rows[1:, col.RIDER] == 0, True)
    cut[:, col.UNIT_END] = np.where(follows, col.BARRIER_CUT, 0)
    cut[-1, col.UNIT_END] = col.ARTICULATION
    return cut


def _cut_at(rows: NDArray[np.int64], cuts: Iterable[int]) -> NDArray[np.int64]:
    """Cuts only where they are asked for."""
    wanted = set(cuts) | {len(rows) - 1}
    for position in sorted(wanted):
        if not 0 <= position < len(rows):
            raise InputError(f"stack cut {position} is no layer", f"cut after layers 0 to {len(rows) - 1}")
        if position + 1 < len(rows) and rows[position + 1, col.RIDER]:
            raise InputError(
                f"stack cut {position} divides a map from the pooling that reads it",
                "cut after the vector layers that follow",
            )
    cut = rows.copy()
    for position in range(len(rows)):
        cut[position, col.UNIT_END] = (
            max(int(rows[position, col.UNIT_END]), col.BARRIER_CUT) if position in wanted else 0
        )
    return cut
