"""An accelerator as arrays: what the compiled functions of the closed form work on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hwnas.devices.simulator.accelerator import Accelerator

# Rows of the memory table (one column a memory, float64): what a memory is, and a scratch for one layer tile:
# bits read and written; how many of them take no time while the array computes (first loads and the last
# write, less what ragged transfers take beside them); cycles in which the array waits for the port whatever
# else it does.
SIZE, READ_WIDTH, WRITE_WIDTH, READ_PJ, WRITE_PJ, SINGLE_PORT = range(6)
READ, WRITTEN, READ_FREE, WRITE_FREE, READ_WAIT, WRITE_WAIT = range(6, 12)
MEMORY_ROWS = 12

# Rows of the chains, and where in one the register file stands. The last two rows are of activation levels:
# shared memories that hold outputs and inputs.
O, W, I, O_LEVELS, I_LEVELS = range(5)  # noqa: E741 - the names in the literature
REGISTERS = 7


class Loops(NamedTuple):
    """One number for each loop of a layer: output and input channels, groups, rows, columns, kernel."""

    k: float
    c: float
    g: float
    oy: float
    ox: float
    fy: float
    fx: float


class Array(NamedTuple):
    """The array of multipliers.

    Attributes:
        unroll: steps that it takes at once; depthwise layers use those of K for their groups.
        mac_pj: energy of a multiplication.
        activation_bits, weight_bits, sum_bits: of an element; of a partial sum.
    """

    unroll: Loops
    mac_pj: float
    activation_bits: float
    weight_bits: float
    sum_bits: float


class Machine(NamedTuple):
    """An accelerator as the compiled functions take it.

    Attributes:
        chains: chains[op, i] is the memory at position i of the shared chain of O, W, I; -1 ends it;
            chains[op, REGISTERS] is the register file or -1; chains[O_LEVELS, a], chains[I_LEVELS, a] are the
            positions of activation level a in the chains of O and I; the last level is off chip.
        memory: (MEMORY_ROWS, memories).
        level_sizes, n_levels: bits of the activation levels, and how many they are.
        weights_top: position of the off-chip memory in the weight chain.
        map_room, weight_room, one_room: bits on chip for maps, for weights; whether both are one memory.
    """

    array: Array
    chains: Any
    memory: Any
    level_sizes: tuple[float, ...]
    n_levels: int
    weights_top: int
    map_room: float
    weight_room: float
    one_room: bool
    batch: float


def machine(accelerator: Accelerator) -> Machine:
    """Turn an accelerator into arrays."""
    memories = accelerator.memories
    unroll = Loops(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    unroll = unroll._replace(**{dim.lower(): float(size) for dim, size in accelerator.unroll})
    chains = np.full((5, 8), -1, dtype=np.int64)
    for op, operand in enumerate(("O", "W", "I")):
        shared = [m for m in accelerator.chain(operand) if memories[m].shared]
        chains[op, : len(shared)] = shared
        registers = [m for m in accelerator.chain(operand) if not memories[m].shared]
        if registers:
            chains[op, REGISTERS] = registers[-1]
    outputs, inputs = list(chains[O]), list(chains[I])
    common = [m for m in outputs[:REGISTERS] if m >= 0 and m in inputs]
    chains[O_LEVELS, : len(common)] = [outputs.index(m) for m in common]
    chains[I_LEVELS, : len(common)] = [inputs.index(m) for m in common]
    sizes = [float(memories[m].size_bits) for m in common]
    memory = np.zeros((MEMORY_ROWS, len(memories)))
    memory[:READ] = np.array(
        [
            [m.size_bits for m in memories],
            [m.read_bits_per_cycle for m in memories],
            [m.write_bits_per_cycle for m in memories],
            [m.read_pj for m in memories],
            [m.write_pj for m in memories],
            [int(m.one_port) for m in memories],
        ],
        dtype=np.float64,
    )
    on_chip_weights = [m for m in accelerator.chain("W") if m != accelerator.dram and memories[m].shared]
    activation = common[-2] if len(common) > 1 else -1
    return Machine(
        array=Array(
            unroll,
            float(accelerator.mac_pj),
            float(accelerator.activation_bits),
            float(accelerator.weight_bits),
            float(accelerator.partial_sum_bits),
        ),
        chains=chains,
        memory=memory,
        level_sizes=(*sizes, *(0.0 for _ in range(8 - len(sizes)))),
        n_levels=len(common),
        weights_top=int((chains[W, 1:REGISTERS] >= 0).sum()),
        map_room=float(memories[activation].size_bits) if activation >= 0 else 0.0,
        weight_room=float(memories[on_chip_weights[-1]].size_bits) if on_chip_weights else 0.0,
        one_room=bool(on_chip_weights) and on_chip_weights[-1] == activation,
        batch=float(accelerator.batch),
    )
