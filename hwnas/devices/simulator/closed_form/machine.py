"""An accelerator as arrays: what the compiled functions of the closed form work on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hwnas.devices.simulator.accelerator import Accelerator

# Rows of the memory table (one column a memory, float64).
SIZE, READ_WIDTH, WRITE_WIDTH, READ_PJ, WRITE_PJ, INSTANCES, SINGLE_PORT = range(7)
MEMORY_ROWS = 7


class Machine(NamedTuple):
    """An accelerator as arrays.

    Attributes:
        array: unrolling of (K, C, G, OY, OX, FY, FX); depthwise layers use that of K for their groups.
        chains: chains[op, i] is the memory at position i of the shared chain of O, W, I; -1 ends it;
            chains[op, 7] is the register file or -1.
        levels: levels[0, a], levels[1, a]: positions in the output and the input chain of activation level
            a, a shared memory that holds both; the last one is off chip.
        level_sizes: bits of the activation levels.
        memory: (MEMORY_ROWS, memories).
        scalars: mac_pj, activation bits, weight bits, partial sum bits, number of memories.
        limits: bits on chip for activations, for weights, and whether both are one memory.
    """

    array: Any
    chains: Any
    levels: Any
    level_sizes: Any
    n_levels: int
    memory: Any
    scalars: Any
    limits: Any
    batch: float


def machine(accelerator: Accelerator) -> Machine:
    """Turn an accelerator into arrays."""
    memories = accelerator.memories
    array = np.ones(7)
    for dim, size in accelerator.unroll:
        array[("K", "C", "G", "OY", "OX", "FY", "FX").index(dim)] = size
    chains = np.full((3, 8), -1, dtype=np.int64)
    for op, operand in enumerate(("O", "W", "I")):
        shared = [m for m in accelerator.chain(operand) if memories[m].shared]
        chains[op, : len(shared)] = shared
        registers = [m for m in accelerator.chain(operand) if not memories[m].shared]
        if registers:
            chains[op, 7] = registers[-1]
    outputs, inputs = list(chains[0]), list(chains[2])
    common = [m for m in outputs[:7] if m >= 0 and m in inputs]
    levels = np.array([[outputs.index(m) for m in common], [inputs.index(m) for m in common]], dtype=np.int64)
    sizes = np.array([memories[m].size_bits for m in common], dtype=np.float64)
    memory = np.array(
        [
            [m.size_bits for m in memories],
            [m.read_bits_per_cycle for m in memories],
            [m.write_bits_per_cycle for m in memories],
            [m.read_pj for m in memories],
            [m.write_pj for m in memories],
            [m.instances for m in memories],
            [int(m.ports[2] > 0 and m.ports[0] == 0) for m in memories],
        ],
        dtype=np.float64,
    )
    scalars = np.array(
        [
            accelerator.mac_pj,
            accelerator.activation_bits,
            accelerator.weight_bits,
            accelerator.partial_sum_bits,
            len(memories),
        ],
        dtype=np.float64,
    )
    on_chip_weights = [m for m in accelerator.chain("W") if m != accelerator.dram and memories[m].shared]
    activation = common[-2] if len(common) > 1 else -1
    limits = np.array(
        [
            memories[activation].size_bits if activation >= 0 else 0.0,
            memories[on_chip_weights[-1]].size_bits if on_chip_weights else 0.0,
            float(bool(on_chip_weights) and on_chip_weights[-1] == activation),
        ]
    )
    return Machine(
        array, chains, levels, sizes, len(common), memory, scalars, limits, float(accelerator.batch)
    )
