"""A depth-first (layer-fused) processor without hardware: latency, energy, DRAM traffic of whole networks.

Two models share layers, accelerators and tile geometry. `evaluate` costs a given schedule in detail: it
searches the loop order of every layer tile. `Scheduler` finds the best schedule with a closed-form model
and an exact dynamic program, hundreds of networks a second. docs/simulator.md states both, with sources.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwnas.devices.simulator.accelerator import Accelerator, Memory
    from hwnas.devices.simulator.closed_form.table import Table
    from hwnas.devices.simulator.detailed.evaluate import evaluate, evaluate_reference
    from hwnas.devices.simulator.detailed.high_water import layer_by_layer_peak_bytes
    from hwnas.devices.simulator.detailed.mapper import Mapper
    from hwnas.devices.simulator.detailed.reference import (
        load_reference,
        reference_accelerator,
        reference_network,
    )
    from hwnas.devices.simulator.explanation import explain
    from hwnas.devices.simulator.layers import Layer, Network
    from hwnas.devices.simulator.loading import (
        DEFAULT,
        accelerator_names,
        load_accelerator,
        parse_accelerator,
    )
    from hwnas.devices.simulator.onnx.network import Piece, join_pieces, read_onnx, read_piece
    from hwnas.devices.simulator.result import LayerRow, Result, StackRow
    from hwnas.devices.simulator.scheduler import Figures, Scheduler

__all__ = [
    "DEFAULT",
    "Accelerator",
    "Figures",
    "Layer",
    "LayerRow",
    "Mapper",
    "Memory",
    "Network",
    "Piece",
    "Result",
    "Scheduler",
    "StackRow",
    "Table",
    "accelerator_names",
    "evaluate",
    "evaluate_reference",
    "explain",
    "join_pieces",
    "layer_by_layer_peak_bytes",
    "load_accelerator",
    "load_reference",
    "parse_accelerator",
    "read_onnx",
    "read_piece",
    "reference_accelerator",
    "reference_network",
]

_PLACES = {
    "Accelerator": "accelerator",
    "DEFAULT": "loading",
    "Figures": "scheduler",
    "Layer": "layers",
    "LayerRow": "result",
    "Mapper": "detailed.mapper",
    "Memory": "accelerator",
    "Network": "layers",
    "Piece": "onnx.network",
    "Result": "result",
    "Scheduler": "scheduler",
    "StackRow": "result",
    "Table": "closed_form.table",
    "accelerator_names": "loading",
    "evaluate": "detailed.evaluate",
    "evaluate_reference": "detailed.evaluate",
    "explain": "explanation",
    "join_pieces": "onnx.network",
    "layer_by_layer_peak_bytes": "detailed.high_water",
    "load_accelerator": "loading",
    "load_reference": "detailed.reference",
    "parse_accelerator": "loading",
    "read_onnx": "onnx.network",
    "read_piece": "onnx.network",
    "reference_accelerator": "detailed.reference",
    "reference_network": "detailed.reference",
}
"""The file of each name."""


def __getattr__(name: str) -> Any:
    """Import what takes time, numba and onnx, only where it is used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found
