"""Which networks hwnas takes: where each is cut by default, and which families fit its blocks.

python benchmarks/network_coverage.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.space import load_space
from hwnas.networks.cut_points import cut_points, distinct
from hwnas.networks.find import open_model
from hwnas.networks.partition import Partition, partition

NETWORKS = (
    "efficientnet_b0",
    "efficientnet_lite0",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mnasnet_100",
    "resnet18",
    "resnet50",
    "regnety_004",
    "convnext_atto",
    "repvgg_a0",
    "ghostnet_100",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "branches:make",
)


def fitting(parts: Partition) -> str:
    """The blocks in which each family of the space `mixed` has a candidate smaller than the block."""
    found: dict[str, set[int]] = {}
    for candidate in find_candidates(parts, load_space("mixed"), 24):
        if candidate.spec.family != "variant":
            found.setdefault(candidate.spec.family, set()).add(candidate.part)
    everywhere = set(range(1, parts.block_count + 1))
    texts = [
        family if blocks == everywhere else f"{family} ({', '.join(map(str, sorted(blocks)))})"
        for family, blocks in sorted(found.items())
    ]
    return "all" if len(texts) == 4 and "(" not in "".join(texts) else ", ".join(texts)


def main() -> None:
    """Print one row a network."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers" / "workplace"))
    print("| network | input | blocks | cut behind | other places | composed − whole | families (blocks) |")
    print("|---|---|---|---|---|---|---|")
    for name in NETWORKS:
        torch.manual_seed(0)
        module, shape = open_model(name, 0, allow_code=True)
        parts = partition(module, shape)
        places = distinct(cut_points(module, shape)[0], parts.cuts)
        others = len([place for place in places if place.name not in parts.cuts])
        print(
            f"| `{name}` | {shape[1]} px | {parts.block_count} | {', '.join(parts.cuts)} | {others} | "
            f"{parts.max_abs_difference:.1g} | {fitting(parts)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
