"""One layer tile on the array: the best order of its temporal loops, found by trying them all.

For every order of the temporal loop factors each memory, innermost first, takes as many inner loops of
its operands as fit (loop_allocation); reads, writes, stalls and first loads follow (loop_cost).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwnas.devices.simulator.accelerator import DIMENSIONS
from hwnas.devices.simulator.compiled import cached
from hwnas.devices.simulator.detailed.loop_allocation import allocate, nothing_taken
from hwnas.devices.simulator.detailed.loop_contents import find_unrolled, no_contents
from hwnas.devices.simulator.detailed.loop_cost import cost_of_order
from hwnas.devices.simulator.detailed.loop_nest import (
    COLUMNS,
    CYCLES,
    ENERGY,
    FOUND,
    LOAD,
    MAX_LEVELS,
    OPERANDS,
    STALL,
    Hardware,
    Nest,
)

# Rank of every dimension by name: the first order visited has the names falling.
ALPHABETICAL = np.array([sorted(DIMENSIONS).index(name) for name in DIMENSIONS])

# Entries of the state of next_order.
HEAD, AT, AFTER = range(3)


@njit(error_model="numpy")
def next_order(follow: Any, keys: Any, state: Any) -> bool:
    """Step to the next distinct order of the loop factors; False after the last.

    Prefix shifts visit every order of a multiset once (Williams, SODA 2009). The orders form a linked
    list: follow[i] is the factor after i or -1; state holds its head, a factor i, and the one after i.
    """
    head, i, after = state[HEAD], state[AT], state[AFTER]
    if after < 0 or not (follow[after] >= 0 or keys[after] < keys[head]):
        return False
    before = after if follow[after] >= 0 and keys[i] >= keys[follow[after]] else i
    k = follow[before]
    follow[before] = follow[k]
    follow[k] = head
    if keys[k] < keys[head]:
        i = k
    state[HEAD], state[AT], state[AFTER] = k, i, follow[i]
    return True


@cached
def best_order(nest: Nest, hw: Hardware, fastest_tie: bool) -> Any:
    """The order of least energy over all distinct orders of the loop factors.

    Orders of equal energy are decided by latency if fastest_tie, else the first one visited stays.

    Returns:
        a row of COLUMNS values; FOUND is 0 where no order fits the memories.
    """
    n = nest.fdim.shape[0]
    keys = np.zeros(n, dtype=np.int64)
    for i in range(n):
        keys[i] = ALPHABETICAL[nest.fdim[i]] * 1_000_000_000 + nest.fsize[i]
    falling = np.argsort(-keys)
    follow = np.full(n, -1, dtype=np.int64)
    for i in range(n - 1):
        follow[falling[i]] = falling[i + 1]
    state = np.full(3, -1, dtype=np.int64)
    if n > 0:
        state[HEAD] = falling[0]
        if n > 1:
            state[AT], state[AFTER] = falling[n - 2], falling[n - 1]
    order = np.zeros(n, dtype=np.int64)
    best = np.zeros(COLUMNS)
    row = np.zeros(COLUMNS)
    cuts = np.zeros((OPERANDS, MAX_LEVELS), dtype=np.int64)
    contents, taken = no_contents(hw.size.shape[0]), nothing_taken(n)
    find_unrolled(nest, contents)
    while True:
        at = state[HEAD]
        for i in range(n):
            order[i] = at
            at = follow[at]
        if allocate(order, nest, hw, taken, cuts):
            cost_of_order(order, nest, hw, cuts, contents, row)
            margin = best[ENERGY] * 1e-12
            if (
                best[FOUND] == 0.0
                or row[ENERGY] < best[ENERGY] - margin
                or (
                    fastest_tie
                    and row[ENERGY] <= best[ENERGY] + margin
                    and row[CYCLES] + row[STALL] + row[LOAD] < best[CYCLES] + best[STALL] + best[LOAD]
                )
            ):
                best[:] = row
        if not next_order(follow, keys, state):
            return best
