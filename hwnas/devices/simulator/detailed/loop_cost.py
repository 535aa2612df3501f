"""Accesses, energy, stalls, first loads of a loop order (ZigZag: Mei et al., IEEE TC 2021, DATE 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.detailed.loop_nest import (
    CYCLES,
    DRAM_READ_BITS,
    DRAM_WRITE_BITS,
    ENERGY,
    FOUND,
    LOAD,
    MAX_LEVELS,
    STALL,
    I,
    O,
    W,
    elements,
    relevance,
)
from hwnas.devices.simulator.detailed.port_windows import port_of, window_union


@njit(error_model="numpy")
def cost_of_order(order: Any, nest: Any, hw: Any, cuts: Any, out: Any) -> None:
    """Energy, cycles, stalls, first loads and off-chip bits of one loop order with its allocation."""
    n = order.shape[0]
    nmem = hw.size.shape[0]
    # Loops that leave an operand unchanged belong to the memory below: it keeps serving while they run.
    cycles = np.ones((3, MAX_LEVELS + 1), dtype=np.int64)
    cut = np.zeros((3, MAX_LEVELS + 1), dtype=np.int64)
    total = 1
    for p in range(n):
        total *= nest.fsize[p]
    for op in range(3):
        for lv in range(nest.nlev[op]):
            c = max(cuts[op, lv], cut[op, lv])
            while c < n and relevance(op, nest.fdim[order[c]], nest.geom) == 0:
                c += 1
            cut[op, lv + 1] = c
            t = 1
            for p in range(c):
                t *= nest.fsize[order[p]]
            cycles[op, lv + 1] = t
    # Does a partial sum still travel into output level lv from below?
    partial = np.zeros(MAX_LEVELS + 1, dtype=np.int64)
    for lv in range(nest.nlev[O]):
        for p in range(cut[O, lv], n):
            if relevance(O, nest.fdim[order[p]], nest.geom) == 0:
                partial[lv] = 1
        for d in range(7):
            if nest.unroll[d] > 1 and nest.placed_at[O, d] >= lv + 1 and relevance(O, d, nest.geom) == 0:
                partial[lv] = 1
    data = np.ones((3, MAX_LEVELS + 1))  # elements per instance: whole unrolling
    data_f = np.ones((3, MAX_LEVELS + 1))  # ... average unrolling, for energy
    boost = np.ones((3, MAX_LEVELS + 1))
    boost_f = np.ones((3, MAX_LEVELS + 1))
    units = np.ones((3, MAX_LEVELS + 2))
    ext = np.ones(7)
    ext_f = np.ones(7)
    one = np.ones(7)
    for op in range(3):
        for lv in range(nest.nlev[op] + 1):
            for d in range(7):
                one[d] = 1.0
                if nest.placed_at[op, d] == lv:
                    one[d] = nest.unroll[d]
            boost_f[op, lv] = elements(op, one, nest.geom)
            for d in range(7):
                one[d] = np.ceil(one[d] - 1e-9)
            boost[op, lv] = np.floor(elements(op, one, nest.geom) + 1e-9)
            count = 1.0
            for d in range(7):
                if nest.placed_at[op, d] >= lv:
                    count *= nest.unroll[d]
            units[op, lv] = np.floor(count + 0.5)
            if lv == 0:
                continue
            for d in range(7):
                ext_f[d] = nest.unroll[d] if nest.placed_at[op, d] <= lv - 1 else 1.0
                ext[d] = np.ceil(ext_f[d] - 1e-9)
            for p in range(cut[op, lv]):
                ext[nest.fdim[order[p]]] *= nest.fsize[order[p]]
                ext_f[nest.fdim[order[p]]] *= nest.fsize[order[p]]
            data[op, lv] = elements(op, ext, nest.geom)
            data_f[op, lv] = np.floor(elements(op, ext_f, nest.geom) + 0.5)
    # --- words moved and energy (ZigZag: access counts at the ports' granularity)
    energy = hw.mac_pj * nest.macs
    dram_read = 0.0
    dram_write = 0.0
    for op in range(3):
        for lv in range(nest.nlev[op]):
            m = nest.levels[op, lv]
            low_bits = nest.precision[op]
            high_bits = nest.precision[op]
            if op == O:
                low_bits = nest.precision[3] if partial[lv] else nest.precision[0]
                high_bits = (
                    nest.precision[3] if lv + 1 < nest.nlev[O] and partial[lv + 1] else nest.precision[0]
                )
            amount_low = data_f[op, lv] * max(1.0, np.floor(boost_f[op, lv] + 1e-9))
            for write in range(2):
                # towards the array (reads; inputs and returning partial sums) and from it (writes; outputs)
                if (write == 1 and op != O) or (write == 0 and op == O and not partial[lv]):
                    continue
                wide = hw.write_bits[m] if write else hw.read_bits[m]
                bank = min(hw.bank_bits, wide)
                if low_bits == 0:
                    continue
                per_cycle = amount_low
                turns = 1.0
                if lv > 0:
                    inner = nest.levels[op, lv - 1]
                    other = (hw.read_bits[inner] if write else hw.write_bits[inner]) * boost_f[op, lv]
                    per_cycle = min(other / low_bits, wide / low_bits, amount_low)
                    turns = np.ceil(amount_low / per_cycle - 1e-9)
                words = np.ceil(per_cycle * low_bits / bank - 1e-9) * bank / wide * turns
                words *= (total // cycles[op, lv]) * units[op, lv + 1]
                energy += words * (hw.write_pj[m] if write else hw.read_pj[m])
                if m == nmem - 1:
                    if write:
                        dram_write += words * wide
                    else:
                        dram_read += words * wide
            if lv == nest.nlev[op] - 1:
                continue
            for write in range(2):
                # towards the memory above (reads of outputs) and from it (writes of inputs, returning sums)
                if (write == 0 and op != O) or (write == 1 and op == O and not partial[lv + 1]):
                    continue
                wide = hw.write_bits[m] if write else hw.read_bits[m]
                bank = min(hw.bank_bits, wide)
                words = np.ceil(data_f[op, lv + 1] * high_bits / bank - 1e-9) * bank / wide
                words *= (total // cycles[op, lv + 1]) * units[op, lv + 1]
                energy += words * (hw.write_pj[m] if write else hw.read_pj[m])
    # --- which memories can be refilled while they are used (double buffering)
    double = np.zeros((3, MAX_LEVELS + 1), dtype=np.int64)
    keep = np.ones(
        (3, MAX_LEVELS + 1), dtype=np.int64
    )  # product of outermost loops that do not change the content
    used = np.zeros((3, MAX_LEVELS + 1))
    shared = np.zeros(nmem)
    for op in range(3):
        for lv in range(nest.nlev[op]):
            m = nest.levels[op, lv]
            fresh = 1
            p = cut[op, lv + 1] - 1
            while p >= cut[op, lv] and relevance(op, nest.fdim[order[p]], nest.geom) == 1:
                fresh *= nest.fsize[order[p]]
                p -= 1
            p = cut[op, lv + 1] - 1
            while p >= cut[op, lv] and relevance(op, nest.fdim[order[p]], nest.geom) == 0:
                keep[op, lv + 1] *= nest.fsize[order[p]]
                p -= 1
            bits = nest.precision[op]
            if op == O and lv + 1 < nest.nlev[O] and partial[lv + 1]:
                bits = nest.precision[3]
            used[op, lv] = np.floor(np.floor(data_f[op, lv + 1] + 0.5) * bits / fresh) / hw.size[m]
            shared[m] += used[op, lv]
    for op in range(3):
        for lv in range(nest.nlev[op]):
            m = nest.levels[op, lv]
            if shared[m] <= 0.5:
                double[op, lv + 1] = 1
            elif used[op, lv] <= 1 - shared[m]:
                double[op, lv + 1] = 1
                shared[m] += used[op, lv]
    # --- stalls: streams that share a port compete for its cycles
    stall = 0.0
    per = np.zeros(12, dtype=np.int64)
    win = np.zeros(12, dtype=np.int64)
    real = np.zeros(12, dtype=np.int64)
    for m in range(nmem):
        nports = (
            hw.ports[m, 2] if hw.ports[m, 2] > 0 and hw.ports[m, 0] == 0 else hw.ports[m, 0] + hw.ports[m, 1]
        )
        for port in range(nports):
            k = 0
            for op in range(3):
                lv = nest.mem_level[m, op]
                if lv < 0:
                    continue
                for way in range(4):
                    # 0: read to the array, 1: written from above, 2: written from the array, 3: read to above
                    if op != O and way >= 2:
                        continue
                    if port_of(hw.ports, m, way) != port:
                        continue
                    upper = way == 1 or way == 3
                    if upper and lv == nest.nlev[op] - 1:
                        continue
                    if op == O and ((way == 0 and not partial[lv]) or (way == 1 and not partial[lv + 1])):
                        continue
                    edge = lv + 1 if upper else lv
                    period = cycles[op, edge]
                    bits = nest.precision[op]
                    if op == O and edge < nest.nlev[O] and partial[edge]:
                        bits = nest.precision[3]
                    amount = data[op, edge] * (1.0 if upper else boost[op, lv])
                    wide = hw.read_bits[m] if way == 0 or way == 3 else hw.write_bits[m]
                    per[k] = period
                    win[k] = period if double[op, edge] else period // keep[op, edge]
                    real[k] = int(np.ceil(amount * bits / wide - 1e-9))
                    k += 1
            if k == 0:
                continue
            if k == 1:
                stall = max(stall, float((real[0] - win[0]) * (total // per[0] - 1)))
                continue
            for a in range(1, k):  # insertion sort by period
                b = a
                while b > 0 and per[b] < per[b - 1]:
                    per[b], per[b - 1] = per[b - 1], per[b]
                    win[b], win[b - 1] = win[b - 1], win[b]
                    real[b], real[b - 1] = real[b - 1], real[b]
                    b -= 1
            lost = 0.0
            slack = 0.0
            windows = 0.0
            for a in range(k):
                repeats = total // per[a] - 1
                difference = float((real[a] - win[a]) * repeats)
                if difference > 0:
                    lost += difference
                else:
                    slack += difference
                windows += float(win[a] * repeats)
            union = float(window_union(per, win, k)) * (total // per[k - 1])
            stall = max(stall, lost + max(0.0, slack + windows - union))
    # --- first loads, before the array can start
    alone = np.zeros(3)
    half = np.zeros(3)
    both = np.zeros(3)
    for op in range(1, 3):
        bits = nest.precision[op]
        for lv in range(nest.nlev[op] - 1):
            m = nest.levels[op, lv]
            above = nest.levels[op, lv + 1]
            fill = np.ceil(data[op, lv + 1] * bits / hw.write_bits[m] - 1e-9)
            fetch = np.ceil(data[op, lv + 1] * boost[op, lv + 1] * bits / hw.read_bits[above] - 1e-9)
            longest = max(fill, fetch)
            other = 3 - op
            s0 = nest.mem_level[m, other] >= 0
            s1 = nest.mem_level[above, other] >= 0
            if s0 and s1:
                both[op] += longest
            elif s0 or s1:
                half[op] = longest
            else:
                alone[op] += longest
    load = 0.0
    if nest.nlev[W] == 0:
        load = alone[I] + half[I] + both[I]
    else:
        first = both[W] + max(both[I] + half[I] + alone[I], half[W] + alone[W])
        second = both[I] + max(both[W] + half[W] + alone[W], half[I] + alone[I])
        load = min(first, second)
    out[ENERGY] = energy
    out[CYCLES] = total
    out[STALL] = stall
    out[LOAD] = load
    out[DRAM_READ_BITS] = dram_read
    out[DRAM_WRITE_BITS] = dram_write
    out[FOUND] = 1.0
