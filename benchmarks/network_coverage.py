"""Which networks hwnas takes: what of each is replaced by default, and which families fit its blocks.

python benchmarks/network_coverage.py [graphs]
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.space import load_space
from hwnas.errors import InputError
from hwnas.networks.count import count_parts
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
GRAPHS = (
    "graph_networks:unet",
    "graph_networks:pyramid",
    "graph_networks:several",
    "graph_networks:late",
    "real_networks:lraspp",
    "real_networks:deeplabv3",
    "real_networks:fcn_resnet50",
    "real_networks:ssdlite320",
    "real_networks:retinanet",
    "real_networks:features_only",
    "real_networks:smp_unet",
    "real_networks:smp_fpn",
    "real_networks:smp_deeplabv3plus",
    "real_networks:efficientdet_d0",
    "real_networks:efficientdet_lite0",
    "whole_networks:Edsr",
    "whole_networks:NafNet",
    "whole_networks:Yolop",
    "further_networks:yolov8n",
    "further_networks:text_detector",
    "further_networks:output_net",
    "further_networks:demosaicnet",
    "networks:DnCnn",
    "networks:UpConv7",
)
SIZES = {"networks:DnCnn": (1, 32, 32), "networks:UpConv7": (3, 24, 24)}
OPTIONS = {"Edsr": {"width": 64, "blocks": 16}, "NafNet": {"width": 32}, "Yolop": {"width": 16}}
HELPERS = Path(__file__).parent.parent / "tests" / "helpers"
SHARED = Path(__file__).parents[2] / "shared" / "data"


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


def share(parts: Partition) -> float:
    """Of the MACs, those in blocks."""
    counts = count_parts(parts)
    whole = sum(macs for macs, _ in (*counts.parts, counts.joints))
    return sum(macs for macs, _ in counts.parts[1:-1]) / whole


def opened(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """The network, and the shape of an image that it takes."""
    if name.startswith(("networks:", "whole_networks:")):
        module, _, make = name.partition(":")
        torch.manual_seed(0)
        return getattr(import_module(module), make)(**OPTIONS.get(make, {})).eval(), SIZES.get(
            name, (3, 32, 32)
        )
    return open_model(name, 0, allow_code=True)


def print_chains() -> None:
    """One row a network that names its stages or is one chain."""
    print("| network | input | blocks | cut behind | other places | composed − whole | families (blocks) |")
    print("|---|---|---|---|---|---|---|")
    for name in NETWORKS:
        torch.manual_seed(0)
        module, shape = open_model(name, 0, allow_code=True)
        parts = partition(module, shape)
        places = distinct(cut_points(module, shape)[0], parts.ends)
        others = len([place for place in places if place.name not in parts.ends])
        print(
            f"| `{name}` | {shape[1]} px | {parts.block_count} | {', '.join(parts.ends)} | {others} | "
            f"{parts.max_abs_difference:.1g} | {fitting(parts)} |",
            flush=True,
        )


def print_graphs() -> None:
    """One row a network that is no chain; those whose packages or files are missing are left out."""
    print("| network | input | blocks (places) | parts | MACs in blocks | composed − whole |")
    print("|---|---|---|---|---|---|")
    for name in GRAPHS:
        try:
            module, shape = opened(name)
        except (InputError, ModuleNotFoundError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        parts = partition(module, shape)
        blocks = f"{parts.block_count} ({sum(map(len, parts.regions))})"
        print(
            f"| `{name.partition(':')[2]}` | {shape[1]} px | {blocks} | {len(parts.order)} | "
            f"{share(parts):.1%} | {parts.max_abs_difference:.1g} |",
            flush=True,
        )


def main() -> None:
    """Print both tables, or with `graphs` the second one alone."""
    sys.path[:0] = [str(HELPERS / "workplace"), str(HELPERS), str(SHARED)]
    if sys.argv[1:] != ["graphs"]:
        print_chains()
        print()
    print_graphs()


if __name__ == "__main__":
    main()
