"""What it costs to find out that a network is one function: each check of a run's start, in CPU seconds.

    python benchmarks/network_checks.py [MODEL] [SIZE]     (efficientnet_b0, images of 160 pixels)

In one process and one thread. The last two rows are what the checks stand beside: an epoch of distilling one
candidate is hundreds of forward passes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import timm
import torch

from hwnas.compress.library.operators import require_exports
from hwnas.network import random_input
from hwnas.networks.build import assemble
from hwnas.networks.checks import (
    answer_of,
    require_found_weights,
    require_one_function,
    require_rebuildable,
    require_trainable,
    writes_to_input,
)
from hwnas.networks.control_flow import require_no_decisions
from hwnas.networks.partition import partition


def seconds(what: Callable[[], object]) -> float:
    """CPU time of a call."""
    start = time.process_time()
    what()
    return time.process_time() - start


def main() -> None:
    """Print a row for each check."""
    name, size = (*sys.argv[1:], "efficientnet_b0", "160")[:2]
    torch.set_num_threads(1)
    shape = (3, int(size), int(size))
    model = timm.create_model(name, num_classes=10).eval()
    x = random_input((2, *shape))
    parts = partition(model, shape)
    module = assemble(parts, parts.modules)
    with torch.no_grad():
        module(x)  # kernels are chosen at the first pass
    rows: dict[str, Callable[[], object]] = {
        "parts that write to their input (each part, eval and train)": lambda: [
            writes_to_input(part, random_input((2, *of)))
            for part, of in zip(parts.modules, parts.shapes, strict=False)
        ],
        "weights that parts share": lambda: parts.shared,
        "built twice alike": lambda: require_rebuildable(
            model, timm.create_model(name, num_classes=10).eval(), x, name
        ),
        "the answer of the record": lambda: answer_of(module, shape),
        "the same twice, and without neighbours": lambda: require_one_function(model, x),
        "no weights that torch does not find": lambda: require_found_weights(model, x),
        "no control flow on values": lambda: require_no_decisions(model, x),
        "every own part exported and compared with its graph": lambda: require_exports(parts),
        "every own part trained one step": lambda: require_trainable(
            parts.ordered(parts.modules), parts.wiring, x
        ),
        "(a whole partition)": lambda: partition(model, shape),
        "(a forward pass of two images)": lambda: module(x),
    }
    print(f"{name}, images of {size} pixels, one thread")
    for row, what in rows.items():
        print(f"{seconds(what):8.2f} s  {row}")


if __name__ == "__main__":
    main()
