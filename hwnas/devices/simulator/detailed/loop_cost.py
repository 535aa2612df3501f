"""Accesses, energy, first loads of a loop order (ZigZag: Mei et al., IEEE TC 2021, DATE 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.detailed.loop_contents import (
    BITS,
    BOOST,
    DATA,
    MEAN_BOOST,
    MEAN_DATA,
    PARTIAL,
    SERVED,
    UNITS,
    Contents,
    find_cuts,
    find_data,
    find_partial_sums,
)
from hwnas.devices.simulator.detailed.loop_nest import (
    CYCLES,
    DRAM_READ_BITS,
    DRAM_WRITE_BITS,
    ENERGY,
    FOUND,
    LOAD,
    OPERANDS,
    STALL,
    Hardware,
    I,
    Nest,
    O,
    W,
)
from hwnas.devices.simulator.detailed.loop_stalls import find_refills, longest_stall


@njit(error_model="numpy")
def cost_of_order(order: Any, nest: Nest, hw: Hardware, cuts: Any, contents: Contents, out: Any) -> None:
    """Energy, cycles, stalls, first loads and off-chip bits of one loop order with its allocation.

    Args:
        contents: its unrolling is known; the rest is filled.
    """
    total = find_cuts(order, nest, cuts, contents.counts)
    find_partial_sums(order, nest, contents.counts, contents.amounts)
    find_data(order, nest, contents)
    find_refills(order, nest, hw.size, contents)
    out[CYCLES] = total
    add_accesses(nest, hw, total, contents.counts, contents.amounts, out)
    out[STALL] = longest_stall(nest, hw, total, contents)
    out[LOAD] = first_load(nest, hw, contents.amounts)
    out[FOUND] = 1.0


@njit(error_model="numpy")
def add_accesses(nest: Nest, hw: Hardware, total: int, counts: Any, amounts: Any, out: Any) -> None:
    """Words moved and their energy: access counts at the ports' granularity."""
    energy, dram_read, dram_write = hw.mac_pj * nest.macs, 0.0, 0.0
    for op in range(OPERANDS):
        for lv in range(nest.nlev[op]):
            m, inner = nest.levels[op, lv], nest.levels[op, max(0, lv - 1)]
            bits, boost = amounts[BITS, op, lv], amounts[MEAN_BOOST, op, lv]
            amount = amounts[MEAN_DATA, op, lv] * max(1.0, np.floor(boost + 1e-9))
            times = (total // counts[SERVED, op, lv]) * amounts[UNITS, op, lv + 1]
            # Reads go towards the array: inputs, and partial sums that return. Outputs come from it.
            if bits > 0 and (op != O or counts[PARTIAL, O, lv]):
                other = hw.write_bits[inner] * boost if lv > 0 else np.inf
                words = words_in_turns(amount, bits, hw.read_bits[m], other, hw.bank_bits) * times
                energy += words * hw.read_pj[m]
                if m == hw.size.shape[0] - 1:
                    dram_read += words * hw.read_bits[m]
            if bits > 0 and op == O:
                other = hw.read_bits[inner] * boost if lv > 0 else np.inf
                words = words_in_turns(amount, bits, hw.write_bits[m], other, hw.bank_bits) * times
                energy += words * hw.write_pj[m]
                if m == hw.size.shape[0] - 1:
                    dram_write += words * hw.write_bits[m]
            if lv == nest.nlev[op] - 1:
                continue
            # Reads go to the memory above: outputs. Inputs, and partial sums that return, come from there.
            bits = amounts[MEAN_DATA, op, lv + 1] * amounts[BITS, op, lv + 1]
            times = (total // counts[SERVED, op, lv + 1]) * amounts[UNITS, op, lv + 1]
            if op == O:
                energy += words_of(bits, hw.read_bits[m], hw.bank_bits) * times * hw.read_pj[m]
            if op != O or counts[PARTIAL, O, lv + 1]:
                energy += words_of(bits, hw.write_bits[m], hw.bank_bits) * times * hw.write_pj[m]
    out[ENERGY], out[DRAM_READ_BITS], out[DRAM_WRITE_BITS] = energy, dram_read, dram_write


@njit(error_model="numpy")
def words_of(bits: float, wide: float, bank_bits: int) -> Any:
    """Words of a memory that some bits take where it opens only the banks that it needs."""
    bank = min(bank_bits, wide)
    return np.ceil(bits / bank - 1e-9) * bank / wide


@njit(error_model="numpy")
def words_in_turns(amount: float, bits: float, wide: float, other: float, bank_bits: int) -> Any:
    """Words that elements take which go through two ports at once.

    Args:
        amount, bits: of the elements; wide, other: bits of the port, and of all ports on the other side.
    """
    if other == np.inf:
        return words_of(amount * bits, wide, bank_bits)
    per_cycle = min(other / bits, wide / bits, amount)
    return words_of(per_cycle * bits, wide, bank_bits) * np.ceil(amount / per_cycle - 1e-9)


@njit(error_model="numpy")
def first_load(nest: Nest, hw: Hardware, amounts: Any) -> Any:
    """Cycles before the array can start: weights and inputs come in, one after the other where they share."""
    weights, inputs = loads_of(W, I, nest, hw, amounts), loads_of(I, W, nest, hw, amounts)
    w_alone, w_half, w_both = weights
    i_alone, i_half, i_both = inputs
    weights_first = w_both + max(i_both + i_half + i_alone, w_half + w_alone)
    inputs_first = i_both + max(w_both + w_half + w_alone, i_half + i_alone)
    return i_alone + i_half + i_both if nest.nlev[W] == 0 else min(weights_first, inputs_first)


@njit(error_model="numpy")
def loads_of(op: int, other: int, nest: Nest, hw: Hardware, amounts: Any) -> Any:
    """Cycles of an operand's first loads, by whether the other one uses neither memory, one of them, both."""
    alone, half, both = 0.0, 0.0, 0.0
    bits = nest.precision[op]
    for lv in range(nest.nlev[op] - 1):
        m, above, data = nest.levels[op, lv], nest.levels[op, lv + 1], amounts[DATA, op, lv + 1]
        fill = np.ceil(data * bits / hw.write_bits[m] - 1e-9)
        fetch = np.ceil(data * amounts[BOOST, op, lv + 1] * bits / hw.read_bits[above] - 1e-9)
        shares, shares_above = nest.mem_level[m, other] >= 0, nest.mem_level[above, other] >= 0
        if shares and shares_above:
            both += max(fill, fetch)
        elif shares or shares_above:
            half = max(fill, fetch)
        else:
            alone += max(fill, fetch)
    return alone, half, both
