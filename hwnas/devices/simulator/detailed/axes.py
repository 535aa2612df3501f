"""How large every map of a stack is in each kind of tile, one axis at a time.

Both axes obey the same rules, so a tile is a pair of axis positions. Positions with equal sizes form
a class with a count; a stack needs at most four classes per axis (the remainder comes first).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from hwnas.devices.simulator.detailed.stacks import Stack
from hwnas.devices.simulator.layers import Layer, Network

Edge = tuple[int, int]  # (consumer's position, index of its input)


@dataclass(frozen=True)
class AxisTile:
    """Sizes along one axis for one class of tiles.

    Attributes:
        count: tiles of this class in a row (or column).
        first, last: whether a cache can be read (not first) and has to be written (not last).
        out: rows (columns) that every layer computes and every source delivers.
        need: rows a consumer's input spans, cached ones included; edge -> size.
        overlap: how many of them a cache can hold from the tile before; edge -> size.
        keep: rows of a map to keep for the next tile; map -> size.
    """

    count: int
    first: bool
    last: bool
    out: dict[int, int]
    need: dict[Edge, int]
    overlap: dict[Edge, int]
    keep: dict[int, int]


def axis_tiles(
    network: Network, stack: Stack, axis: str, tile: int, cached: bool, sizes: dict[int, int]
) -> list[AxisTile]:
    """Classes of tiles along an axis.

    Args:
        axis: "y" or "x".
        tile: rows (columns) of the last layer's output in one tile.
        cached: whether what the tile before has computed is kept.
        sizes: full size of every map along the axis; see full_sizes.
    """
    if network.padded:
        return _by_intervals(network, stack, axis, tile, cached, sizes)
    return _by_sizes(network, stack, axis, tile, cached, sizes)


def full_sizes(network: Network, axis: str) -> dict[int, int]:
    """Size of every map along an axis; -1 is the network's input.

    Without padding maps grow backwards from the last output: a map is as large as its largest consumer
    needs (DeFiNES, backpropagation of tile sizes).
    """
    layers = network.layers
    if network.padded:
        own = {p: (layer.oy if axis == "y" else layer.ox) for p, layer in enumerate(layers)}
        own[-1] = network.input_rows if axis == "y" else network.input_cols
        return own
    sizes: dict[int, int] = {}
    for position in range(len(layers) - 1, -1, -1):
        layer = layers[position]
        if position not in sizes:
            sizes[position] = layer.oy if axis == "y" else layer.ox
        for source in layer.inputs:
            sizes[source] = max(sizes.get(source, 0), window(layer, axis, sizes[position]))
    return sizes


def window(layer: Layer, axis: str, outputs: int) -> int:
    """Input positions that a number of outputs touches: (o - 1) s + d (k - 1) + 1 where windows meet.

    Where the stride skips positions only those that are touched count (ZigZag's partially relevant loops).
    """
    if axis == "y":
        kernel, stride, dilation = layer.fy, layer.stride_y, layer.dilation_y
    else:
        kernel, stride, dilation = layer.fx, layer.stride_x, layer.dilation_x
    common = gcd(stride, dilation)
    return outputs * kernel - max(0, kernel - stride // common) * (outputs - dilation // common)


def _stride(layer: Layer, axis: str) -> int:
    return layer.stride_y if axis == "y" else layer.stride_x


def _by_sizes(
    network: Network, stack: Stack, axis: str, tile: int, cached: bool, sizes: dict[int, int]
) -> list[AxisTile]:
    total = sizes[stack.last]
    tile = min(tile, total)
    remainder = total % tile or tile
    count = 1 + (total - remainder) // tile
    first = _backpropagate(network, stack, axis, remainder, False)
    first = replace(first, first=True, last=count == 1)
    if count == 1:
        return [first]
    inner = _backpropagate(network, stack, axis, tile, cached)
    # The second tile may read from where the first one wrote, which need not be where later ones do.
    tiles = [first]
    if count > 2:
        tiles.append(replace(inner, count=1, first=False, last=False))
    if count > 3:
        tiles.append(replace(inner, count=count - 3, first=False, last=False))
    tiles.append(replace(inner, count=1, first=False, last=True))
    return tiles


def _backpropagate(network: Network, stack: Stack, axis: str, outputs: int, cached: bool) -> AxisTile:
    """Sizes of one tile from the last layer backwards (DeFiNES, HPCA 2023, steps 1 and 2).

    With overlap v = i - o s a cached consumer needs i - v fresh positions; a map is as large as its
    largest consumer needs. Consumers run behind each other by their lag
    lag' = s lag - floor((i - o s + s - 1) / 2) + v, and the cache spans max(lag) - min(lag - v).
    """
    out: dict[int, int] = {stack.last: outputs}
    need: dict[Edge, int] = {}
    overlap: dict[Edge, int] = {}
    lags: dict[int, list[tuple[int, int]]] = {}
    for position in reversed(stack.layers):
        layer = network.layers[position]
        own = out[position]
        lag = max((lg for lg, _ in lags.get(position, [])), default=0)
        stride = _stride(layer, axis)
        for index, source in enumerate(layer.inputs):
            span = window(layer, axis, own)
            v = max(0, span - own * stride)
            need[position, index] = span
            overlap[position, index] = v
            lags.setdefault(source, []).append(
                (stride * lag - (span - own * stride + stride - 1) // 2 + v, v)
            )
            out[source] = max(out.get(source, 0), span - v if cached else span)
    keep = {m: max(lg for lg, _ in ls) - min(lg - v for lg, v in ls) for m, ls in lags.items()}
    return AxisTile(1, True, True, out, need, overlap, keep)


def _by_intervals(
    network: Network, stack: Stack, axis: str, tile: int, cached: bool, sizes: dict[int, int]
) -> list[AxisTile]:
    """Sizes with zero padding: exact intervals of every tile, equal neighbours merged into classes."""
    total = sizes[stack.last]
    tile = min(tile, total)
    remainder = total % tile or tile
    starts = [0, *range(remainder, total, tile)]
    ones: list[AxisTile] = []
    done: dict[int, int] = {}
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else total
        one, spans, lows = _interval_tile(network, stack, axis, (start, end), done if cached else {}, sizes)
        if ones:
            # What the tile before must keep is what this one still reads of it.
            ones[-1] = replace(ones[-1], keep={m: max(0, done.get(m, 0) - low) for m, low in lows.items()})
        ones.append(replace(one, first=number == 0, last=number == len(starts) - 1))
        done = {m: max(done.get(m, 0), stop) for m, (_, stop) in spans.items()}
    tiles: list[AxisTile] = []
    for one in ones:
        # The second tile stays apart: it may read from where the first one wrote (see _by_sizes).
        if len(tiles) > 2 and replace(tiles[-1], count=1) == one:
            tiles[-1] = replace(tiles[-1], count=tiles[-1].count + 1)
        else:
            tiles.append(one)
    return tiles


def input_interval(layer: Layer, axis: str, start: int, end: int, size: int) -> tuple[int, int]:
    """Real input positions behind the outputs [start, end); padding and what lies outside is clipped."""
    if layer.whole_input:
        return 0, size
    if axis == "y":
        kernel, stride, dilation, pad, scale = (
            layer.fy,
            layer.stride_y,
            layer.dilation_y,
            layer.pads[0],
            layer.scale_y,
        )
    else:
        kernel, stride, dilation, pad, scale = (
            layer.fx,
            layer.stride_x,
            layer.dilation_x,
            layer.pads[1],
            layer.scale_x,
        )
    if scale > 1:
        return start // scale, min(size, -(-end // scale))
    low = start * stride - pad
    high = (end - 1) * stride - pad + dilation * (kernel - 1) + 1
    low, high = max(0, low), min(size, high)
    return (low, high) if low < high else (min(low, size - 1), min(low, size - 1) + 1)


def _edge_interval(layer: Layer, index: int, axis: str, span: tuple[int, int], size: int) -> tuple[int, int]:
    if index == layer.second or size == 1:
        return 0, size
    return input_interval(layer, axis, span[0], span[1], size)


def _interval_tile(
    network: Network,
    stack: Stack,
    axis: str,
    tile: tuple[int, int],
    done: dict[int, int],
    sizes: dict[int, int],
) -> tuple[AxisTile, dict[int, tuple[int, int]], dict[int, int]]:
    """One tile: its sizes, the interval of every map it touches and the first position it reads of each."""
    spans: dict[int, tuple[int, int]] = {stack.last: tile}
    lows: dict[int, int] = {}
    need: dict[Edge, int] = {}
    overlap: dict[Edge, int] = {}
    out: dict[int, int] = {}
    for position in reversed(stack.layers):
        layer = network.layers[position]
        start, end = spans.get(position, (0, 0))
        start = max(start, min(end, done.get(position, 0)))
        out[position] = end - start
        for index, source in enumerate(layer.inputs):
            if start == end:
                need[position, index] = overlap[position, index] = 0
                continue
            low, high = _edge_interval(layer, index, axis, (start, end), sizes[source])
            need[position, index] = high - low
            overlap[position, index] = max(0, min(high, done.get(source, 0)) - low)
            lows[source] = min(low, lows.get(source, low))
            before = spans.get(source, (low, high))
            spans[source] = (min(low, before[0]), max(high, before[1]))
    for source in stack.sources:
        low, high = spans.get(source, (0, 0))
        out[source] = high - max(low, min(high, done.get(source, 0)))
    return AxisTile(1, False, False, out, need, overlap, dict.fromkeys(spans, 0)), spans, lows
