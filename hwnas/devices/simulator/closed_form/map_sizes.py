"""Sizes of maps inside a growing stack, compiled.

Along one axis a map is described by its stride S relative to the stack's last layer, the offset of its end
(far) and of its start (near), and the first position that later layers read (low). They follow from the
layers after it (Alwani et al., MICRO 2016, section III; DeFiNES, HPCA 2023).

A tiling is (2, 4): for y and x the tile, the remainder (the first tile), the number of tiles, and whether
what the tile before has computed is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.columns import (
    DX,
    DY,
    FX,
    FY,
    IN_CH,
    IN_X,
    IN_Y,
    OY,
    PAD_L,
    PAD_T,
    SCALE_X,
    SCALE_Y,
    SRC0,
    SRC1,
    SRC1_CH,
    SX,
    SY,
    WHOLE,
)

# The axes, and what a tiling says of each.
Y, X = range(2)
TILE, REMAINDER, COUNT, CACHED = range(4)

# Rows of the map geometry; the first four are pairs (y, x).
STRIDE, FAR, NEAR, LOW, SEEN, CHANNELS, HEIGHT, WIDTH = 0, 2, 4, 6, 8, 9, 10, 11
MAP_ROWS = 12


@njit(error_model="numpy")
def clear(maps: Any, want: Any, low: int, high: int) -> None:
    """Forget the maps at indices low to high."""
    maps[STRIDE : STRIDE + 2, low : high + 1] = 0.0
    maps[FAR : FAR + 2, low : high + 1] = -1e18
    maps[NEAR : LOW + 2, low : high + 1] = 1e18
    maps[SEEN:MAP_ROWS, low : high + 1] = 0.0
    want[:, low : high + 1] = -1


@njit(error_model="numpy")
def follow(layer: Any, last: Any, maps: Any, at: int) -> None:
    """Let a map that no layer of the stack reads be made as the last layer's output is: tile by tile."""
    for axis in (Y, X):
        maps[STRIDE + axis, at] = layer[OY + axis] / last[OY + axis]
        maps[FAR + axis, at] = maps[NEAR + axis, at] = maps[LOW + axis, at] = 0.0
    maps[SEEN, at] = 1.0


@njit(error_model="numpy")
def extent(first: bool, tiling: Any, axis: int, size: float, maps: Any, q: int) -> Any:
    """Size of map q along an axis in the first tile, or on average in the later ones."""
    stride, far, near = maps[STRIDE + axis, q], maps[FAR + axis, q], maps[NEAR + axis, q]
    head = min(size, max(0.0, np.ceil(stride * tiling[axis, REMAINDER] + far - 1e-9)))
    if first:
        return head
    if tiling[axis, COUNT] <= 1.0:
        return 0.0
    if tiling[axis, CACHED] > 0.0:
        return max(0.0, (size - head) / (tiling[axis, COUNT] - 1.0))
    return min(size, stride * tiling[axis, TILE] + far - near)


@njit(error_model="numpy")
def largest(tiling: Any, axis: int, size: float, maps: Any, q: int) -> Any:
    """Largest tile of map q along an axis."""
    return max(extent(True, tiling, axis, size, maps, q), extent(False, tiling, axis, size, maps, q))


@njit(error_model="numpy")
def kept(tiling: Any, axis: int, maps: Any, q: int) -> Any:
    """Positions of map q that a cache holds along an axis: from what is read first to what was made last."""
    if tiling[axis, CACHED] == 0.0:
        return 0.0
    return max(0.0, maps[FAR + axis, q] - maps[LOW + axis, q])


@njit(error_model="numpy")
def read_span(layer: Any, axis: int, out: float) -> Any:
    """Input positions behind a number of outputs, clipped to the map."""
    size = float(layer[IN_Y if axis == Y else IN_X])
    return min(size, nest_span(layer, axis, out))


@njit(error_model="numpy")
def nest_span(layer: Any, axis: int, out: float) -> Any:
    """Input positions behind a number of outputs, padding included."""
    if axis == Y:
        kernel, stride, dilation, scale, size = layer[FY], layer[SY], layer[DY], layer[SCALE_Y], layer[IN_Y]
    else:
        kernel, stride, dilation, scale, size = layer[FX], layer[SX], layer[DX], layer[SCALE_X], layer[IN_X]
    if out <= 0.0:
        return 0.0
    if layer[WHOLE] == 1:
        return float(size)
    if scale > 1:
        return np.ceil(out / scale)
    return (out - 1.0) * stride + dilation * (kernel - 1.0) + 1.0


@njit(error_model="numpy")
def touched(layer: Any, axis: int, out: float) -> Any:
    """Share of the input positions behind a number of outputs that are read; strides may skip some."""
    span, kernel = read_span(layer, axis, out), layer[FY if axis == Y else FX]
    if layer[WHOLE] == 1 or layer[SCALE_Y if axis == Y else SCALE_X] > 1:
        return 1.0
    return min(1.0, out * kernel / span)


@njit(error_model="numpy")
def source_of(layer: Any, k: int, at: int) -> Any:
    """Index of a layer's first or second input map, or -1."""
    back = layer[SRC0] if k == 0 else layer[SRC1]
    return max(0, at - back) if back > 0 else -1


@njit(error_model="numpy", inline="always")
def ask(layer: Any, at: int, maps: Any, pending: Any, n_pending: int) -> Any:
    """Pass on what a layer reads of its inputs; returns how many maps now wait for their producer."""
    for k in range(2):
        q = source_of(layer, k, at)
        if q < 0:
            continue
        if maps[SEEN, q] == 0.0:
            maps[SEEN, q] = 1.0
            pending[n_pending] = q
            n_pending += 1
            maps[CHANNELS, q] = layer[IN_CH] if k == 0 else layer[SRC1_CH]
            maps[HEIGHT, q], maps[WIDTH, q] = layer[IN_Y], layer[IN_X]
        for axis in (Y, X):
            stride, far, near, low = STRIDE + axis, FAR + axis, NEAR + axis, LOW + axis
            if layer[WHOLE] == 1:
                maps[stride, q] = max(maps[stride, q], maps[stride, at])
                maps[far, q], maps[near, q], maps[low, q] = 1e9, -1e9, -1e9
                continue
            scale = float(layer[SCALE_Y if axis == Y else SCALE_X])
            s = 1.0 / scale if scale > 1.0 else float(layer[SY if axis == Y else SX])
            pad = float(layer[PAD_T if axis == Y else PAD_L])
            reach = float(layer[DY if axis == Y else DX]) * (layer[FY if axis == Y else FX] - 1) + 1.0
            beyond = max(0.0, reach - s) if scale <= 1.0 else 0.0
            maps[stride, q] = max(maps[stride, q], s * maps[stride, at])
            maps[far, q] = max(maps[far, q], s * maps[far, at] + beyond - pad)
            maps[near, q] = min(maps[near, q], s * maps[near, at] - pad)
            maps[low, q] = min(maps[low, q], s * maps[far, at] - pad)
    left = 0
    for i in range(n_pending):
        if pending[i] != at:
            pending[left] = pending[i]
            left += 1
    return left
