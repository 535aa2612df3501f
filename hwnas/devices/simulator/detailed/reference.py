"""Layer lists and accelerators in the form of the DeFiNES reference file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.devices.simulator.accelerator import Accelerator, Memory, Operand
from hwnas.devices.simulator.layers import Layer, Network
from hwnas.errors import InputError

_NAMES: dict[str, Operand] = {"I1": "I", "I2": "W", "O": "O", "I": "I", "W": "W"}
_KINDS = {
    "conv": "conv",
    "depthwise_conv": "conv",
    "grouped_conv": "conv",
    "fc": "conv",
    "gemm": "conv",
    "linear": "conv",
    "pool": "pool",
    "maxpool": "pool",
    "avgpool": "pool",
    "add": "elementwise",
    "eltwise": "elementwise",
    "elementwise": "elementwise",
    "mul": "elementwise",
    "sum": "elementwise",
    "concat": "concat",
}


def reference_accelerator(
    name: str, description: Mapping[str, Any], clock_mhz: float = 1000.0
) -> Accelerator:
    """Read one entry of the reference file's `accelerators`.

    Raises:
        InputError: a key is missing or its value makes no sense.
    """
    try:
        memories = tuple(
            Memory(
                name=str(m["name"]),
                operands=tuple(_NAMES[o] for o in m["operands"]),
                size_bits=round(float(m["bytes"]) * 8),
                read_bits_per_cycle=int(m["read_bits_per_cycle"]),
                write_bits_per_cycle=int(m["write_bits_per_cycle"]),
                read_pj=float(m["read_pJ_per_word"]),
                write_pj=float(m["write_pJ_per_word"]),
                ports=(int(m["ports"][0]), int(m["ports"][1]), int(m["ports"][2])),
                instances=int(m.get("instances", 1)),
            )
            for m in description["memories"]
        )
        unroll = tuple((str(dim), int(size)) for dim, size in description["unroll"].items())
        mac_pj = float(description["mac_pJ"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"accelerator {name}: {error!r} is missing or has an unusable value",
            "compare it with the accelerators of the reference file",
        ) from error
    return Accelerator(name, unroll, mac_pj, memories, clock_mhz)


def reference_network(
    layer_list: Sequence[Mapping[str, Any]],
    name: str = "network",
    *,
    padded: bool = False,
    use_spatial: bool = False,
) -> Network:
    """Read one entry of the reference file's `workloads[...]["layer_list"]`.

    Args:
        padded: False keeps the reference's convention: no zero padding, so every map is as large as its
            consumers need, counted backwards from the last output. True takes the rows and columns as
            they stand, with the padding that makes them fit.
        use_spatial: take the unrolling written beside a layer (it belongs to one array); otherwise derive
            it: every array dimension takes min(size of the dimension, its own size).

    Raises:
        InputError: an unknown kind, or an input that does not exist.
    """
    position: dict[Any, int] = {}
    layers: list[Layer] = []
    first: Mapping[str, Any] | None = None
    for number, entry in enumerate(layer_list):
        wanted = ("channels",) if entry.get("kind") == "input" else ("inputs",)
        lacking = [key for key in ("id", "kind", "rows", "cols", *wanted) if key not in entry]
        if lacking:
            raise InputError(
                f"entry {number} of workload {name} lacks {', '.join(lacking)}",
                "compare it with the layer lists of the reference file",
            )
        if entry["kind"] == "input":
            position[entry["id"]] = -1
            first = entry
            continue
        if entry["kind"] not in _KINDS:
            raise InputError(
                f"layer {entry['id']} has the unknown kind {entry['kind']!r}",
                f"use one of {', '.join(sorted(_KINDS))}",
            )
        missing = [i for i in entry["inputs"] if i not in position]
        if missing:
            raise InputError(
                f"layer {entry['id']} reads from {missing}, which do not come before it",
                "list layers in topological order",
            )
        position[entry["id"]] = len(layers)
        layers.append(_layer(entry, tuple(position[i] for i in entry["inputs"]), use_spatial))
    if first is None or not layers:
        raise InputError(
            f"workload {name} has no input or no layers", 'start the list with an entry of kind "input"'
        )
    rows, cols, channels = int(first["rows"]), int(first["cols"]), int(first["channels"])
    if padded:
        layers = [_padded(layer, layers, rows, cols) for layer in layers]
    return Network(name, tuple(layers), channels, rows, cols, padded=padded)


def _layer(entry: Mapping[str, Any], inputs: tuple[int, ...], use_spatial: bool) -> Layer:
    kind = _KINDS[entry["kind"]]
    k, c, g = (int(entry.get(key, 1)) for key in ("K", "C", "G"))
    if kind in ("elementwise", "concat", "pool") and g == 1:
        g, k, c = max(k, c), 1, 1
    if (
        kind == "conv"
        and entry.get("has_weights") is False
        and entry["kind"] not in ("conv", "depthwise_conv")
    ):
        kind = "pool"
    spatial = (
        tuple((str(d), int(s)) for d, s in entry.get("spatial_unrolling", {}).items()) if use_spatial else ()
    )
    return Layer(
        name=str(entry["id"]),
        kind=kind,
        inputs=inputs,
        k=k,
        c=c,
        g=g,
        oy=int(entry["rows"]),
        ox=int(entry["cols"]),
        fy=int(entry.get("FY", 1)),
        fx=int(entry.get("FX", 1)),
        stride_y=int(entry.get("stride_y", 1)),
        stride_x=int(entry.get("stride_x", 1)),
        dilation_y=int(entry.get("dilation_y", 1)),
        dilation_x=int(entry.get("dilation_x", 1)),
        spatial=spatial,
        op=str(entry["kind"]),
    )


def _padded(layer: Layer, layers: Sequence[Layer], rows: int, cols: int) -> Layer:
    """The same layer with the zero padding that its rows and columns imply."""
    from dataclasses import replace

    source = layer.inputs[0]
    have_y, have_x = (rows, cols) if source < 0 else (layers[source].oy, layers[source].ox)
    need_y = (layer.oy - 1) * layer.stride_y + layer.dilation_y * (layer.fy - 1) + 1
    need_x = (layer.ox - 1) * layer.stride_x + layer.dilation_x * (layer.fx - 1) + 1
    extra_y, extra_x = max(0, need_y - have_y), max(0, need_x - have_x)
    return replace(layer, pads=(extra_y // 2, extra_x // 2, extra_y - extra_y // 2, extra_x - extra_x // 2))


def load_reference(path: Path) -> dict[str, Any]:
    """The parsed reference file.

    Raises:
        InputError: the file is missing or no JSON.
    """
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as a reference file: {error}", "give the path of defines.json"
        ) from error
    return loaded
