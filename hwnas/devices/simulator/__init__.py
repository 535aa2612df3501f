"""A depth-first (layer-fused) processor without hardware: latency, energy, DRAM traffic of whole networks.

Two models share layers, accelerators and tile geometry. `evaluate` costs a given schedule in detail: it
searches the loop order of every layer tile. `Scheduler` finds the best schedule with a closed-form model
and an exact dynamic program, hundreds of networks a second. docs/simulator.md states both, with sources.
"""

from __future__ import annotations

from .accelerator import Accelerator, Memory
from .detailed import evaluate, evaluate_reference
from .explain import explain
from .layers import Layer, Network
from .loading import DEFAULT, accelerator_names, load_accelerator, parse_accelerator
from .mapper import Mapper
from .onnx_network import read_onnx
from .peak import layer_by_layer_peak_bytes
from .reference import load_reference, reference_accelerator, reference_network
from .result import LayerRow, Result, StackRow
from .schedule import Figures, Scheduler
from .table import Table

__all__ = [
    "DEFAULT",
    "Accelerator",
    "Figures",
    "Layer",
    "LayerRow",
    "Mapper",
    "Memory",
    "Network",
    "Result",
    "Scheduler",
    "StackRow",
    "Table",
    "accelerator_names",
    "evaluate",
    "evaluate_reference",
    "explain",
    "layer_by_layer_peak_bytes",
    "load_accelerator",
    "load_reference",
    "parse_accelerator",
    "read_onnx",
    "reference_accelerator",
    "reference_network",
]
