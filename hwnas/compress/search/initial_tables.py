"""What is known of each choice before any whole network was measured: what it adds, and how large it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwnas.compress.library.stitch import Stitcher
from hwnas.compress.quality.kinds import QualityModel
from hwnas.compress.search.block_costs import BlockCosts
from hwnas.compress.search.surrogate import AdditiveTables
from hwnas.compress.settings import MEASURED, Objective


def block_tables(
    stitcher: Stitcher,
    quality: QualityModel,
    choices: Sequence[Sequence[int]],
    blocks: BlockCosts | None,
    objectives: Sequence[Objective],
) -> AdditiveTables:
    """What each choice adds to the loss and each cost, before any network was measured.

    MACs and parameters are exact. Time and energy are those of the block on its own, where the filter
    measured them, and otherwise in proportion to the MACs.
    """
    known = (
        {}
        if blocks is None
        else {(part.part, row.choice): row.cost for part in blocks.parts for row in part.choices}
    )
    kind = None if blocks is None else blocks.cost
    losses = quality.part_losses(choices)
    tables = []
    for part, of_part in enumerate(choices):
        columns = [losses[part]]
        for objective in objectives:
            share = np.array([_part_share(stitcher, objective, part, choice) for choice in of_part])
            if kind == ("energy" if objective == "energy" else "latency") and objective in MEASURED:
                whole = sum(known.get((n, first)) or 0.0 for n, (first, *_) in enumerate(choices))
                alone = [known.get((part, choice)) for choice in of_part]
                share = np.array(
                    [share[i] if cost is None else cost / (whole or 1.0) for i, cost in enumerate(alone)]
                )
            columns.append(share)
        tables.append(np.column_stack(columns))
    return tables


def _part_share(stitcher: Stitcher, objective: Objective, part: int, choice: int) -> float:
    index = 1 if objective == "params" else 0
    return stitcher.part_cost(part, choice)[index] / stitcher.cost((0,) * len(stitcher.parts.modules))[index]


def choice_sizes(stitcher: Stitcher, choices: Sequence[Sequence[int]]) -> AdditiveTables:
    """Depth and MACs a layer of each choice of each part; the reference's own counts as the deepest one."""
    tables = []
    for part, of_part in enumerate(choices):
        depths = {choice: stitcher.part_depth(part, choice) for choice in of_part}
        deepest = max(depth or 1 for depth in depths.values())
        tables.append(
            np.array(
                [
                    [depth or deepest, stitcher.part_cost(part, choice)[0] / (depth or deepest)]
                    for choice, depth in depths.items()
                ]
            )
        )
    return tables
