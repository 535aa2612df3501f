"""Which loops run inside which memory (LOMA, Symons et al., AICAS 2021)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.detailed.loop_nest import O, elements, relevance


@njit(error_model="numpy")
def allocate(order: Any, nest: Any, hw: Any, cuts: Any) -> Any:
    """Give every memory the inner loops of its operands that fit (LOMA's bottom-up allocation).

    Writes cuts[op, level]: how many loops of the order lie at or below the level. False if they do not fit.
    """
    n = order.shape[0]
    ext = np.ones((3, 7))
    taken = np.zeros(3, dtype=np.int64)
    sizes = np.zeros((3, n + 1))
    count = np.zeros(3, dtype=np.int64)
    offset = np.zeros(3, dtype=np.int64)
    trial = np.ones(7)
    for op in range(3):
        for d in range(7):
            if nest.placed_at[op, d] == 0:
                ext[op, d] = nest.unroll[d]
    for m in range(hw.size.shape[0]):
        for op in range(3):
            lv = nest.mem_level[m, op]
            count[op] = 0
            offset[op] = 0
            if lv < 0:
                continue
            bits = nest.precision[op]
            if op == O:
                for p in range(taken[O], n):
                    if relevance(O, nest.fdim[order[p]], nest.geom) == 0:
                        bits = nest.precision[3]
                        break
            for d in range(7):
                trial[d] = ext[op, d]
            p = taken[op]
            while True:
                for d in range(7):
                    ext[op, d] = np.ceil(trial[d] - 1e-9)
                size = elements(op, ext[op], nest.geom) * bits
                if size > hw.size[m]:
                    break
                sizes[op, count[op]] = size
                count[op] += 1
                if p == n:
                    break
                trial[nest.fdim[order[p]]] *= nest.fsize[order[p]]
                p += 1
            if count[op] == 0:
                return False
            # Restore the extents of what is already taken.
            for d in range(7):
                ext[op, d] = 1.0
                if nest.placed_at[op, d] <= lv:
                    ext[op, d] = nest.unroll[d]
            for q in range(taken[op]):
                ext[op, nest.fdim[order[q]]] *= nest.fsize[order[q]]
            if lv == nest.nlev[op] - 1:
                if taken[op] + count[op] - 1 != n:
                    return False
                offset[op] = count[op] - 1
                sizes[op, 0] = sizes[op, count[op] - 1]
                count[op] = 1
        # Choose together how many loops each operand takes: least traffic to the memory above.
        best = np.inf
        b0, b1, b2 = -1, -1, -1
        for i2 in range(max(1, count[2])):
            for i1 in range(max(1, count[1])):
                for i0 in range(max(1, count[0])):
                    room = 0.0
                    traffic = 0.0
                    for op in range(3):
                        if count[op] == 0:
                            continue
                        i = i0 if op == 0 else (i1 if op == 1 else i2)
                        room += sizes[op, i]
                        if nest.mem_level[m, op] != nest.nlev[op] - 1:
                            left = 1.0
                            for q in range(taken[op] + i, n):
                                left *= nest.fsize[order[q]]
                            traffic += left * sizes[op, i]
                    if room <= hw.size[m] and traffic <= best:
                        best = traffic
                        b0, b1, b2 = i0, i1, i2
        if b0 < 0:
            # Each operand fits, but not together: what the array takes at once passes through (as in ZigZag),
            # unless this is the outermost memory of an operand with loops left.
            if offset.max() > 0:
                return False
            b0, b1, b2 = 0, 0, 0
        for op in range(3):
            if count[op] == 0:
                continue
            lv = nest.mem_level[m, op]
            i = b0 if op == 0 else (b1 if op == 1 else b2)
            new = taken[op] + i + offset[op]
            for q in range(taken[op], new):
                ext[op, nest.fdim[order[q]]] *= nest.fsize[order[q]]
            taken[op] = new
            cuts[op, lv] = new
            for d in range(7):
                if nest.placed_at[op, d] == lv + 1:
                    ext[op, d] *= nest.unroll[d]
    return True
